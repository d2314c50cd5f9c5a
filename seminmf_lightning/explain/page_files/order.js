"use strict";
// Which concepts are listed, and in which order.
const ORDERS = {
  reading: { name: "reading order", compare: (a, b) => marks.get(a[0]).length - marks.get(b[0]).length || b[1] - a[1] },
  concept: { name: "number", value: (row) => row[0], up: true },
  label: { name: "label", text: (row) => labels.of(row[0]), up: true },
  energy: { name: "energy", value: (row) => row[1] },
  density: { name: "density", value: density },
  strength: { name: "strength", value: strength },
  balance: { name: "sign balance", value: balance },
  score: { name: "label score", value: (row) => ((data.details[row[0]] || {}).score || [0, -1])[1] },
  feature: { name: "top feature", value: (row) => row[6], up: true },
};
if (data.one_sign) delete ORDERS.balance;
if (!Object.values(data.details).some((detail) => detail.score)) delete ORDERS.score;

// Places that are searched, the best first: the token that fires, its context, the label, the name of the example.
const places = new Map(data.table.map((row) => {
  const examples = signsOf(row[0]).flat(), texts = examples.filter((one) => one.tokens);
  return [row[0], {
    tokens: texts.map((one) => around(one, 0)[1].trim().toLowerCase()),
    context: texts.map((one) => one.text).join(" ").toLowerCase(),
    names: examples.map((one) => one.name).join(" ").toLowerCase(),
  }];
}));

// How well a concept matches a word, 0 the best; Infinity if it does not.
function rank(concept, word) {
  const { tokens, context, names } = places.get(concept);
  if (tokens.includes(word)) return 0;
  if (tokens.some((token) => token.includes(word))) return 1;
  if (context.includes(word)) return 2;
  if (labels.of(concept).toLowerCase().includes(word)) return 3;
  return names.includes(word) ? 4 : Infinity;
}

const askedWords = () => state.words.toLowerCase().trim().split(/\s+/).filter(Boolean);

function compare(a, b) {
  const { value, text, compare: given } = ORDERS[state.sort];
  if (given) return given(a, b);
  if (value) return state.down ? value(b) - value(a) : value(a) - value(b);
  const [one, other] = [text(a), text(b)];
  if (!one || !other) return !one - !other; // without a label: last
  return (state.down ? -1 : 1) * one.localeCompare(other);
}

function listed() {
  const asked = state.words.toLowerCase().trim(), words = askedWords();
  const [, column, id] = /^(?:(concept|feature)\s+)?(\d+)$/.exec(asked) || [];
  const ranks = new Map();
  const matches = (row) => {
    if (id !== undefined) return row[column === "feature" ? 6 : 0] === Number(id);
    ranks.set(row[0], Math.max(0, ...words.map((word) => rank(row[0], word))));
    return ranks.get(row[0]) < Infinity;
  };
  const shown = data.table.filter((row) => !marks.get(row[0]).some((mark) => state.hidden.has(mark)) && matches(row));
  const found = (row) => (state.sort === "reading" ? ranks.get(row[0]) || 0 : 0);
  return shown.sort((a, b) => found(a) - found(b) || compare(a, b) || a[0] - b[0]);
}

function sortBy(order) {
  state.down = state.sort === order ? !state.down : !ORDERS[order].up;
  state.sort = order;
  state.page = 0;
  list();
}
