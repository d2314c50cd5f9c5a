"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // Columns of the list: heading, meaning, value of a row of data.table, whether to hide it beside an open concept.
  const columns = [
    { name: "concept", meaning: "number of the atom in the dictionary", value: (row) => row[0] },
    { name: "examples", meaning: "strongest examples of its stronger sign; sorts by their code", value: (row) => Math.max(row[4], row[5]) },
    { name: "energy", meaning: "share of the squares of all concepts' parts", value: (row) => row[1] },
    { name: "density z > 0", meaning: "share of rows", value: (row) => row[2], wide: true },
    { name: "density z < 0", meaning: "share of rows", value: (row) => row[3], wide: true },
    { name: "largest z", meaning: "of all rows", value: (row) => row[4], wide: true },
    { name: "smallest z", meaning: "of all rows", value: (row) => (row[5] ? -row[5] : 0), wide: true },
    { name: "top feature", meaning: "the atom's largest entry", value: (row) => row[6], wide: true },
  ].filter((column) => !data.one_sign || !["density z < 0", "smallest z"].includes(column.name));
  const MEMORISED = 3, DUPLICATE = 0.95, FOLDED = 0.1, PREVIEWS = 4, perPage = 50;
  const state = { sort: null, down: true, page: 0, words: "", chosen: null, hidden: new Set() };
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
  const byConcept = new Map(data.table.map((row) => [row[0], row]));
  const signsOf = (concept) => (data.details[concept] ? data.details[concept].signs : [[], []]);
  const strongerSign = (row) => (row[4] >= row[5] ? 0 : 1);

  // Concepts that are rarely worth reading: marked, and last in reading order.
  const marks = new Map(data.table.map((row) => {
    const reasons = [], detail = data.details[row[0]];
    if (row[2] + row[3] === 0) reasons.push("dead");
    const codes = signsOf(row[0]).flat().map((one) => Math.abs(one.z)).sort((a, b) => b - a);
    if (codes.length && codes[0] > MEMORISED * (codes[1] || 0)) reasons.push("one example");
    const stronger = ([other, cosine]) => cosine > DUPLICATE && (byConcept.get(other)[1] - row[1] || row[0] - other) > 0;
    if (detail && detail.similar.some(stronger)) reasons.push("near duplicate");
    return [row[0], reasons];
  }));
  const searchable = new Map(data.table.map((row) => {
    const words = signsOf(row[0]).flat().map((example) => `${example.name} ${example.text || ""}`).join(" ");
    return [row[0], words.toLowerCase()];
  }));

  // Diverging colours: red for z > 0, blue for z < 0, opaque at the concept's own largest |z|.
  const colour = (share) => `rgba(${share > 0 ? "214, 39, 40" : "31, 119, 180"}, ${(0.7 * Math.min(Math.abs(share), 1)).toFixed(3)})`;
  const scaleOf = (concept) => Math.max(byConcept.get(concept)[4], byConcept.get(concept)[5]) || 1;

  function rows() {
    const asked = state.words.toLowerCase().trim();
    const [, column, id] = /^(?:(concept|feature)\s+)?(\d+)$/.exec(asked) || [];
    const words = asked.split(/\s+/).filter(Boolean);
    const matches = id === undefined
      ? (row) => words.every((word) => searchable.get(row[0]).includes(word))
      : (row) => row[column === "feature" ? 6 : 0] === Number(id);
    const shown = data.table.filter((row) => matches(row) && !marks.get(row[0]).some((mark) => state.hidden.has(mark)));
    if (state.sort === null) return shown.sort((a, b) => !!marks.get(a[0]).length - !!marks.get(b[0]).length || b[1] - a[1] || a[0] - b[0]);
    const { value } = columns[state.sort];
    return shown.sort((a, b) => (state.down ? value(b) - value(a) : value(a) - value(b)) || a[0] - b[0]);
  }

  function head() {
    byId("concepts").tHead.rows[0].replaceChildren(...columns.map(({ name, meaning, wide }, index) => {
      const cell = make("th", undefined, { scope: "col", title: meaning, class: wide ? "wide" : "" });
      if (state.sort === index) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      const button = make("button", name + (state.sort === index ? (state.down ? " ▾" : " ▴") : ""), { type: "button" });
      button.addEventListener("click", () => {
        state.down = state.sort === index ? !state.down : index !== 0;
        state.sort = index;
        state.page = 0;
        list();
        byId("concepts").tHead.rows[0].cells[index].firstChild.focus();
      });
      cell.append(button);
      return cell;
    }));
  }

  function list() {
    head();
    const listed = rows();
    const last = Math.max(0, Math.ceil(listed.length / perPage) - 1);
    state.page = Math.min(state.page, last);
    byId("concepts").tBodies[0].replaceChildren(...listed.slice(state.page * perPage, (state.page + 1) * perPage).map((row) => {
      const line = make("tr", undefined, { class: row[0] === state.chosen ? "chosen" : "" });
      const cell = make("td");
      const button = make("button", row[0], { type: "button", "aria-label": `Open concept ${row[0]}` });
      button.addEventListener("click", () => go(row[0]));
      cell.append(button);
      line.append(cell, preview(row), ...columns.slice(2).map(({ value, wide }) => make("td", number(value(row)), { class: wide ? "wide" : "" })));
      return line;
    }));
    byId("count").textContent = `${listed.length} of ${data.table.length} concepts, page ${state.page + 1} of ${last + 1}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page === last;
    byId("reading").disabled = state.sort === null;
  }

  // One line on what a concept is: marks, then crops, or tokens in their contexts, or the names of rows.
  function preview(row) {
    const sign = strongerSign(row), examples = signsOf(row[0])[sign];
    const cell = make("td", undefined, { class: `preview ${sign ? "negative" : "positive"}` });
    cell.append(...marks.get(row[0]).map((mark) => make("span", mark, { class: "tag" })));
    const shown = new Set();
    for (const one of examples) {
      if (shown.size >= PREVIEWS) break;
      if (one.cells) {
        shown.add(one.image);
        cell.append(crop(one));
        continue;
      }
      const [before, token, after] = one.tokens ? around(one, 14) : ["", one.name, ""];
      if (shown.has(token.trim().toLowerCase())) continue;
      if (shown.size) cell.append(make("span", "·", { class: "gap" }));
      shown.add(token.trim().toLowerCase());
      cell.append(before, one.tokens ? make("b", token) : token, after);
    }
    cell.addEventListener("click", () => go(row[0]));
    return cell;
  }

  // The firing token of an example with `context` characters on each side; positions count characters, not UTF-16 units.
  function around(one, context) {
    const points = Array.from(one.text), [start, stop] = one.tokens.find((token) => token[3]) || [0, 0];
    const flat = (from, to) => points.slice(Math.max(0, from), to).join("").replace(/\s+/g, " ");
    return [flat(start - context, start), flat(start, stop), flat(stop, stop + context)];
  }

  // Three by three patches of an image around the firing one.
  function crop(one) {
    const [height, width] = one.grid, [y, x] = one.at;
    const part = (at, size) => {
      const shown = Math.min(3, size), first = Math.min(Math.max(at - 1, 0), size - shown);
      return { zoom: (100 * size) / shown, offset: size > shown ? (100 * first) / (size - shown) : 0 };
    };
    const across = part(x, width), down = part(y, height);
    const box = make("span", undefined, { class: "crop", role: "img", "aria-label": caption(one), title: caption(one) });
    box.style.backgroundImage = `url("${data.images[one.image]}")`;
    box.style.backgroundSize = `${across.zoom}% ${down.zoom}%`;
    box.style.backgroundPosition = `${across.offset}% ${down.offset}%`;
    return box;
  }

  const caption = (one) => one.name.split(": patch [")[0].split(/[\\/]/).pop();

  // The address holds the open concept, so that the browser's Back and Forward work.
  const go = (concept) => { location.hash = concept === null ? "" : `#concept-${concept}`; };

  function follow() {
    const asked = /^#concept-(\d+)$/.exec(location.hash);
    if (asked && byConcept.has(Number(asked[1]))) open(Number(asked[1]));
    else if (state.chosen !== null) close();
  }

  function step(by) {
    const order = rows(), at = order.findIndex((row) => row[0] === state.chosen);
    const next = order[at + by];
    if (!next) return;
    state.page = Math.floor((at + by) / perPage);
    go(next[0]);
  }

  function open(concept) {
    state.chosen = concept;
    const section = byId("concept"), detail = data.details[concept], row = byConcept.get(concept);
    const percent = (share) => `${share < 0.1 ? Number((100 * share).toPrecision(2)) : Math.round(100 * share)} %`;
    const bar = make("p", undefined, { class: "tools" });
    const order = rows(), at = order.findIndex((one) => one[0] === concept);
    const control = (name, kind, enabled, act) => {
      const button = make("button", name, { type: "button", class: kind });
      button.disabled = !enabled;
      button.addEventListener("click", act);
      bar.append(button);
    };
    control("Back to the list", "back", true, () => go(null));
    control("← previous", "before", at > 0, () => step(-1));
    control("next →", "after", at >= 0 && at < order.length - 1, () => step(1));
    const said = `z > 0 in ${percent(row[2])} of the rows${data.one_sign ? "; " : ", "}${data.one_sign ? "" : `z < 0 in ${percent(row[3])}; `}${percent(row[1])} of the energy.`;
    section.replaceChildren(bar, make("h2", `Concept ${concept}`), ...marks.get(concept).map((mark) => make("span", mark, { class: "tag" })), make("p", said));
    if (!detail) {
      section.append(make("p", "Listed without examples: it has little energy.", { class: "empty" }));
    } else {
      if (detail.signs.flat().some((one) => one.tokens || one.cells)) section.append(legend(concept));
      const signs = make("div", undefined, { class: "signs" }), first = strongerSign(row), sizes = [row[4], row[5]];
      for (const sign of data.one_sign ? [0] : [first, 1 - first]) {
        const weak = sign !== first && sizes[sign] < FOLDED * sizes[first];
        signs.append(signBox(sign, detail.signs[sign], concept, { stronger: sign === first, folded: weak && sizes[sign] > 0 }));
      }
      section.append(signs);
      section.append(chips("Most similar atoms (cosine)", detail.similar, link));
      section.append(chips("Most co-active (correlation of |z|)", detail.together, link));
      section.append(chips("Strongest features (number: weight)", detail.features, (pair) => make("span", `${pair[0]}: ${number(pair[1])}`)));
    }
    section.hidden = false;
    byId("concept").parentElement.classList.add("open");
    document.title = `Concept ${concept}${nameOf(row)} - ${baseTitle}`;
    list();
    section.scrollTop = 0;
    section.focus({ preventScroll: true });
    section.scrollIntoView({ block: "nearest" });
    if (!matchMedia("(min-width: 1100px)").matches) section.scrollIntoView({ block: "start" });
  }

  function nameOf(row) {
    const [one] = signsOf(row[0])[strongerSign(row)];
    return one ? `: ${one.tokens ? around(one, 0)[1].trim() : caption(one)}` : "";
  }

  function close() {
    byId("concept").hidden = true;
    byId("concept").parentElement.classList.remove("open");
    document.title = baseTitle;
    list();
    const shown = byId("concepts").querySelector("tr.chosen button") || byId("search");
    state.chosen = null;
    shown.focus();
    shown.scrollIntoView({ block: "nearest" });
  }

  function legend(concept) {
    const most = scaleOf(concept), box = make("div", undefined, { class: "legend" });
    const scale = make("div", undefined, { class: "scale" });
    const low = data.one_sign ? [] : [colour(-1)], least = data.one_sign ? [] : [make("span", `z = ${number(-most)}`)];
    scale.style.background = `linear-gradient(to right, ${[...low, "transparent", colour(1)].join(", ")})`;
    const ends = make("div", undefined, { class: "ends" });
    ends.append(...least, make("span", data.one_sign ? "z = 0" : "0"), make("span", number(most)));
    box.append(scale, ends);
    return box;
  }

  function chips(title, pairs, show) {
    const box = make("div");
    box.append(make("h3", title));
    if (!pairs.length) box.append(make("p", "none", { class: "empty" }));
    const items = make("ul", undefined, { class: "chips" });
    items.append(...pairs.map((pair) => {
      const item = make("li");
      item.append(show(pair));
      return item;
    }));
    box.append(items);
    return box;
  }

  function link(pair) {
    const button = make("button", `${pair[0]}: ${number(pair[1])}`, { type: "button" });
    button.addEventListener("click", () => go(pair[0]));
    return button;
  }

  function signBox(sign, examples, concept, { stronger, folded }) {
    const title = sign ? "z < 0" : "z > 0";
    const box = make(folded ? "details" : "div", undefined, { class: `sign ${sign ? "negative" : "positive"}${stronger ? " stronger" : ""}` });
    if (folded) box.append(make("summary", `${title}: weaker than a tenth of the other sign (${examples.length} examples)`));
    else box.append(make("h3", title));
    if (!examples.length) box.append(make("p", "no row has this sign", { class: "empty" }));
    const items = make("ul", undefined, { class: "examples" });
    items.append(...examples.map((one) => example(one, scaleOf(concept))));
    box.append(items);
    return box;
  }

  function example(one, most) {
    const kind = one.tokens ? "text" : one.cells ? "image" : "plain";
    const item = make("li", undefined, { class: kind });
    if (kind === "text") item.append(sentence(one, most));
    if (kind === "image") item.append(photo(one, most));
    const name = one.name.endsWith(`row ${one.row}`) ? caption(one) : `${caption(one)}, row ${one.row}`;
    item.append(make("small", `z = ${number(one.z)}, ${name}`, { title: one.name }));
    return item;
  }

  // Codes of an example are integers, 127 its own largest |z|, one.peak.
  function sentence(one, most) {
    const box = make("span");
    const points = Array.from(one.text); // positions count characters, not UTF-16 units
    let at = 0;
    for (const [start, stop, code, here] of one.tokens) {
      if (start < at) continue;
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

  function photo(one, most) {
    const box = make("div", undefined, { class: "photo" });
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

  const baseTitle = document.title;
  for (const mark of ["one example", "near duplicate", "dead"]) {
    const count = [...marks.values()].filter((reasons) => reasons.includes(mark)).length;
    if (!count) continue;
    const box = make("input", undefined, { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { state.hidden[box.checked ? "delete" : "add"](mark); state.page = 0; list(); });
    const label = make("label");
    label.append(box, ` ${mark} (${count})`);
    byId("filters").append(label);
  }
  byId("search").addEventListener("input", (event) => { state.words = event.target.value; state.page = 0; list(); });
  byId("previous").addEventListener("click", () => { state.page -= 1; list(); });
  byId("next").addEventListener("click", () => { state.page += 1; list(); });
  byId("reading").addEventListener("click", () => { state.sort = null; state.page = 0; list(); });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (state.chosen === null || typing || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Escape") go(null);
  });
  window.addEventListener("hashchange", follow);
  byId("charts").append(...data.charts.map(drawChart));
  list();
  follow();
})();
