"use strict";
// One example: a sentence, an image with its heat map, or a name.  Codes are integers, 127 its own largest |z|, one.peak.
function example(one, most) {
  const kind = one.tokens ? "text" : one.cells ? "image" : "plain";
  const item = make("li", undefined, { class: kind });
  if (kind === "text") item.append(sentence(one, most));
  if (kind === "image") item.append(framed(one, most));
  const name = one.name.endsWith(`row ${one.row}`) ? caption(one) : `${caption(one)}, row ${one.row}`;
  const place = one.quantile === undefined ? "" : `${percent(one.quantile)}: `;
  const said = make("small", undefined, { title: one.name });
  said.append(make("span", `${place}z = ${number(one.z)}`), make("span", `· ${name}`, { class: "name" }));
  item.append(said);
  return item;
}

function sentence(one, most) {
  const box = make("span");
  const points = Array.from(one.text); // positions count characters, not UTF-16 units
  let at = 0;
  for (const [first, stop, code, here] of one.tokens) {
    if (first < at) continue;
    const start = afterSpace(points, first, stop);
    const z = (code / 127) * one.peak;
    box.append(points.slice(at, start).join(""));
    const token = make("mark", points.slice(start, stop).join(""), { title: `z = ${number(z)}` });
    token.style.background = colour(z / most);
    if (here) token.className = "here";
    box.append(token);
    at = stop;
  }
  box.append(points.slice(at).join(""));
  return box;
}

// An image that opens larger, with its heat map.
function framed(one, most) {
  const button = make("button", undefined, { type: "button", class: "enlarge", "aria-label": `Enlarge ${one.name}` });
  button.append(photo(one, most));
  button.addEventListener("click", () => enlarge(one, most));
  return button;
}

function photo(one, most) {
  const box = make("span", undefined, { class: "photo" });
  box.append(make("img", undefined, { src: data.images[one.image], alt: one.name, loading: "lazy" }));
  const [height, width] = one.grid;
  const canvas = make("canvas", undefined, { width: width * 16, height: height * 16, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  for (const [y, x, code] of one.cells) {
    pen.fillStyle = colour(((code / 127) * one.peak) / most);
    pen.fillRect(x * 16, y * 16, 16, 16);
  }
  for (const [style, inset] of [["#fff", 1.5], ["#000", 0.5]]) { // an outline seen on any image
    pen.strokeStyle = style;
    pen.strokeRect(one.at[1] * 16 + inset, one.at[0] * 16 + inset, 16 - 2 * inset, 16 - 2 * inset);
  }
  box.append(canvas);
  return box;
}

// Three by three patches of an image around the firing one.
function crop(one, tag) {
  const [height, width] = one.grid, [y, x] = one.at;
  const part = (at, size) => {
    const shown = Math.min(3, size), first = Math.min(Math.max(at - 1, 0), size - shown);
    return { zoom: (100 * size) / shown, offset: size > shown ? (100 * first) / (size - shown) : 0 };
  };
  const across = part(x, width), down = part(y, height);
  const box = make(tag, undefined, { class: "crop", role: "img", "aria-label": caption(one), title: caption(one) });
  box.style.backgroundImage = `url("${data.images[one.image]}")`;
  box.style.backgroundSize = `${across.zoom}% ${down.zoom}%`;
  box.style.backgroundPosition = `${across.offset}% ${down.offset}%`;
  return box;
}

// The image with its heat map, without it, and the surroundings of the firing patch.
function enlarge(one, most) {
  const plain = make("img", undefined, { src: data.images[one.image], alt: `${one.name}, without heat map` });
  const views = [["codes", photo(one, most)], ["image", plain], ["around the patch", crop(one, "div")]];
  byId("views").replaceChildren(...views.map(([title, view]) => {
    const figure = make("figure");
    figure.append(view, make("figcaption", title));
    return figure;
  }));
  byId("whole").textContent = `z = ${number(one.z)}, ${one.name}, row ${one.row}`;
  byId("zoom").showModal();
}
