"use strict";
// What a page of results does by itself: it draws a figure when it is scrolled to, lists the sections, and lets long
// tables and galleries be sorted, filtered and unfolded. Nothing is fetched, and nothing leaves the page.
const ROWS = 50, CARDS = 24, SEARCHED = 12;
const figures = JSON.parse(document.getElementById("figures").textContent);

function made(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function plotly() {
  if (!window.Plotly) {
    const source = document.getElementById("plotly");
    document.head.append(made("script", {textContent: source.textContent}));
    source.remove();
  }
  return window.Plotly;
}

const text = title => (title && title.text || "").replace(/<br>/g, " ").replace(/<[^>]*>/g, "");

function told(layout) {
  const axes = letter => [...new Set(Object.keys(layout).filter(name => name.startsWith(`${letter}axis`))
    .map(name => text(layout[name].title)).filter(Boolean))].join("; ");
  const [title, across, up] = [text(layout.title), axes("x"), axes("y")];
  return `Figure. ${title ? `${title}. ` : ""}${up ? `Upwards: ${up}. ` : ""}${across ? `Across: ${across}. ` : ""}`
    + "The numbers are in the tables of this page.";
}

function chosen(layout) {
  const narrow = window.innerWidth < 600 && layout.meta && layout.meta.narrow;
  return narrow ? {...layout, ...layout.meta.narrow} : layout;
}

function draw(place) {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "yes";
  const {data, layout} = figures[place.id], own = chosen(layout);
  plotly().newPlot(place, data, own, {responsive: true, displayModeBar: false});
}

function prepare() {
  const places = Object.keys(figures).map(id => document.getElementById(id));
  for (const place of places) {
    const {data, layout} = figures[place.id], own = chosen(layout);
    const named = own.showlegend === false ? [] : data.filter(trace => trace.name && trace.showlegend !== false);
    if (window.innerWidth < 600) own.height += 14 * named.length;  // a legend of few columns takes more rows
    figures[place.id].layout = own;
    place.style.minWidth = `${(own.meta || {}).min_width || 0}px`;
    place.style.minHeight = `${own.height}px`;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", told(own));
  }
  if (!("IntersectionObserver" in window)) { places.forEach(draw); return; }
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries.filter(one => one.isIntersecting)) { seen.unobserve(entry.target); draw(entry.target); }
  }, {rootMargin: "400px"});
  places.forEach(place => seen.observe(place));
  window.addEventListener("beforeprint", () => places.forEach(draw));
}

function contents() {
  const heads = [...document.querySelectorAll("main h2")], list = document.getElementById("contents");
  if (heads.length < 3) return;
  heads.forEach((head, i) => { head.id = head.id || `section-${i + 1}`; });
  list.append(...heads.map(head => made("a", {href: `#${head.id}`, textContent: head.textContent})));
  list.hidden = false;
}

// The number that a cell begins with, else its text in lower case; "–" comes last.
function value(cell) {
  const said = cell.textContent.trim().replace(/−/g, "-").replace(/(\d),(?=\d{3})/g, "$1");
  const number = /^[<≥≤+]?\s*([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)/i.exec(said);
  return number ? [0, Number(number[1])] : [said === "–" || said === "" ? 2 : 1, said.toLowerCase()];
}

function ordered(items, key, down) {
  const keyed = items.map((item, i) => [key(item), i, item]);
  keyed.sort(([[a, x], i], [[b, y], j]) =>
    a - b || (x < y ? -1 : x > y ? 1 : 0) * (down && a < 2 ? -1 : 1) || i - j);
  return keyed.map(([, , item]) => item);
}

// A field that hides what does not hold its text, and a button that shows what is folded.
function folded(items, most, noun, above) {
  let all = items.length <= most, sought = "";
  const status = made("span", {className: "soft"});
  status.setAttribute("role", "status");
  const more = made("button", {type: "button", textContent: `Show all ${items.length}`, hidden: all});
  const show = () => {
    let fit = 0;
    for (const item of items) {
      const hit = !sought || item.textContent.toLowerCase().includes(sought);
      fit += hit;
      item.hidden = !hit || (!all && fit > most);
    }
    const shown = all ? fit : Math.min(fit, most);
    status.textContent = shown === items.length ? "" : `${shown} of ${items.length} ${noun} shown`;
    more.hidden = all || fit <= most;
  };
  more.addEventListener("click", () => { all = true; show(); });
  const field = made("input", {type: "search", placeholder: "filter"});
  field.setAttribute("aria-label", `Filter ${noun} by text`);
  field.addEventListener("input", () => { sought = field.value.trim().toLowerCase(); show(); });
  const bar = made("p", {className: "tools"}, field, more, status);
  above.before(bar);
  show();
  window.addEventListener("beforeprint", () => { all = true; show(); });
  return {bar, reorder: sorted => { items.splice(0, items.length, ...sorted); show(); }};
}

// What scrolls sideways can be reached and moved with the keys alone.
function scrollers() {
  for (const place of document.querySelectorAll("main .scroll, main .card:has(> .figure)")) {
    const wide = place.scrollWidth > place.clientWidth + 1;
    if (wide) {
      place.tabIndex = 0;
      place.setAttribute("role", "group");
      place.setAttribute("aria-label", "Goes on to the right: scroll sideways");
    } else {
      place.removeAttribute("tabindex"); place.removeAttribute("role"); place.removeAttribute("aria-label");
    }
  }
}

// On paper everything is unfolded.
function unfolded() {
  const closed = [];
  window.addEventListener("beforeprint", () => {
    closed.push(...document.querySelectorAll("main details:not([open])"));
    closed.forEach(one => { one.open = true; });
  });
  window.addEventListener("afterprint", () => closed.splice(0).forEach(one => { one.open = false; }));
}

function tables() {
  for (const table of document.querySelectorAll("main table")) {
    const heads = [...table.querySelectorAll("thead tr")], body = table.tBodies[0];
    if (!body || !heads.length) continue;
    const rows = [...body.rows], cells = [...heads[heads.length - 1].cells];
    const fold = rows.length > SEARCHED ? folded(rows, ROWS, "rows", table.closest(".scroll") || table) : null;
    const plain = rows.length > 2 && rows.every(row => row.cells.length === cells.length);
    if (!plain || cells.some(cell => cell.colSpan > 1)) continue;  // lines that group others stay above them
    cells.forEach((cell, column) => {
      if (!cell.textContent.trim()) return;
      const button = made("button", {type: "button", className: "sort"}, ...cell.childNodes);
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = cell.getAttribute("aria-sort") === "ascending";
        cells.forEach(other => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sorted = ordered([...body.rows], row => value(row.cells[column]), down);
        body.append(...sorted);
        if (fold) fold.reorder(sorted);
      });
    });
  }
}

function galleries() {
  for (const grid of document.querySelectorAll("main .grid")) {
    const cards = [...grid.children];
    if (cards.length <= SEARCHED || !cards.every(card => card.classList.contains("sample"))) continue;
    const fold = folded(cards, CARDS, "samples", grid);
    const scores = cards.map(card => card.querySelector(".score"));
    if (scores.some(score => score === null)) continue;
    const score = card => value({textContent: card.querySelector(".score").textContent.replace(/^[^\d−+-]*/, "")});
    const original = [...cards];
    for (const [label, sorted] of [
      ["As in the data", () => original], ["Lowest first", () => ordered(original, score, false)],
      ["Highest first", () => ordered(original, score, true)],
    ]) {
      const button = made("button", {type: "button", textContent: label});
      button.addEventListener("click", () => { const now = sorted(); grid.append(...now); fold.reorder([...now]); });
      fold.bar.append(button);
    }
  }
}

prepare();
unfolded();
contents();
tables();
galleries();
scrollers();
window.addEventListener("resize", scrollers);
document.querySelector("main").addEventListener("toggle", scrollers, true);
