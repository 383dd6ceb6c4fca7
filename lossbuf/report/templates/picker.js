// A dialog to choose a class by name: there may be thousands, so only some are listed at a time.

const MOST_LISTED = 200;

class Picker {
  constructor(classes) {
    this.classes = classes;
    this.folded = classes.map((name) => name.toLowerCase());
    this.dialog = document.getElementById("picker");
    this.search = document.getElementById("picker-search");
    this.list = document.getElementById("picker-list");
    this.more = document.getElementById("picker-more");
    this.ok = document.getElementById("picker-ok");
    this.done = () => {};
    this.search.addEventListener("input", () => this.fill());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.list.focus();
      }
    });
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
        event.preventDefault();
        this.accept();
      }
    });
    this.list.addEventListener("dblclick", () => this.accept());
    this.list.addEventListener("change", () => this.fits());
    this.ok.addEventListener("click", () => this.accept());
    document.getElementById("picker-cancel").addEventListener("click", () => this.dialog.close());
  }

  // `done` is called with the class, if one is chosen.
  open(done) {
    this.done = done;
    this.search.value = "";
    this.fill();
    this.dialog.showModal();
    this.search.focus();
  }

  fill() {
    const part = this.search.value.toLowerCase();
    const found = [];
    let more = 0;
    this.folded.forEach((name, label) => {
      if (!name.includes(part)) return;
      if (found.length < MOST_LISTED) found.push(option(label, quoted(this.classes[label])));
      else more += 1;
    });
    this.list.replaceChildren(...found);
    if (found.length) this.list.selectedIndex = 0;
    this.more.textContent = !found.length ? "No class has such a name." : more ? `${more} more: type a part of the name.` : "";
    this.fits();
  }

  fits() {
    this.ok.disabled = this.list.selectedIndex < 0;
  }

  accept() {
    if (this.list.selectedIndex < 0) return;
    this.dialog.close();
    this.done(Number(this.list.value));
  }
}
