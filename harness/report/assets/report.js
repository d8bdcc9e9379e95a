// Filters cases by words and verdicts, opens the case that a link points to. Without it everything can still be read.
"use strict";
const cases = [...document.querySelectorAll(".case")];
const rows = [...document.querySelectorAll(".matrix tbody tr")];
const search = document.getElementById("search");
const chips = [...document.querySelectorAll(".chips button")];
const count = document.getElementById("count");
const off = new Set();

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words.every((word) => text.includes(word));
  let shown = 0;
  for (const item of cases) {
    item.hidden = off.has(item.dataset.w) || !fits(item.dataset.s);
    shown += !item.hidden;
  }
  const seen = new Set(cases.filter((item) => !item.hidden).map((item) => item.id));
  for (const row of rows) row.hidden = ![...row.querySelectorAll("a")].some((link) => seen.has(link.hash.slice(1)));
  for (const link of document.querySelectorAll(".matrix td a")) link.hidden = !seen.has(link.hash.slice(1));
  count.textContent = `${shown} of ${cases.length} cases`;
}

function visit() {
  const item = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!item || !item.matches(".case")) return;
  if (item.hidden) { search.value = ""; off.clear(); chips.forEach((chip) => chip.setAttribute("aria-pressed", "true")); filter(); }
  item.open = true;
  item.scrollIntoView();
  item.querySelector("summary").focus({ preventScroll: true });
}

search.addEventListener("input", filter);
for (const chip of chips) {
  chip.addEventListener("click", () => {
    const word = chip.dataset.w;
    off.has(word) ? off.delete(word) : off.add(word);
    chip.setAttribute("aria-pressed", String(!off.has(word)));
    filter();
  });
}
document.getElementById("all").addEventListener("click", () => {
  const shown = cases.filter((item) => !item.hidden);
  const open = !shown.some((item) => item.open);
  shown.forEach((item) => { item.open = open; });
});
document.addEventListener("keydown", (key) => {
  const typing = key.target.matches("input");
  if (key.key === "Escape" && typing) { search.value = ""; filter(); search.blur(); }
  if (typing || key.ctrlKey || key.metaKey || key.altKey) return;
  if (key.key === "/") { key.preventDefault(); search.focus(); }
  if (key.key !== "j" && key.key !== "k") return;
  const shown = cases.filter((item) => !item.hidden);
  const at = shown.findIndex((item) => item.contains(document.activeElement));
  const next = shown[key.key === "j" ? at + 1 : Math.max(at - 1, 0)];
  if (next) { next.querySelector("summary").focus(); next.scrollIntoView({ block: "nearest" }); }
});
addEventListener("hashchange", visit);
document.querySelectorAll("[data-js]").forEach((item) => { item.hidden = false; });
filter();
visit();
