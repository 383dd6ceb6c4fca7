// What was decided of the suspects: kept in memory, in the browser's storage where it has one, written as CSV.

const KINDS = ["relabel", "keep", "drop"];

class Decisions {
  constructor(data) {
    this.data = data;
    this.kinds = new Array(data.ids.length).fill("");
    this.labels = new Int32Array(data.ids.length).fill(-1);
    this.count = 0;
    this.name = "lossbuf:" + data.key;
    this.stored = true;
    this.waiting = false; // something is not in the storage yet
    this.lost = false; // nor in a downloaded file
    this.timer = 0;
    this.load();
  }

  kind(i) {
    return this.kinds[i];
  }

  // The class that the row ends in; -1 for none.
  label(i) {
    return this.kinds[i] === "relabel" ? this.labels[i] : this.kinds[i] === "keep" ? this.data.given[i] : -1;
  }

  // What a tick alone means: the suggested class where there is one.
  tick(i) {
    const suggested = this.data.suggested[i];
    if (suggested === this.data.given[i]) this.set(i, "keep");
    else this.set(i, "relabel", suggested);
  }

  set(i, kind, label = -1) {
    const same = kind === "relabel" && label === this.data.given[i];
    this.count += (kind !== "") - (this.kinds[i] !== "");
    this.kinds[i] = same ? "keep" : kind;
    this.labels[i] = kind === "relabel" && !same ? label : -1;
    this.waiting = this.lost = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), 150);
  }

  copy() {
    return { kinds: this.kinds.slice(), labels: this.labels.slice(), count: this.count };
  }

  restore(copy) {
    Object.assign(this, copy);
    this.waiting = this.lost = true;
    this.save();
  }

  save() {
    clearTimeout(this.timer);
    if (!this.waiting) return; // another window may have written since
    const found = [];
    this.kinds.forEach((kind, i) => kind && found.push([i, kind, this.labels[i]]));
    try {
      if (found.length) localStorage.setItem(this.name, JSON.stringify(found));
      else localStorage.removeItem(this.name);
      this.stored = true;
      this.waiting = this.lost = false;
    } catch {
      this.stored = false;
    }
  }

  // The storage may belong to other pages too: what does not fit is passed over.
  load() {
    let found;
    try {
      found = localStorage.getItem(this.name);
    } catch {
      this.stored = false;
      return;
    }
    try {
      found = JSON.parse(found);
    } catch {
      return;
    }
    if (!Array.isArray(found)) return;
    for (const entry of found) {
      if (!Array.isArray(entry)) continue;
      const [i, kind, label] = entry;
      const known = Number.isInteger(label) && label >= 0 && label < this.data.classes.length;
      if (!Number.isInteger(i) || i < 0 || i >= this.kinds.length || !KINDS.includes(kind)) continue;
      if (kind === "relabel" && !known) continue;
      this.set(i, kind, kind === "relabel" ? label : -1);
    }
    clearTimeout(this.timer);
    this.waiting = this.lost = false;
  }

  csv() {
    const { ids, given, suggested, classes } = this.data;
    const lines = [["id", "given_label", "suggested_label", "decision", "label"]];
    this.kinds.forEach((kind, i) => {
      const label = this.label(i);
      if (kind) lines.push([ids[i], classes[given[i]], classes[suggested[i]], kind, label < 0 ? "" : classes[label]]);
    });
    return lines.map((line) => line.map(csvCell).join(",") + "\r\n").join("");
  }
}

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const FORMULA = /^[=+\-@'\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]/;

// A spreadsheet must take every cell for text, and no two texts may become one.
function csvCell(text) {
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? "'" + text : text;
  return /[",\r\n]|^\s|\s$/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
}
