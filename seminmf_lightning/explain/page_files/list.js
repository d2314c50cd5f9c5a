"use strict";
// The list: a line per concept with its label, what it fires on, and its numbers.
const PREVIEWS = 4, CROPS = 8; // of crops, as many as fit
// Heading, meaning, order, cell of a row, whether to hide it beside an open concept.
const COLUMNS = [
  { name: "concept", meaning: "number of the atom in the dictionary", order: "concept", cell: opener },
  { name: "label and strongest examples", meaning: "of its stronger sign; in italics where nobody has typed a label", order: "label", cell: preview },
  { name: "energy", meaning: "share of the squares of all concepts' parts", order: "energy", cell: (row) => make("td", number(row[1])) },
  { name: "density", meaning: "share of rows with a nonzero code", order: "density", cell: (row) => make("td", percent(density(row)), { class: "wide" }) },
  { name: "strength", meaning: "largest |z| of all rows", order: "strength", cell: (row) => make("td", number(strength(row)), { class: "wide" }) },
  { name: "signs", meaning: "share of its rows with z > 0 (red) and z < 0 (blue)", order: "balance", cell: signBar },
  { name: "feature", meaning: "the atom's largest entry", order: "feature", cell: (row) => make("td", row[6], { class: "wide" }) },
].filter((column) => ORDERS[column.order]);
const WIDE = new Set(["density", "strength", "balance", "feature"]);

function head() {
  byId("concepts").tHead.rows[0].replaceChildren(...COLUMNS.map(({ name, meaning, order }) => {
    const cell = make("th", undefined, { scope: "col", title: meaning, class: WIDE.has(order) ? "wide" : "" });
    const sorted = state.sort === order;
    if (sorted) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    const button = make("button", name + (sorted ? (state.down ? " ▾" : " ▴") : ""), { type: "button" });
    button.addEventListener("click", () => {
      sortBy(order);
      byId("concepts").querySelector("th[aria-sort] button").focus();
    });
    cell.append(button);
    return cell;
  }));
  byId("sort").value = state.sort;
  byId("direction").textContent = state.down ? "▾" : "▴";
  byId("direction").setAttribute("aria-label", state.down ? "largest first" : "smallest first");
  byId("direction").disabled = state.sort === "reading";
}

function list() {
  head();
  const rows = listed();
  const last = Math.max(0, Math.ceil(rows.length / PER_PAGE) - 1);
  state.page = Math.min(state.page, last);
  byId("concepts").tBodies[0].replaceChildren(...rows.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE).map((row) => {
    const line = make("tr", undefined, { class: row[0] === state.chosen ? "chosen" : "" });
    line.append(...COLUMNS.map(({ cell }) => cell(row)));
    return line;
  }));
  byId("count").textContent = `${rows.length} of ${data.table.length} concepts, page ${state.page + 1} of ${last + 1}`;
  byId("previous").disabled = state.page === 0;
  byId("next").disabled = state.page === last;
}

function opener(row) {
  const cell = make("td"), button = make("button", row[0], { type: "button", "aria-label": `Open concept ${named(row[0])}` });
  button.addEventListener("click", () => go(row[0]));
  cell.append(button);
  return cell;
}

function signBar(row) {
  const cell = make("td", undefined, { class: "wide" }), bar = make("span", undefined, { class: "balance" });
  const said = `z > 0 in ${percent(row[2])} of the rows, z < 0 in ${percent(row[3])}`;
  const part = make("span");
  part.style.width = `${50 * (1 + balance(row))}%`;
  bar.append(part);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", said);
  bar.title = said;
  if (density(row)) cell.append(bar);
  return cell;
}

// What a concept is: marks and label, and below crops, or tokens in their contexts, or the names of rows.
function preview(row) {
  const [concept] = row, sign = strongerSign(row), cell = make("td", undefined, { class: "preview" });
  const title = make("div", undefined, { class: "title" }), line = make("div", undefined, { class: `line ${sign ? "negative" : "positive"}` });
  title.append(...tags(concept), make("span", labels.of(concept), { class: labels.typed(concept) ? "label" : "label automatic" }));
  line.append(...glimpses(signsOf(concept)[sign]));
  if (title.textContent) cell.append(title);
  cell.append(line);
  cell.addEventListener("click", () => go(concept));
  return cell;
}

// The first examples in short: those with the words searched for, then different tokens, then the same token again.
function glimpses(examples) {
  const words = askedWords(), token = (one) => (one.tokens ? around(one, 0)[1].trim().toLowerCase() : one.name);
  const found = (one) => (words.length && words.some((word) => token(one).includes(word)) ? 0 : words.some((word) => (one.text || "").toLowerCase().includes(word)) ? 1 : 2);
  const seen = new Set(), ranked = examples.map((one) => {
    const again = Number(seen.has(token(one)));
    seen.add(token(one));
    return { one, order: 2 * found(one) + again };
  }).sort((a, b) => a.order - b.order).slice(0, examples.some((one) => one.cells) ? CROPS : PREVIEWS);
  return ranked.flatMap(({ one }, index) => {
    if (one.cells) return [crop(one, "span")];
    const [before, fired, after] = one.tokens ? around(one, 14) : ["", one.name, ""];
    return [...(index ? [make("span", "·", { class: "gap" })] : []), before, one.tokens ? make("b", fired) : fired, after];
  });
}
