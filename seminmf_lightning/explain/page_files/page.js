"use strict";
// Opening and closing concepts, the address, keys, filters; then the first view.
const baseTitle = document.title;

// The address holds the open concept, so that the browser's Back and Forward work.
function go(concept) {
  location.hash = concept === null ? "" : `#concept-${concept}`;
}

function follow() {
  const asked = /^#concept-(\d+)$/.exec(location.hash);
  if (asked && byConcept.has(Number(asked[1]))) openConcept(Number(asked[1]));
  else if (state.chosen !== null) closeConcept();
}

function step(by) {
  const order = listed(), at = order.findIndex((row) => row[0] === state.chosen);
  const next = order[at + by];
  if (!next) return;
  state.page = Math.floor((at + by) / PER_PAGE);
  go(next[0]);
}

function openConcept(concept) {
  const before = state.chosen, section = byId("concept");
  state.chosen = concept;
  section.replaceChildren(navigation(), ...conceptParts(concept));
  section.hidden = false;
  section.parentElement.classList.add("open");
  entitle();
  list();
  section.scrollTop = 0;
  section.focus({ preventScroll: true });
  if (!matchMedia("(min-width: 900px)").matches) section.scrollIntoView({ block: "start" }); // it replaces the list
  else if (before === null) section.scrollIntoView({ block: "nearest" });
}

function navigation() {
  const bar = make("p", undefined, { class: "tools steps" });
  const order = listed(), at = order.findIndex((row) => row[0] === state.chosen);
  const control = (name, kind, enabled, act) => {
    const button = make("button", name, { type: "button", class: kind });
    button.disabled = !enabled;
    button.addEventListener("click", act);
    bar.append(button);
  };
  control("Back to list", "back", true, () => go(null));
  control("← previous", "before", at > 0, () => step(-1));
  control("next →", "after", at >= 0 && at < order.length - 1, () => step(1));
  return bar;
}

function entitle() {
  const label = labels.of(state.chosen);
  document.title = `Concept ${state.chosen}${label ? `: ${label}` : ""} - ${baseTitle}`;
}

function closeConcept() {
  byId("concept").hidden = true;
  byId("concept").parentElement.classList.remove("open");
  document.title = baseTitle;
  list();
  const shown = byId("concepts").querySelector("tr.chosen button") || byId("search");
  state.chosen = null;
  shown.focus();
  shown.scrollIntoView({ block: "nearest" });
}

// Labels have changed elsewhere than in the field of the open concept.
function refresh() {
  list();
  if (state.chosen !== null) openConcept(state.chosen);
}

function filters() {
  for (const mark of ["one example", "near duplicate", "punctuation", "dead"]) {
    const count = [...marks.values()].filter((reasons) => reasons.includes(mark)).length;
    if (!count) continue;
    const box = make("input", undefined, { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { state.hidden[box.checked ? "delete" : "add"](mark); state.page = 0; list(); });
    const label = make("label");
    label.append(box, ` ${mark} (${count})`);
    byId("filters").append(label);
  }
}

function onKey(event) {
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, dialog");
  if (state.chosen === null || typing || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "Escape") go(null);
  else if (event.key === "l" && byId("label")) { event.preventDefault(); byId("label").focus(); }
  else if (event.key === "h" && byId("heat")) byId("heat").click();
}

byId("sort").append(...Object.entries(ORDERS).map(([value, { name }]) => make("option", name, { value })));
byId("sort").addEventListener("change", (event) => { state.sort = ""; sortBy(event.target.value); });
byId("direction").addEventListener("click", () => sortBy(state.sort));
byId("search").addEventListener("input", (event) => { state.words = event.target.value; state.page = 0; list(); });
byId("previous").addEventListener("click", () => { state.page -= 1; list(); });
byId("next").addEventListener("click", () => { state.page += 1; list(); });
byId("zoom").addEventListener("click", (event) => { if (event.target === byId("zoom")) byId("zoom").close(); });
byId("shut").addEventListener("click", () => byId("zoom").close());
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", follow);
byId("charts").append(...data.charts.map(drawChart));
filters();
list();
follow();
