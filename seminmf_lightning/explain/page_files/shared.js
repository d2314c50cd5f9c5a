"use strict";
// The data of the page, the state of the browser, and what every other file uses.
const data = JSON.parse(document.getElementById("data").textContent);
const MEMORISED = 3, DUPLICATE = 0.95, FOLDED = 0.1, PER_PAGE = 50;
const state = { sort: "reading", down: true, page: 0, words: "", chosen: null, hidden: new Set() };

const byId = (id) => document.getElementById(id);
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const number = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
const percent = (share) => `${share < 0.1 ? Number((100 * share).toPrecision(2)) : Math.round(100 * share)} %`;

// A row of data.table: id, energy, density of z > 0 and of z < 0, largest |z| of both, top feature.
const byConcept = new Map(data.table.map((row) => [row[0], row]));
const signsOf = (concept) => (data.details[concept] ? data.details[concept].signs : [[], []]);
const strongerSign = (row) => (row[4] >= row[5] ? 0 : 1);
const strength = (row) => Math.max(row[4], row[5]);
const density = (row) => row[2] + row[3];
// From -1, z < 0 in all rows where it is not 0, to 1.
const balance = (row) => (density(row) ? (row[2] - row[3]) / density(row) : 0);

// Concepts that are rarely worth reading: marked, and last in reading order.
const marks = new Map(data.table.map((row) => {
  const reasons = [], detail = data.details[row[0]];
  if (density(row) === 0) reasons.push("dead");
  const codes = signsOf(row[0]).flat().map((one) => Math.abs(one.z)).sort((a, b) => b - a);
  if (codes.length && codes[0] > MEMORISED * (codes[1] || 0)) reasons.push("one example");
  const stronger = ([other, cosine]) => cosine > DUPLICATE && (byConcept.get(other)[1] - row[1] || row[0] - other) > 0;
  if (detail && detail.similar.some(stronger)) reasons.push("near duplicate");
  const fired = signsOf(row[0])[strongerSign(row)].filter((one) => one.tokens).map((one) => around(one, 0)[1]);
  if (fired.length && !fired.some((token) => /[\p{L}\p{N}]/u.test(token))) reasons.push("punctuation");
  return [row[0], reasons];
}));
const tags = (concept) => marks.get(concept).map((mark) => make("span", mark, { class: "tag" }));

// Diverging colours: red for z > 0, blue for z < 0, opaque at the concept's own largest |z|.
const colour = (share) => `rgba(${share > 0 ? "214, 39, 40" : "31, 119, 180"}, ${(0.7 * Math.min(Math.abs(share), 1)).toFixed(3)})`;
const scaleOf = (concept) => strength(byConcept.get(concept)) || 1;

// The file name of an example, without its folder and the place in it.
const caption = (one) => one.name.split(": patch [")[0].split(/[\\/]/).pop();

// Where a token's word begins: many tokens begin with a space, whose outline would end the line before.
function afterSpace(points, first, stop) {
  let start = first;
  while (start < stop && /\s/.test(points[start])) start += 1;
  return start < stop ? start : first;
}

// The firing token of an example with `context` characters on each side; positions count characters, not UTF-16 units.
function around(one, context) {
  const points = Array.from(one.text), [first, stop] = one.tokens.find((token) => token[3]) || [0, 0];
  const start = afterSpace(points, first, stop);
  const flat = (from, to) => points.slice(Math.max(0, from), to).join("").replace(/\s+/g, " ");
  return [flat(start - context, start), flat(start, stop), flat(stop, stop + context)];
}
