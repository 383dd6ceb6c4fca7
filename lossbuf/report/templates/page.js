// Filters, keys and buttons.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);

const total = data.ids.length;
const foldedIds = data.ids.map((id) => id.toLowerCase());
const values = data.probabilities ?? data.scores;
const decisions = new Decisions(data);
const picker = new Picker(data.classes);
const gallery = new Gallery(byId("gallery"), (i) => cardOf(data, decisions, i, changed, pickOther));
const places = new Int32Array(total); // of the suspects in the gallery; -1 where a filter hides them
let shown = [];
let before = null; // decisions before the last step that changed many

const digits = (count) => count.toLocaleString("en");

function fillClasses(select, labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  const known = [...counts.keys()].sort((a, b) => a - b);
  const options = known.map((label) => option(label, `${quoted(data.classes[label])} (${digits(counts.get(label))})`));
  select.replaceChildren(option("", "All"), ...options);
}

function setUpLeast() {
  const least = byId("least");
  byId("least-name").textContent = data.probabilities ? "Wrong with at least" : "Score of at least";
  let low = 0;
  let high = 1;
  if (!data.probabilities) {
    const known = values.filter((value) => value !== null && Math.abs(value) < 1e299);
    low = known.reduce((a, b) => Math.min(a, b), Infinity);
    high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    if (!known.length) low = high = 0;
  }
  least.min = low;
  least.max = high;
  least.step = data.probabilities ? 0.01 : (high - low) / 100 || 1;
  least.value = low;
  least.disabled = low === high;
  least.dataset.lowest = least.value; // as the browser rounds it
}

function filter() {
  const given = byId("by-given").value;
  const suggested = byId("by-suggested").value;
  const wanted = byId("by-decision").value;
  const part = byId("by-id").value.toLowerCase();
  const least = byId("least");
  const lowest = least.value === least.dataset.lowest ? -Infinity : Number(least.value);
  shown = [];
  for (let i = 0; i < total; i++) {
    const kind = decisions.kind(i);
    const passes =
      (given === "" || data.given[i] === Number(given)) &&
      (suggested === "" || data.suggested[i] === Number(suggested)) &&
      (lowest === -Infinity || (values[i] !== null && values[i] >= lowest)) &&
      (wanted === "" || (wanted === "open" ? kind === "" : wanted === "decided" ? kind !== "" : kind === wanted)) &&
      (part === "" || foldedIds[i].includes(part));
    places[i] = passes ? shown.length : -1;
    if (passes) shown.push(i);
  }
  const value = Number(least.value);
  byId("least-value").textContent = data.probabilities ? Math.round(100 * value) + "\u00a0%" : score(value);
  least.setAttribute("aria-valuetext", byId("least-value").textContent);
  byId("shown").textContent = `${digits(shown.length)} of ${digits(total)} shown`;
  byId("tick-all").textContent = `Tick all ${digits(shown.length)} shown`;
  byId("tick-all").disabled = byId("clear").disabled = shown.length === 0;
  byId("nothing").hidden = shown.length > 0;
  gallery.show(shown);
}

function tell(text) {
  const decided = `${digits(decisions.count)} of ${digits(total)} decided`;
  byId("status").textContent = text ? `${text} ${decided}` : decided;
  byId("undo").hidden = before === null;
  byId("download").disabled = decisions.count === 0;
  byId("not-stored").hidden = decisions.stored;
}

function changed(i) {
  before = null;
  if (places[i] >= 0) gallery.refresh(places[i]);
  tell();
}

function changeShown(wanted, change, done) {
  const copy = decisions.copy();
  const touched = shown.filter(wanted);
  touched.forEach(change);
  decisions.save();
  before = copy;
  gallery.refresh();
  tell(`${digits(touched.length)} ${done}.`);
}

function pickOther(i) {
  picker.open((label) => {
    decisions.set(i, "relabel", label);
    changed(i);
  });
}

function decide(i, key) {
  const suggests = data.suggested[i] !== data.given[i];
  if (key === " ") decisions.kind(i) === "" ? decisions.tick(i) : decisions.set(i, "");
  else if (key === "r" && suggests) decisions.set(i, "relabel", data.suggested[i]);
  else if (key === "g") decisions.set(i, "keep");
  else if (key === "d") decisions.set(i, "drop");
  else if ((key === "o" || key === "r") && data.classes.length > 1) pickOther(i);
  changed(i);
}

function onKey(event) {
  const inside = event.target.closest("article");
  if (!inside || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const steps = { ArrowLeft: -1, ArrowRight: 1, k: -1, j: 1, ArrowUp: -gallery.columns, ArrowDown: gallery.columns };
  if (key in steps) gallery.moveTo(gallery.at + steps[key]);
  else if (key === "Home") gallery.moveTo(0);
  else if (key === "End") gallery.moveTo(shown.length - 1);
  else if (key === "/") byId("by-id").focus();
  else if ("rogd".includes(key) || (key === " " && event.target === inside)) decide(shown[gallery.at], key);
  else return;
  event.preventDefault();
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([decisions.csv()], { type: "text/csv;charset=utf-8" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  decisions.lost = false;
}

byId("no-script").hidden = true;
byId("gallery").replaceChildren(); // what a saved copy of the page holds
byId("tool").hidden = false;
fillClasses(byId("by-given"), data.given);
fillClasses(byId("by-suggested"), data.suggested);
setUpLeast();
for (const id of ["by-given", "by-suggested", "by-decision", "least", "by-id"]) byId(id).addEventListener("input", filter);
byId("gallery").addEventListener("keydown", onKey);
byId("tick-all").addEventListener("click", () =>
  changeShown((i) => decisions.kind(i) === "", (i) => decisions.tick(i), "ticked"));
byId("clear").addEventListener("click", () =>
  changeShown((i) => decisions.kind(i) !== "", (i) => decisions.set(i, ""), "cleared"));
byId("undo").addEventListener("click", () => {
  decisions.restore(before);
  before = null;
  gallery.refresh();
  tell("Undone.");
  byId("download").focus();
});
byId("download").addEventListener("click", download);
addEventListener("pagehide", () => decisions.save());
addEventListener("beforeunload", (event) => {
  decisions.save();
  if (decisions.lost) event.preventDefault();
});
filter();
tell();
