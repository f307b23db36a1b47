"use strict";
// Where scripts run, the page of a report has in addition: tables that sort, a fading edge where a wide one continues,
// AUROC by choice of generators, and a gallery with filters. Text is set as text, never as markup.

// ---- Tables ----

const MISSING = "–";
const originalRows = new WeakMap();

/** The number that a cell begins with ("−0.12 (…)", "< 0.001", "1,234 + 100"), or null. */
function leadingNumber(text) {
  const found = text.replace(/,(?=\d{3})/g, "").replace("−", "-").match(/^[<>≥≤]?\s*([+-]?\d+(?:\.\d+)?)/);
  if (!found) return null;
  // "< 0.001" stands below 0.001.
  return Number(found[1]) - (text.startsWith("<") ? 1e-9 : 0);
}

/** Negative where a comes first; cells without a value come last in either direction. */
function compareCells(a, b, words, descending) {
  const missingA = a === MISSING || a === "", missingB = b === MISSING || b === "";
  if (missingA || missingB) return missingA - missingB;
  const [x, y] = words ? [null, null] : [leadingNumber(a), leadingNumber(b)];
  const order = x !== null && y !== null ? x - y : a.localeCompare(b, "en", { numeric: true });
  return descending ? -order : order;
}

/** Put the rows into the order that a header's aria-sort names; without one, into their original order. */
function sortRows(table) {
  const rows = [...originalRows.get(table)];
  const header = table.tHead.querySelector("[aria-sort]");
  if (header) {
    const column = header.cellIndex;
    // The sort of arrays is stable, so that equal cells keep the original order.
    rows.sort((a, b) =>
      compareCells(
        a.cells[column].textContent.trim(),
        b.cells[column].textContent.trim(),
        header.classList.contains("words"),
        header.getAttribute("aria-sort") === "descending",
      ),
    );
  }
  table.tBodies[0].append(...rows);
}

function setRows(table, rows) {
  table.tBodies[0].replaceChildren(...rows);
  originalRows.set(table, rows);
  sortRows(table);
}

/** Put a button into each header that sorts rising, then falling, then back to the original order. */
function makeSortable(table) {
  originalRows.set(table, [...table.tBodies[0].rows]);
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[header.getAttribute("aria-sort")];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next !== null) header.setAttribute("aria-sort", next ?? "ascending");
      sortRows(table);
    });
  }
}

// ---- Tables and figures wider than the screen ----

/** Mark a region that continues to the right of its visible part. */
function markHiddenPart(region) {
  const mark = () => region.classList.toggle("goes-on", region.scrollLeft + region.clientWidth < region.scrollWidth - 1);
  region.addEventListener("scroll", mark, { passive: true });
  const observer = new ResizeObserver(mark);  // calls it now, too, and when a table gets its rows
  for (const element of [region, ...region.children]) observer.observe(element);
}

// ---- AUROC by choice of generators ----

/** About four to eight round values, from a little below the lowest value to a little above the highest. */
function ticks(low, high) {
  const step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((size) => (high - low) / size <= 6) ?? 0.25;
  const first = Math.floor(low / step - 0.2), last = Math.ceil(high / step + 0.2);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step).filter((tick) => tick > -1e-9 && tick < 1 + 1e-9);
}

function startChoice(section) {
  const { methods, choices, min_box: minBox } = JSON.parse(document.getElementById("choices").textContent);
  const select = document.getElementById("generator"), svg = document.getElementById("boxes");
  const table = document.getElementById("chosen");

  function add(parent, name, attributes, text) {
    const element = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function drawMethod(method, runs, box, y, x) {
    // Black ink would be invisible on a dark page.
    const colour = method.colour === "#000000" ? "currentColor" : method.colour;
    const group = add(svg, "g", { class: "method", stroke: colour, fill: colour });
    add(group, "text", { x: 8, y, class: "name" }, runs.length ? method.title : `${method.title}: ${MISSING}`);
    if (!runs.length) return;
    const middle = y + 18;
    if (runs.length >= minBox) {
      const whiskers = `M${x(box.whislo)} ${middle}H${x(box.q1)}M${x(box.q3)} ${middle}H${x(box.whishi)}`;
      add(group, "path", { d: whiskers, fill: "none" });
      add(group, "rect", {
        x: x(box.q1), y: middle - 9, width: x(box.q3) - x(box.q1), height: 18, "fill-opacity": 0.2, class: "box",
      });
      add(group, "path", { d: `M${x(box.med)} ${middle - 9}v18`, "stroke-width": 2.5 });
    }
    runs.forEach(([seed, value], i) => {
      // A little apart, so that equal runs do not look like one.
      const circle = add(group, "circle", {
        cx: x(value), cy: middle + ((i % 3) - 1) * 4, r: 3.5, "fill-opacity": 0.5, class: "run",
      });
      add(circle, "title", {}, `${method.title}, seed ${seed}: ${value.toFixed(3)}`);
    });
  }

  function draw() {
    const choice = choices[select.value];
    document.getElementById("choice-note").textContent = choice.images;
    const values = choice.auroc.flat().map(([, value]) => value);
    svg.replaceChildren();
    svg.toggleAttribute("hidden", !values.length);
    if (values.length) {
      const width = Math.max(svg.getBoundingClientRect().width, 280), height = 42 * methods.length + 48;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const marks = ticks(Math.min(...values), Math.max(...values)), first = marks[0], last = marks[marks.length - 1];
      const x = (value) => 20 + ((value - first) / (last - first)) * (width - 40);
      for (const mark of marks) {
        add(svg, "path", { d: `M${x(mark)} 0V${height - 40}`, class: "grid" });
        add(svg, "text", { x: x(mark), y: height - 24, "text-anchor": "middle", class: "axis" }, mark.toFixed(marks[1] - first < 0.0099 ? 3 : 2));
      }
      if (first < 0.5 && last > 0.5) add(svg, "path", { d: `M${x(0.5)} 0V${height - 40}`, class: "chance" });
      add(svg, "text", { x: width / 2, y: height - 6, "text-anchor": "middle", class: "axis" }, "AUROC");
      methods.forEach((method, i) => drawMethod(method, choice.auroc[i], choice.boxes[i], 42 * i + 16, x));
    }
    setRows(table, methods.map((method, i) => row(method.title, choice.auroc[i].length, choice.boxes[i])));
  }

  function row(title, runs, box) {
    const figures = ["mean", "std", "med", "low", "high"].map((name) => box?.[name]?.toFixed(3) ?? MISSING);
    const cells = [title, String(runs), ...figures];
    const line = document.createElement("tr");
    cells.forEach((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      if (!i) cell.scope = "row";
      cell.textContent = text;
      line.append(cell);
    });
    return line;
  }

  section.hidden = false;
  select.addEventListener("change", draw);
  // It calls this for the first drawing, too. The height follows from the methods, so that drawing does not change it.
  let drawnWidth = null;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width && contentRect.width !== drawnWidth) {
      drawnWidth = contentRect.width;
      draw();
    }
  }).observe(section);
}

// ---- Gallery ----

function startGallery(form) {
  const list = document.querySelector("#gallery .cards"), cards = [...list.children];
  for (const card of cards) {
    const photo = card.querySelector(".original");
    for (const map of card.querySelectorAll(".map")) {
      // The page holds the photograph once; each map is laid over a copy of it.
      const copy = photo.cloneNode();
      copy.className = "photo-copy";
      copy.alt = "";
      map.before(copy);
    }
  }

  function apply() {
    // Not form.method, which would be the form's own attribute.
    const { group, verdict, order, strength, method } = Object.fromEntries(new FormData(form));
    document.documentElement.style.setProperty("--strength", strength / 100);
    const [kind, value] = [group.slice(0, group.indexOf(":")), group.slice(group.indexOf(":") + 1)];
    const own = new Map(
      cards.map((card) => [card, [...card.querySelectorAll("[data-method]")].find((cell) => cell.dataset.method === method)]),
    );
    let shown = 0;
    for (const card of cards) {
      card.hidden = (group && card.dataset[kind] !== value) || (verdict && own.get(card).dataset.verdict !== verdict);
      shown += !card.hidden;
      for (const cell of card.querySelectorAll("[data-method]")) cell.classList.toggle("judged-by", cell === own.get(card));
    }
    const sorted = [...cards];
    if (order) {
      const sign = order === "rising" ? 1 : -1;
      sorted.sort((a, b) => sign * (own.get(a).dataset.score - own.get(b).dataset.score));
    }
    list.append(...sorted);
    document.getElementById("shown").textContent = `${shown} of ${cards.length} images`;
  }

  form.hidden = false;
  form.addEventListener("change", apply);
  form.strength.addEventListener("input", apply);  // while the slider is dragged
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
for (const region of document.querySelectorAll(".wide")) markHiddenPart(region);
const choiceSection = document.getElementById("by-generator");
if (choiceSection) startChoice(choiceSection);
const filters = document.getElementById("filters");
if (filters) startGallery(filters);
