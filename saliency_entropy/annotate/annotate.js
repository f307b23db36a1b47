"use strict";
// A drawing is a list of strokes, whose points are fractions of the image. After every stroke, and while one is being
// painted, the whole drawing is kept in this browser until the server has it.
const $ = (id) => document.getElementById(id);
const canvas = $("paint");
const paint = canvas.getContext("2d");
const PAGE = crypto.getRandomValues(new Uint32Array(3)).join("-");
const EVERY = 500; // milliseconds between two copies of a stroke that is being painted

let name, token = localStorage.getItem("annotate-token") ?? "";
let images = []; // {id, status}, in this annotator's order
let at = 0; // the place of the image that is shown
let drawing = null; // of that image; null while it is loaded
let undone = [];
let stroke = null, pointer, began, box; // of the stroke that is being painted
let shown; // when the image was
let erasing = false;
const unsent = new Map(); // image -> its drawing as JSON
let sending = null;

const say = (sentence) => { $("message").textContent = sentence; };
const place = (image) => `annotate/${name}/${image}`;
const headers = () => ({ Authorization: `Bearer ${token}` });

// The server's answer, however long it takes.
async function reach(method, path, body) {
  for (let waited = false; ; waited = true) {
    if (waited) await new Promise((resolve) => setTimeout(resolve, 1000));
    let why = "The server does not answer. What you paint is kept in this browser, and sent when it is back.";
    try {
      const response = await fetch(path, { method, body, headers: headers() });
      if (response.status === 401) { // the server was started anew, or the name is in use elsewhere: sign in again
        location.reload();
        return await new Promise(() => {});
      }
      if (waited) say("");
      if (response.status < 500) return response;
      why = await response.text();
    } catch {
      // As if it did not answer.
    }
    say(why);
  }
}

async function signIn(given) {
  const response = await reach("POST", `sign-in?name=${encodeURIComponent(given)}`);
  if (!response.ok) return say(await response.text());
  ({ name, token, images } = await response.json());
  localStorage.setItem("annotate-name", name);
  localStorage.setItem("annotate-token", token);
  say("");
  $("sign-in").hidden = true;
  for (const { id } of images) {
    const left = localStorage.getItem(place(id));
    if (left) unsent.set(id, left);
  }
  await send();
  for (const part of document.querySelectorAll(".signed-in, #work")) part.hidden = false;
  await show(Math.max(0, images.findIndex((image) => image.status === "open")));
}

// --- what is kept

function keep() {
  const { id } = images[at];
  drawing.revision += 1;
  images[at].status = drawing.status;
  const text = JSON.stringify({ ...drawing, strokes: stroke ? [...drawing.strokes, stroke] : drawing.strokes });
  unsent.set(id, text);
  try {
    localStorage.setItem(place(id), text);
  } catch {
    // Full: the server has it in a moment.
  }
  send();
}

function send() {
  sending ??= flush().finally(() => { sending = null; });
  return sending;
}

async function flush() {
  while (unsent.size) {
    const [[id, text]] = unsent;
    const response = await reach("PUT", `drawings/${id}`, text);
    if (unsent.get(id) !== text) continue; // painted on meanwhile
    unsent.delete(id);
    localStorage.removeItem(place(id));
    if (response.ok) continue;
    say(await response.text());
    if (drawing && images[at].id === id) show(at); // as the server has it
  }
}

// --- the image that is shown

async function show(to) {
  at = to;
  drawing = stroke = null;
  undone = [];
  update();
  const { id } = images[to];
  const [picture, stored] = await Promise.all([reach("GET", `images/${id}`), reach("GET", `drawings/${id}`)]);
  const known = (await stored.json()) ?? { revision: 0, status: "open", strokes: [] };
  const bitmap = picture.ok ? await createImageBitmap(await picture.blob()) : { width: 1, height: 1 };
  if (!picture.ok) say(await picture.text());
  if (at !== to) return; // another was asked for meanwhile
  for (const layer of [$("photo"), canvas]) [layer.width, layer.height] = [bitmap.width, bitmap.height];
  $("stage").style.setProperty("--ratio", bitmap.width / bitmap.height);
  if (picture.ok) $("photo").getContext("2d").drawImage(bitmap, 0, 0);
  drawing = { ...known, page: PAGE, base: known.revision };
  images[at].status = drawing.status;
  shown = performance.now();
  redraw();
  update();
}

function update() {
  const [done, skipped] = ["done", "skipped"].map((status) => images.filter((image) => image.status === status).length);
  const left = images.length - done - skipped;
  $("progress").textContent = `${name}: image ${at + 1} of ${images.length}; ${done} done, ${skipped} skipped, `
    + (left ? `${left} left` : "none left: thank you!");
  const { answer, strokes = [] } = drawing ?? {};
  const pressed = { real: answer === "real", synthetic: answer === "synthetic", eraser: erasing, brush: !erasing };
  for (const [id, is] of Object.entries(pressed)) $(id).setAttribute("aria-pressed", is);
  const possible = { real: drawing, synthetic: drawing, skip: drawing, done: answer, previous: at, undo: strokes.length, redo: undone.length };
  for (const [id, is] of Object.entries(possible)) $(id).disabled = !is;
  $("done").firstElementChild.textContent = strokes.length ? "Done, next" : "Nothing stands out, next";
}

function change(what) {
  Object.assign(drawing, { status: "open" }, what);
  say("");
  keep();
  update();
}

async function leave(status) {
  if (drawing.status !== status) change({ status });
  const left = drawing;
  await send();
  if (drawing === left) await show((at + 1) % images.length); // else it was refused
}

// --- painting

// The stroke from its point number `from` on.
function draw({ erase, width, points }, from = 0) {
  paint.globalCompositeOperation = erase ? "destination-out" : "source-over";
  paint.strokeStyle = "#ff00c8";
  paint.lineWidth = width * Math.max(canvas.width, canvas.height);
  paint.lineCap = paint.lineJoin = "round";
  paint.beginPath();
  paint.moveTo(points[from][0] * canvas.width, points[from][1] * canvas.height);
  for (const [x, y] of points.slice(from)) paint.lineTo(x * canvas.width, y * canvas.height);
  paint.stroke();
}

function redraw() {
  paint.clearRect(0, 0, canvas.width, canvas.height);
  for (const one of drawing.strokes) draw(one);
}

function extend(event) {
  const within = (value) => Math.min(1.5, Math.max(-0.5, Math.round(value * 1e4) / 1e4));
  const [x, y] = [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
  const last = stroke.points.at(-1);
  // What is nearer than a pixel changes nothing.
  if (last && Math.hypot((x - last[0]) * canvas.width, (y - last[1]) * canvas.height) < 1) return;
  stroke.points.push([x, y, Math.max(0, Math.round(event.timeStamp - began))]);
}

canvas.addEventListener("pointerdown", (event) => {
  if (!drawing || stroke || ![0, 5].includes(event.button)) return; // 5: the eraser of a pen
  if (!drawing.answer) return say("Say first: real or synthetic?");
  canvas.setPointerCapture(event.pointerId);
  [pointer, began, box] = [event.pointerId, event.timeStamp, canvas.getBoundingClientRect()];
  drawing.status = "open";
  stroke = { erase: erasing || event.button === 5, width: $("size").value / 100, at: Date.now(), points: [] };
  extend(event);
  draw(stroke);
});

canvas.addEventListener("pointermove", (event) => {
  const area = canvas.getBoundingClientRect();
  const size = ($("size").value / 100) * Math.max(area.width, area.height);
  const [x, y] = [event.clientX - area.left - size / 2, event.clientY - area.top - size / 2];
  $("ring").hidden = event.pointerType === "touch";
  Object.assign($("ring").style, { width: `${size}px`, height: `${size}px`, transform: `translate(${x}px, ${y}px)` });
  if (!stroke || event.pointerId !== pointer) return;
  const from = stroke.points.length - 1;
  const parts = event.getCoalescedEvents();
  for (const part of parts.length ? parts : [event]) extend(part);
  if (stroke.points.length - 1 > from) draw(stroke, from);
});
canvas.addEventListener("pointerleave", () => { $("ring").hidden = true; });

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (!stroke || event.pointerId !== pointer) return;
    const strokes = [...drawing.strokes, stroke];
    stroke = null;
    undone = [];
    change({ strokes });
  });
}

setInterval(() => { if (stroke) keep(); }, EVERY);
addEventListener("pagehide", () => { if (stroke) keep(); });
// A sign of life, of what costs the server least.
setInterval(() => { if (name) fetch(`drawings/${images[at].id}`, { headers: headers() }).catch(() => {}); }, 20000);

// --- buttons and keys

function answer(given) {
  if (drawing.answer !== given) change({ answer: given, seconds: (performance.now() - shown) / 1000 });
}

function step(from, to) {
  to.push(from.pop());
  change();
  redraw();
}

const ACTIONS = {
  real: () => answer("real"),
  synthetic: () => answer("synthetic"),
  brush: () => { erasing = false; update(); },
  eraser: () => { erasing = true; update(); },
  undo: () => step(drawing.strokes, undone),
  redo: () => step(undone, drawing.strokes),
  smaller: () => { $("size").valueAsNumber -= 1; },
  larger: () => { $("size").valueAsNumber += 1; },
  previous: () => show(at - 1),
  skip: () => leave("skipped"),
  done: () => leave("done"),
};
const KEYS = { r: "real", s: "synthetic", b: "brush", e: "eraser", z: "undo", y: "redo", "[": "smaller", "]": "larger", p: "previous", k: "skip", n: "done" };
for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", () => stroke || action());

addEventListener("keydown", (event) => {
  const id = KEYS[event.key.toLowerCase()];
  const command = event.ctrlKey || event.metaKey;
  if (!id || $("work").hidden || stroke || event.altKey || (command && !["undo", "redo"].includes(id))) return;
  event.preventDefault();
  $(command && event.shiftKey ? "redo" : id).click(); // which does nothing where it is disabled
});

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("name").value);
});

$("sign-out").addEventListener("click", async () => {
  await send();
  await reach("POST", "sign-out");
  for (const key of ["name", "token"]) localStorage.removeItem(`annotate-${key}`);
  location.reload();
});

$("show-summary").addEventListener("click", async () => {
  for (const [table, rows] of Object.entries(await (await reach("GET", "summary")).json())) {
    $(table).replaceChildren();
    for (const cells of rows) {
      const row = $(table).insertRow();
      for (const text of cells) row.insertCell().textContent = text;
    }
  }
  [$("work").hidden, $("summary").hidden] = [true, false];
});

$("hide-summary").addEventListener("click", () => { [$("work").hidden, $("summary").hidden] = [false, true]; });

if (localStorage.getItem("annotate-name")) signIn(localStorage.getItem("annotate-name"));
