"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = ["concept", "energy", "density z > 0", "density z < 0", "largest z", "smallest z", "top feature"];
  const meanings = [
    "number of the atom in the dictionary", "share of the squares of all concepts' parts", "share of rows", "share of rows",
    "of all rows", "of all rows", "the atom's largest entry",
  ];
  const perPage = 50;
  const state = { sort: 1, down: true, page: 0, words: "", chosen: null };
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));

  const searchable = new Map(data.table.map((row) => {
    const poles = data.details[row[0]] ? data.details[row[0]].signs : [];
    const words = poles.flat().map((example) => `${example.name} ${example.text || ""}`).join(" ");
    return [row[0], words.toLowerCase()];
  }));

  // Diverging: red for z > 0, blue for z < 0, stronger with size: codes are 127ths of the largest |z| of their example.
  const colour = (code) => `rgba(${code > 0 ? "214, 39, 40" : "31, 119, 180"}, ${(0.65 * Math.abs(code) / 127).toFixed(3)})`;

  function rows() {
    const asked = state.words.toLowerCase().trim();
    const [, column, wanted] = /^(?:(concept|feature)\s+)?(\d+)$/.exec(asked) || [];
    const words = asked.split(/\s+/).filter(Boolean);
    const matches = wanted === undefined
      ? (row) => words.every((word) => searchable.get(row[0]).includes(word))
      : (row) => row[column === "feature" ? 6 : 0] === Number(wanted);
    const found = data.table.filter(matches);
    const value = (row) => (state.sort === 5 ? -row[5] : row[state.sort]);
    return found.sort((a, b) => (state.down ? value(b) - value(a) : value(a) - value(b)) || a[0] - b[0]);
  }

  function head() {
    const line = byId("concepts").tHead.rows[0];
    line.replaceChildren(...columns.map((name, index) => {
      const cell = make("th", undefined, { scope: "col", title: meanings[index] });
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
    const found = rows();
    const last = Math.max(0, Math.ceil(found.length / perPage) - 1);
    state.page = Math.min(state.page, last);
    const page = found.slice(state.page * perPage, (state.page + 1) * perPage);
    byId("concepts").tBodies[0].replaceChildren(...page.map((row) => {
      const line = make("tr");
      if (row[0] === state.chosen) line.className = "chosen";
      const cell = make("td");
      const button = make("button", row[0], { type: "button", "aria-label": `Open concept ${row[0]}` });
      button.addEventListener("click", () => open(row[0]));
      cell.append(button);
      const values = [row[1], row[2], row[3], row[4], -row[5], row[6]];
      line.append(cell, ...values.map((value) => make("td", number(value))));
      return line;
    }));
    byId("count").textContent = `${found.length} of ${data.table.length} concepts, page ${state.page + 1} of ${last + 1}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page === last;
  }

  function open(concept) {
    state.chosen = concept;
    const section = byId("concept");
    const detail = data.details[concept];
    const [, energy, positive, negative] = data.table.find((row) => row[0] === concept);
    const percent = (share) => `${share < 0.1 ? Number((100 * share).toPrecision(2)) : Math.round(100 * share)} %`;
    const said = `z > 0 in ${percent(positive)} of the rows, z < 0 in ${percent(negative)}; ${percent(energy)} of the energy.`;
    section.hidden = false;
    const back = make("button", "Back to the list", { type: "button", class: "back" });
    back.addEventListener("click", close);
    section.replaceChildren(make("h2", `Concept ${concept}`), back, make("p", said));
    if (!detail) {
      section.append(make("p", "Listed without examples: it has little energy.", { class: "empty" }));
    } else {
      section.append(chips("Strongest features (number: weight)", detail.features, (pair) => make("span", `${pair[0]}: ${number(pair[1])}`)));
      section.append(chips("Most similar atoms (cosine)", detail.similar, link));
      section.append(chips("Most co-active (correlation of |z|)", detail.together, link));
      const poles = make("div", undefined, { class: "poles" });
      const pale = "Red: z > 0. Blue: z < 0. The stronger, the nearer to the largest |z| of the same example.";
      if (detail.signs.flat().some((one) => one.tokens || one.cells)) section.append(make("p", pale, { class: "empty" }));
      poles.append(pole("z > 0", detail.signs[0], "positive"), pole("z < 0", detail.signs[1], "negative"));
      section.append(poles);
    }
    list();
    section.focus();
    section.scrollIntoView({ block: "start" });
    history.replaceState(null, "", `#concept-${concept}`);
  }

  function close() {
    const shown = byId("concepts").querySelector("tr.chosen button") || byId("search");
    byId("list").scrollIntoView({ block: "start" });
    shown.focus();
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
    button.addEventListener("click", () => open(pair[0]));
    return button;
  }

  function pole(title, examples, name) {
    const box = make("div", undefined, { class: `pole ${name}` });
    box.append(make("h3", title));
    if (!examples.length) box.append(make("p", "no row has this sign", { class: "empty" }));
    const items = make("ul", undefined, { class: "examples" });
    items.append(...examples.map(example));
    box.append(items);
    return box;
  }

  function example(one) {
    const kind = one.tokens ? "text" : one.cells ? "picture" : "plain";
    const item = make("li", undefined, { class: kind });
    if (kind === "text") item.append(sentence(one));
    if (kind === "picture") item.append(photo(one));
    const name = one.name.endsWith(`row ${one.row}`) ? one.name : `row ${one.row}, ${one.name}`;
    item.append(make("small", `z = ${number(one.z)}, ${name}`));
    return item;
  }

  function sentence(one) {
    const box = make("span");
    const points = Array.from(one.text); // positions count characters, not UTF-16 units
    let at = 0;
    for (const [start, stop, code, here] of one.tokens) {
      if (start < at) continue;
      box.append(points.slice(at, start).join(""));
      const token = make("mark", points.slice(start, stop).join(""), { title: `z = ${number((code / 127) * one.peak)}` });
      token.style.background = colour(code);
      if (here) token.className = "here";
      box.append(token);
      at = stop;
    }
    box.append(points.slice(at).join(""));
    return box;
  }

  function photo(one) {
    const box = make("div", undefined, { class: "photo" });
    box.append(make("img", undefined, { src: data.images[one.image], alt: one.name, loading: "lazy" }));
    const [height, width] = one.grid;
    const canvas = make("canvas", undefined, { width: width * 16, height: height * 16, "aria-hidden": "true" });
    const pen = canvas.getContext("2d");
    for (const [y, x, code] of one.cells) {
      pen.fillStyle = colour(code);
      pen.fillRect(x * 16, y * 16, 16, 16);
    }
    pen.strokeStyle = "#000";
    pen.strokeRect(one.at[1] * 16 + 0.5, one.at[0] * 16 + 0.5, 15, 15);
    box.append(canvas);
    return box;
  }

  byId("search").addEventListener("input", (event) => { state.words = event.target.value; state.page = 0; list(); });
  byId("previous").addEventListener("click", () => { state.page -= 1; list(); });
  byId("next").addEventListener("click", () => { state.page += 1; list(); });
  list();
  byId("charts").append(...data.charts.map(drawChart));
  const openAsked = () => {
    const asked = /^#concept-(\d+)$/.exec(location.hash);
    if (asked && searchable.has(Number(asked[1]))) open(Number(asked[1]));
  };
  window.addEventListener("hashchange", openAsked);
  openAsked();
})();
