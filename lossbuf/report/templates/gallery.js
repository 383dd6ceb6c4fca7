// Of a long list of cards only those in sight are in the page, and those around the active one.

const AHEAD = 0.75; // of the window's height, drawn above and below what is in sight
const NEAR = 12; // cards drawn on either side of the active one, for those who read on without scrolling

class Gallery {
  // `make(i)` gives the card of suspect i: { element, refresh }.
  constructor(feed, make) {
    this.feed = feed;
    this.make = make;
    this.order = []; // suspects that pass the filters
    this.cards = new Map(); // by place in the order
    this.at = 0; // place of the card that Tab leads to
    this.columns = 1;
    this.waiting = false;
    this.ruler = document.createElement("div");
    this.ruler.className = "ruler";
    this.ruler.setAttribute("aria-hidden", "true");
    feed.before(this.ruler);
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.layOut()).observe(feed);
    feed.addEventListener("focusin", (event) => {
      const card = event.target.closest("article");
      if (card) this.setActive(Number(card.dataset.place));
    });
  }

  show(order) {
    this.order = order;
    this.at = 0;
    for (const card of this.cards.values()) card.element.remove();
    this.cards.clear();
    this.layOut();
  }

  refresh(place) {
    if (place === undefined) for (const card of this.cards.values()) card.refresh();
    else this.cards.get(place)?.refresh();
  }

  layOut() {
    const gap = parseFloat(getComputedStyle(this.ruler).marginTop);
    const wide = this.feed.clientWidth;
    this.columns = Math.max(1, Math.floor((wide + gap) / (this.ruler.offsetWidth + gap)));
    this.width = (wide - gap * (this.columns - 1)) / this.columns;
    this.height = this.ruler.offsetHeight;
    this.gap = gap;
    const rows = Math.ceil(this.order.length / this.columns);
    this.feed.style.height = Math.max(0, rows * (this.height + gap) - gap) + "px";
    for (const [place, card] of this.cards) this.put(card.element, place);
    this.draw();
  }

  put(element, place) {
    const x = (place % this.columns) * (this.width + this.gap);
    const y = Math.floor(place / this.columns) * (this.height + this.gap);
    element.style.width = this.width + "px";
    element.style.transform = `translate(${x}px, ${y}px)`;
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.waiting = false;
    const top = -this.feed.getBoundingClientRect().top;
    const step = this.height + this.gap;
    const first = Math.max(0, Math.floor((top - AHEAD * innerHeight) / step)) * this.columns;
    const rows = Math.ceil((top + (1 + AHEAD) * innerHeight) / step);
    const last = Math.min(this.order.length, Math.max(0, rows) * this.columns);
    for (const [place, card] of this.cards) {
      if ((place < first || place >= last) && Math.abs(place - this.at) > NEAR) {
        card.element.remove();
        this.cards.delete(place);
      }
    }
    for (let place = first; place < last; place++) this.add(place);
    const end = Math.min(this.order.length, this.at + NEAR + 1);
    for (let place = Math.max(0, this.at - NEAR); place < end; place++) this.add(place);
  }

  // Cards stand in the page in their order, whatever order they came in.
  add(place) {
    if (this.cards.has(place)) return this.cards.get(place);
    const card = this.make(this.order[place]);
    const { element } = card;
    element.dataset.place = place;
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-setsize", this.order.length);
    this.put(element, place);
    let next = this.feed.lastElementChild;
    while (next && Number(next.dataset.place) > place) next = next.previousElementSibling;
    if (next) next.after(element);
    else this.feed.prepend(element);
    this.cards.set(place, card);
    this.reach(card, place === this.at);
    return card;
  }

  // Only the active card and what is in it are stops of the Tab key.
  reach(card, active) {
    card.element.tabIndex = active ? 0 : -1;
    for (const control of card.element.querySelectorAll("input, select")) control.tabIndex = active ? 0 : -1;
  }

  setActive(place) {
    if (place === this.at) return;
    const before = this.cards.get(this.at);
    if (before) this.reach(before, false);
    this.at = place;
    this.reach(this.add(place), true);
    this.soon();
  }

  // Returns whether the focus moved.
  moveTo(place) {
    const to = Math.min(this.order.length - 1, Math.max(0, place));
    if (to < 0) return false;
    this.setActive(to);
    const { element } = this.add(to);
    element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest", behavior: "instant" });
    this.draw();
    return true;
  }
}
