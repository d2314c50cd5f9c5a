"use strict";
// The open concept: label, examples of both signs, distribution of its codes, and its neighbours.
function conceptParts(concept) {
  const detail = data.details[concept], row = byConcept.get(concept);
  const title = make("h2", `Concept ${concept}`);
  const below = data.one_sign ? "; " : `, z < 0 in ${percent(row[3])}; `;
  const said = make("p", `z > 0 in ${percent(row[2])} of the rows${below}${percent(row[1])} of the energy.`);
  const parts = [title, ...tags(concept), labelField(concept), ...labelScore(detail), said];
  if (!detail) return [...parts, make("p", "Listed without examples: it has little energy.", { class: "empty" })];
  const shown = detail.signs.flat();
  if (shown.some((one) => one.tokens || one.cells)) parts.push(legend(concept, shown.some((one) => one.cells)));
  const first = strongerSign(row), sizes = [row[4], row[5]], weak = sizes[1 - first];
  parts.push(signBox(first, detail, concept, { stronger: true, folded: false }));
  const facts = make("div", undefined, { class: "facts" }), lens = data.lens[concept];
  if (detail.codes) facts.append(distribution(detail.codes));
  if (lens) facts.append(chips("Promotes", lens.promotes, words), chips("Suppresses", lens.suppresses, words));
  facts.append(
    chips("Most similar atoms (cosine)", detail.similar, link),
    chips("Most co-active (correlation of |z|)", detail.together, link),
    chips("Strongest features (number: weight)", detail.features, (pair) => make("span", `${pair[0]}: ${number(pair[1])}`)),
  );
  parts.push(facts);
  if (!data.one_sign) parts.push(signBox(1 - first, detail, concept, { stronger: false, folded: weak > 0 && weak < FOLDED * sizes[first] }));
  return parts;
}

// Typing changes the list at once; Enter goes back to the concept, where the arrow keys work.
function labelField(concept) {
  const box = make("label", "Label ", { class: "naming" });
  const field = make("input", undefined, { id: "label", type: "text", maxlength: 200, autocomplete: "off", placeholder: labels.automatic(concept) || "type what it stands for" });
  field.value = labels.typed(concept);
  field.addEventListener("input", () => { labels.type(concept, field.value); list(); entitle(); });
  field.addEventListener("keydown", (event) => { if (["Enter", "Escape"].includes(event.key)) { event.stopPropagation(); byId("concept").focus({ preventScroll: true }); } });
  box.append(field);
  return box;
}

// How well the tokens of the automatic label tell where the concept fires, in texts that it was not made from.
function labelScore(detail) {
  if (!detail || !detail.score) return [];
  const [share, energy, fires] = detail.score.map(percent);
  const said = `In other texts, the tokens of its automatic label are ${share} of the rows and carry ${energy} of its energy; it fires on ${fires} of them.`;
  return [make("p", said, { class: "score", title: "texts that the label was not made from" })];
}

function legend(concept, images) {
  const most = scaleOf(concept), box = make("div", undefined, { class: "legend" });
  const scale = make("div", undefined, { class: "scale" });
  const low = data.one_sign ? [] : [colour(-1)], least = data.one_sign ? [] : [make("span", `z = ${number(-most)}`)];
  scale.style.background = `linear-gradient(to right, ${[...low, "transparent", colour(1)].join(", ")})`;
  const ends = make("div", undefined, { class: "ends" });
  ends.append(...least, make("span", data.one_sign ? "z = 0" : "0"), make("span", number(most)));
  box.append(scale, ends);
  if (!images) return box;
  const tools = make("div", undefined, { class: "tools" }), toggle = make("label"), tick = make("input", undefined, { type: "checkbox", id: "heat" });
  tick.checked = !byId("concept").classList.contains("plain");
  tick.addEventListener("change", () => byId("concept").classList.toggle("plain", !tick.checked));
  toggle.append(tick, " heat map (h)");
  tools.append(box, toggle);
  return tools;
}

function signBox(sign, detail, concept, { stronger, folded }) {
  const title = sign ? "z < 0" : "z > 0", examples = detail.signs[sign], others = detail.quantiles[sign];
  const box = make(folded ? "details" : "div", undefined, { class: `sign ${sign ? "negative" : "positive"}${stronger ? " stronger" : ""}` });
  if (folded) box.append(make("summary", `${title}: weaker than a tenth of the other sign (${examples.length} examples)`));
  else box.append(make("h3", title));
  if (!examples.length) box.append(make("p", "no row has this sign", { class: "empty" }));
  box.append(exampleList(examples, concept));
  if (others.length) box.append(make("h4", "Weaker rows, by quantile of its nonzero codes"), exampleList(others, concept, " quantiles"));
  return box;
}

function exampleList(examples, concept, kind = "") {
  const items = make("ul", undefined, { class: `examples${kind}` });
  items.append(...examples.map((one) => example(one, scaleOf(concept))));
  return items;
}

// Bars of equal width in z, counts on a logarithmic axis.
function distribution({ low, high, counts }) {
  const width = (high - low) / counts.length, edges = counts.map((_, i) => low + i * width).concat(high);
  const some = data.sampled > 1 ? `, of one in ${data.sampled} rows` : "";
  const bars = (name, of) => ({ name, kind: "bars", x: edges, y: counts.map((count, i) => (of(edges[i] + width / 2) ? count : 0)) });
  const below = bars("z < 0", (z) => z < 0), above = bars("z > 0", (z) => z > 0); // in the colours of the scale
  const chart = drawChart({
    title: `Codes that are not 0${some}`, x_label: "z", y_label: "rows", log_x: false, log_y: true,
    series: data.one_sign ? [above] : [below, above],
  });
  chart.classList.add(data.one_sign ? "sign" : "signs");
  return chart;
}

function chips(title, items, show) {
  const box = make("div");
  box.append(make("h3", title));
  if (!items.length) box.append(make("p", "none", { class: "empty" }));
  const shown = make("ul", undefined, { class: "chips" });
  shown.append(...items.map((one) => {
    const item = make("li");
    item.append(show(one));
    return item;
  }));
  box.append(shown);
  return box;
}

const words = (text) => make("code", text);

function link([concept, value]) {
  const button = make("button", undefined, { type: "button" });
  button.append(make("b", concept), ` ${labels.of(concept)} `, make("small", number(value)));
  button.addEventListener("click", () => go(concept));
  return button;
}
