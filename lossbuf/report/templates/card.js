// The card of one suspect. Text comes in as text only: nothing here makes markup of it.

function made(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function named(tag, className, text) {
  const element = made(tag, text === "" ? className + " empty" : className, text === "" ? "(empty)" : text);
  element.title = text;
  return element;
}

function option(value, text) {
  const element = made("option", "", text);
  element.value = value;
  return element;
}

// An option holds nothing but text, so that marks must keep the direction of a name to itself.
const TURNS = /[\u0590-\u08FF\u200E\u200F\u202A-\u202E\u2066-\u2069\uFB1D-\uFEFC\u{10800}-\u{10FFF}\u{1E800}-\u{1EFFF}]/u;

function quoted(name) {
  if (TURNS.test(name)) return "\u2068" + name + "\u2069";
  return name === "" ? "(empty)" : name;
}

function percent(share) {
  // 99.97 must not look certain
  const value = share < 1 ? Math.min(100 * share, 99.9) : 100;
  return value.toFixed(1) + "\u00a0%";
}

function score(value) {
  if (value === null) return "none";
  if (Math.abs(value) >= 1e299) return value > 0 ? "∞" : "−∞";
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

function badness(data, i) {
  if (data.probabilities === null) return "score " + score(data.scores[i]);
  return data.probabilities[i] === null ? "not known" : percent(data.probabilities[i]) + " likely wrong";
}

function cardOf(data, decisions, i, changed, pickOther) {
  const { classes, given, suggested, predicted, ids } = data;
  const suggests = suggested[i] !== given[i];
  const element = made("article", data.pictures ? "card" : "card plain");
  const label = [ids[i], "given " + quoted(classes[given[i]])];
  if (suggests) label.push("suggested " + quoted(classes[suggested[i]]));
  label.push(badness(data, i));
  if (predicted[i] !== suggested[i]) label.push("predicted " + quoted(classes[predicted[i]]));
  element.setAttribute("aria-label", `${i + 1}: ${label.join(", ")}`);

  const frame = made("div", "picture");
  const picture = data.pictures && data.pictures[i];
  if (picture) {
    const image = made("img");
    image.alt = "";
    image.decoding = "async";
    image.addEventListener("load", () => {
      const small = Math.max(image.naturalWidth, image.naturalHeight) <= 48;
      image.classList.toggle("pixels", small);
    });
    image.src = picture;
    frame.append(image);
  } else {
    frame.append(made("span", "no-picture", ids[i]));
    frame.setAttribute("aria-hidden", "true");
  }

  const body = made("div", "body");
  const head = made("p", "head");
  const box = made("input");
  box.type = "checkbox";
  box.setAttribute("aria-label", "Tick " + ids[i]);
  head.append(made("span", "rank", String(i + 1)), named("bdi", "id", ids[i]), box);

  const labels = made("dl", "labels");
  const line = (key, value) => {
    const row = made("div");
    const dd = made("dd");
    dd.append(value);
    if (key === "given" && predicted[i] === given[i] && suggests) dd.append(made("span", "also", "also predicted"));
    row.append(made("dt", "", key), dd);
    labels.append(row);
  };
  line("given", named("bdi", "", classes[given[i]]));
  line("suggested", suggests ? named("bdi", "suggested", classes[suggested[i]]) : made("span", "none", "none"));

  const choice = made("select");
  choice.setAttribute("aria-label", "Decision on " + ids[i]);
  const foot = made("p", "foot");
  const bad = made("span", "badness", badness(data, i));
  const third = predicted[i] !== suggested[i] && predicted[i] !== given[i];
  if (third) bad.append(", predicted ", named("bdi", "", classes[predicted[i]]));
  foot.append(bad, choice);
  body.append(head, labels, foot);
  if (data.pictures) element.append(frame);
  element.append(body);

  function refresh() {
    const kind = decisions.kind(i);
    const label = decisions.label(i);
    const other = kind === "relabel" && label !== suggested[i];
    element.classList.toggle("ticked", kind !== "");
    element.dataset.kind = kind;
    box.checked = kind !== "";
    const options = [];
    if (kind === "") options.push(option("", "Undecided"));
    if (suggests) options.push(option("relabel", "Relabel to " + quoted(classes[suggested[i]])));
    if (other) options.push(option("chosen", "Relabel to " + quoted(classes[label])));
    options.push(option("keep", "Keep " + quoted(classes[given[i]])), option("drop", "Drop row"));
    if (classes.length > 1) options.push(option("other", "Relabel to another class…"));
    choice.replaceChildren(...options);
    choice.value = other ? "chosen" : kind;
  }

  box.addEventListener("change", () => {
    if (box.checked) decisions.tick(i);
    else decisions.set(i, "");
    changed(i);
  });
  choice.addEventListener("change", () => {
    const { value } = choice;
    if (value === "relabel") decisions.set(i, "relabel", suggested[i]);
    else if (value === "keep" || value === "drop") decisions.set(i, value);
    changed(i);
    if (value === "other") pickOther(i);
  });
  refresh();
  return { element, refresh };
}
