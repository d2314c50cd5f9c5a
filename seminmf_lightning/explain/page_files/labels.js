"use strict";
// Labels: those of the report, over them those typed in this page (kept in this browser), below them automatic ones.
const labels = (() => {
  const place = `seminmf labels of ${data.dictionary}`, given = JSON.stringify(data.labels);
  const typed = new Map(Object.entries(data.labels));
  let exported = JSON.stringify([...typed]);

  // Kept only for the labels that the report was made with: an exported and loaded file replaces what was typed before.
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && kept.given === given) for (const [concept, text] of Object.entries(kept.typed)) put(concept, text);
  } catch { /* no storage, or none of ours: labels last as long as the page */ }

  // Returns whether there is such a concept; "01" and "" are none.
  function put(concept, text) {
    if (String(Number(concept)) !== String(concept) || !byConcept.has(Number(concept)) || typeof text !== "string") return false;
    if (text.trim()) typed.set(String(concept), text.trim());
    else typed.delete(String(concept));
    return true;
  }

  function keep() {
    const texts = Object.fromEntries(typed);
    for (const concept of Object.keys(data.labels)) if (!(concept in texts)) texts[concept] = "";
    try {
      localStorage.setItem(place, JSON.stringify({ given, typed: texts }));
    } catch { /* as above */ }
    show();
  }

  function show() {
    byId("export").textContent = `Export labels (${typed.size})`;
    byId("export").disabled = !typed.size;
    byId("export").classList.toggle("due", typed.size > 0 && JSON.stringify([...typed]) !== exported);
  }

  const content = () => {
    const sorted = [...typed].sort((a, b) => a[0] - b[0]);
    return `${JSON.stringify({ dictionary: data.dictionary, labels: Object.fromEntries(sorted) }, null, 1)}\n`;
  };

  byId("export").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([content()], { type: "application/json" }));
    make("a", undefined, { href: address, download: "labels.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    exported = JSON.stringify([...typed]);
    show();
  });

  byId("load").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    let said;
    try {
      const read = JSON.parse(await file.text());
      const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
      if (!isObject(read) || !isObject(read.labels)) throw new Error('it holds no {"labels": {"17": "..."}}');
      if (read.dictionary !== undefined && read.dictionary !== data.dictionary) throw new Error("labels of another dictionary");
      const texts = Object.entries(read.labels);
      const left = texts.filter(([concept, text]) => !put(concept, text)).map(([concept]) => concept);
      said = `${file.name}: ${texts.length - left.length} labels`;
      if (left.length) said += `, ${left.length} left out that name no concept here: ${left.slice(0, 5).join(", ")}`;
    } catch (error) {
      said = `${file.name} was not loaded: ${error.message}`;
    }
    byId("loaded").textContent = said;
    event.target.value = "";
    keep();
    refresh();
  });

  show();
  return {
    typed: (concept) => typed.get(String(concept)) || "",
    automatic: (concept) => data.automatic[concept] || "",
    of: (concept) => typed.get(String(concept)) || data.automatic[concept] || "",
    type: (concept, text) => { put(concept, text); keep(); },
  };
})();

// "17 end of a sentence", for links and lists.
const named = (concept) => `${concept}${labels.of(concept) ? ` ${labels.of(concept)}` : ""}`;
