// The front page: searches, filters and orders the list of models. The state is in the
// address after "#", so that a search can be linked to.

const form = document.getElementById("search");
const list = document.getElementById("models");
const count = document.getElementById("count");
const none = document.getElementById("none");
const reset = document.getElementById("reset");
const ADDRESS_MS = 250; // browsers limit how often an address may change

const cards = [...list.children].map((element, rank) => ({
  element,
  rank,
  text: searchable(element),
  data: element.dataset,
  accuracy: Number(element.dataset.accuracy ?? -1),
  halves: [...element.querySelectorAll("[data-task]")].map((half) => ({
    element: half,
    task: half.dataset.task,
    params: Number(half.dataset.params) || Infinity,
    formats: half.dataset.formats.split(" "),
  })),
}));
const total = cards.reduce((sum, card) => sum + card.halves.length, 0);
const smallest = (card) => Math.min(...card.halves.map((half) => half.params));
const ORDERS = {
  "": () => 0,
  params: (one, other) => smallest(one) - smallest(other) || 0,
  accuracy: (one, other) => other.accuracy - one.accuracy,
};
let order = "";
let timer;

function searchable(element) {
  const parts = ["h2", ".about", ".accuracy"].map((part) => element.querySelector(part));
  const text = parts.map((part) => part?.textContent ?? "").join(" ").toLowerCase();
  return `${text} ${text.replaceAll("_", " ")}`;
}

function state() {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => value));
}

function show() {
  const wanted = state();
  const words = (wanted.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const card of cards) {
    const { data } = card;
    const fits =
      words.every((word) => card.text.includes(word)) &&
      (!wanted.architecture || data.architecture === wanted.architecture) &&
      (!wanted.license || data.license === wanted.license) &&
      (!wanted.origin || data.origin === wanted.origin) &&
      (!wanted.accuracy || card.accuracy >= Number(wanted.accuracy));
    let some = false;
    for (const half of card.halves) {
      const halfFits =
        fits &&
        (!wanted.task || half.task === wanted.task) &&
        (!wanted.params || half.params <= Number(wanted.params)) &&
        (!wanted.format || half.formats.includes(wanted.format));
      half.element.hidden = !halfFits;
      some ||= halfFits;
      shown += halfFits;
    }
    card.element.hidden = !some;
  }
  sort(wanted.order ?? "");
  const all = `${total.toLocaleString("en")} ${total === 1 ? "model" : "models"}`;
  count.textContent = shown === total ? all : `${shown.toLocaleString("en")} of ${all}`;
  none.hidden = shown > 0 || total === 0;
  reset.hidden = Object.keys(wanted).length === 0;
}

function sort(wanted) {
  if (wanted === order) return;
  order = wanted;
  const sorted = cards.toSorted((a, b) => ORDERS[order](a, b) || a.rank - b.rank);
  list.append(...sorted.map((card) => card.element));
}

function readAddress() {
  if (location.hash === "#main") return show(); // the link that skips to the content
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = wanted.get(field.name) ?? "";
    const isChoice = field.tagName === "SELECT";
    const exists = !isChoice || [...field.options].some((o) => o.value === value);
    field.value = exists ? value : "";
  }
  show();
}

function writeAddress() {
  clearTimeout(timer);
  const text = new URLSearchParams(state()).toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function changed() {
  show();
  clearTimeout(timer);
  timer = setTimeout(writeAddress, ADDRESS_MS);
}

form.addEventListener("input", changed);
list.addEventListener("click", writeAddress); // before the browser leaves the page
form.addEventListener("submit", (event) => event.preventDefault());
reset.addEventListener("click", () => {
  form.reset();
  form.elements.q.focus(); // the button disappears
  changed();
});
addEventListener("hashchange", readAddress);
if (total > 0) {
  form.hidden = false;
  form.querySelector(".filters").open = innerWidth > 640;
  readAddress();
}
