"use strict";
// What is painted is a list of strokes, whose points are fractions of the image. After every stroke, and while one is
// painted, the whole list is kept in this browser until the server has it.
const $ = (id) => document.getElementById(id);
const canvas = $("paint");
const paint = canvas.getContext("2d");
const PAGE = crypto.getRandomValues(new Uint32Array(3)).join("-");
const COLOUR = "#ff00c8";
const EVERY = 500; // milliseconds between two copies of a stroke that is being painted

let name = "", token = localStorage.getItem("annotate-token") ?? "";
let images = []; // {id, status}, in this annotator's order
let at = -1; // the place of the image that is shown
let drawing = null; // of that image; null while it is loaded
let undone = [];
let stroke = null, pointer = 0, began = 0, box = null; // of the stroke that is being painted
let shown = 0; // when the image was
let erasing = false;
const unsent = new Map(); // image -> its drawing as JSON
let sending = null;

const say = (sentence) => { $("message").textContent = sentence; };
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const place = (image) => `annotate/${name}/${image}`;

// --- the server

async function call(method, path, body) {
  for (let again = true; ; again = false) {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token}` };
    const response = await fetch(path, { method, body, headers });
    if (response.status !== 401 || !again) return response;
    await signIn(name); // the server was started anew
  }
}

// The answer, however long it takes; throws once this page is signed out.
async function reach(method, path, body) {
  for (let waited = false; ; waited = true) {
    let why = "The server does not answer. What you paint is kept in this browser and sent when it is back.";
    try {
      const response = await call(method, path, body);
      if (response.status < 500) {
        if (waited) say("");
        return response;
      }
      why = (await response.json()).error;
    } catch (error) {
      if (!name) throw error;
    }
    say(why);
    await pause(1000);
  }
}

async function signIn(given) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("sign-in", { method: "POST", headers, body: JSON.stringify({ name: given, token }) });
  const answer = await response.json();
  if (!response.ok) {
    signedOut(answer.error);
    throw new Error(answer.error);
  }
  const current = images[at]?.id;
  ({ name, token, images } = answer);
  localStorage.setItem("annotate-name", name);
  localStorage.setItem("annotate-token", token);
  if (current) at = images.findIndex((image) => image.id === current);
}

function signedOut(sentence) {
  name = "";
  at = -1;
  drawing = stroke = null;
  unsent.clear(); // what is not sent stays in localStorage
  localStorage.removeItem("annotate-name");
  for (const part of document.querySelectorAll(".signed-in, #work, #summary")) part.hidden = true;
  $("sign-in").hidden = false;
  $("progress").textContent = "";
  say(sentence);
}

async function begin(given) {
  try {
    await signIn(given);
  } catch (error) {
    if (error instanceof TypeError) say("The server does not answer. Start it again, then sign in.");
    return;
  }
  say("");
  $("sign-in").hidden = true;
  for (const part of document.querySelectorAll(".signed-in, #work")) part.hidden = false;
  for (const { id } of images) {
    const left = localStorage.getItem(place(id));
    if (left) unsent.set(id, left);
  }
  await send();
  const open = images.findIndex((image) => image.status === "open");
  await show(open < 0 ? 0 : open);
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
    // Full. The server has it in a moment.
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
    const sentence = response.ok ? "" : (await response.json()).error;
    const newest = unsent.get(id) === text;
    if (newest) {
      unsent.delete(id);
      localStorage.removeItem(place(id));
    }
    if (!sentence) continue;
    say(sentence[0].toUpperCase() + sentence.slice(1) + ".");
    const refused = JSON.parse(text);
    if (newest && refused.status === "done") { // its strokes are no map: they are kept, and the image stays open
      unsent.set(id, JSON.stringify({ ...refused, status: "open" }));
      if (images[at]?.id === id && drawing) drawing.status = images[at].status = "open";
    }
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
  const known = (await stored.json()) ?? { revision: 0, answer: null, seconds: null, status: "open", strokes: [] };
  const photo = $("photo");
  if (picture.ok) {
    const bitmap = await createImageBitmap(await picture.blob());
    if (at !== to) return; // another was asked for meanwhile
    for (const layer of [photo, canvas]) [layer.width, layer.height] = [bitmap.width, bitmap.height];
    $("stage").style.setProperty("--ratio", bitmap.width / bitmap.height);
    photo.getContext("2d").drawImage(bitmap, 0, 0);
  } else {
    const { error } = await picture.json();
    if (at !== to) return;
    photo.width = canvas.width = photo.width; // empty
    say(error);
  }
  drawing = { ...known, page: PAGE, base: known.revision };
  shown = performance.now();
  redraw();
  update();
}

function update() {
  const count = (status) => images.filter((image) => image.status === status).length;
  const [done, skipped] = [count("done"), count("skipped")];
  const left = images.length - done - skipped;
  $("progress").textContent =
    `${name}: image ${at + 1} of ${images.length}; ${done} done, ${skipped} skipped, ` +
    (left ? `${left} left` : "none left: thank you!");
  const pressed = { real: drawing?.answer === "real", synthetic: drawing?.answer === "synthetic", eraser: erasing, brush: !erasing };
  for (const [id, is] of Object.entries(pressed)) $(id).setAttribute("aria-pressed", is);
  for (const id of ["real", "synthetic", "skip"]) $(id).disabled = !drawing;
  $("done").disabled = !drawing?.answer;
  $("previous").disabled = at < 1;
  $("undo").disabled = !drawing?.strokes.length;
  $("redo").disabled = !undone.length;
  $("done").firstElementChild.textContent = drawing?.strokes.length ? "Done, next" : "Nothing stands out, next";
}

function answer(given) {
  if (drawing.answer === given) return;
  Object.assign(drawing, { answer: given, seconds: (performance.now() - shown) / 1000, status: "open" });
  say("");
  keep();
  update();
}

async function leave(status) {
  const here = at;
  if (drawing.status !== status) {
    drawing.status = status;
    say("");
    keep();
    await send();
    if (at !== here || drawing?.status !== status) return; // refused, and said why
  }
  await show((at + 1) % images.length);
}

// --- painting

// The stroke from its point number `from` on.
function draw({ erase, width, points }, from = 0) {
  paint.globalCompositeOperation = erase ? "destination-out" : "source-over";
  paint.strokeStyle = COLOUR;
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
  const { points } = stroke;
  const [x, y] = [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
  const last = points.at(-1);
  // What is nearer than a pixel changes nothing.
  if (last && Math.hypot((x - last[0]) * canvas.width, (y - last[1]) * canvas.height) < 1) return;
  points.push([x, y, Math.max(0, Math.round(event.timeStamp - began))]);
}

canvas.addEventListener("pointerdown", (event) => {
  if (!drawing || stroke || ![0, 5].includes(event.button)) return; // 5: the eraser of a pen
  if (!drawing.answer) return say("Say first: real or synthetic?");
  say("");
  canvas.setPointerCapture(event.pointerId);
  [pointer, began, box] = [event.pointerId, event.timeStamp, canvas.getBoundingClientRect()];
  drawing.status = "open";
  stroke = { erase: erasing || event.button === 5, width: $("size").value / 100, at: Date.now(), points: [] };
  extend(event);
  draw(stroke);
});

canvas.addEventListener("pointermove", (event) => {
  aim(event);
  if (!stroke || event.pointerId !== pointer) return;
  const from = stroke.points.length - 1;
  const parts = event.getCoalescedEvents();
  for (const part of parts.length ? parts : [event]) extend(part);
  if (stroke.points.length - 1 > from) draw(stroke, from);
});

function end(event) {
  if (!stroke || event.pointerId !== pointer) return;
  drawing.strokes.push(stroke);
  stroke = null;
  undone = [];
  keep();
  update();
}
canvas.addEventListener("pointerup", end);
canvas.addEventListener("pointercancel", end);

function aim(event) {
  const area = canvas.getBoundingClientRect();
  const size = ($("size").value / 100) * Math.max(area.width, area.height);
  $("ring").hidden = event.pointerType === "touch";
  $("ring").style.width = $("ring").style.height = `${size}px`;
  $("ring").style.transform = `translate(${event.clientX - area.left - size / 2}px, ${event.clientY - area.top - size / 2}px)`;
}
canvas.addEventListener("pointerleave", () => { $("ring").hidden = true; });

setInterval(() => { if (stroke) keep(); }, EVERY);
addEventListener("pagehide", () => { if (stroke) keep(); });
setInterval(() => { if (name) call("POST", "stay").catch(() => {}); }, 20000);

function step(from, to) {
  if (!drawing || stroke || !from.length) return;
  to.push(from.pop());
  drawing.status = "open";
  keep();
  redraw();
  update();
}

// --- buttons and keys

function choose(erase) {
  erasing = erase;
  update();
}

function resize(by) {
  $("size").valueAsNumber += by;
}

const ACTIONS = {
  real: () => answer("real"),
  synthetic: () => answer("synthetic"),
  brush: () => choose(false),
  eraser: () => choose(true),
  undo: () => step(drawing.strokes, undone),
  redo: () => step(undone, drawing.strokes),
  previous: () => show(at - 1),
  skip: () => leave("skipped"),
  done: () => leave("done"),
};
const KEYS = {
  r: "real", s: "synthetic", b: "brush", e: "eraser", z: "undo", y: "redo", p: "previous", k: "skip", n: "done",
  arrowleft: "previous", arrowright: "done",
};
for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action);

addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const command = event.ctrlKey || event.metaKey;
  if ($("work").hidden || event.altKey || stroke || (command && !["z", "y"].includes(key))) return;
  if (event.target.type === "range" && key.startsWith("arrow")) return;
  const id = command && event.shiftKey && key === "z" ? "redo" : KEYS[key];
  if (id && !$(id).disabled) ACTIONS[id]();
  else if (key === "[" || key === "]") resize(key === "[" ? -1 : 1);
  else return;
  event.preventDefault();
});

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("name").value);
});

$("sign-out").addEventListener("click", async () => {
  await send();
  await reach("POST", "sign-out");
  localStorage.removeItem("annotate-token");
  token = "";
  signedOut("");
});

// --- the summary

function fill(table, rows) {
  $(table).tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    for (const [number, text] of cells.entries()) {
      const cell = row.appendChild(document.createElement(number ? "td" : "th"));
      cell.textContent = text;
    }
    return row;
  }));
}

$("show-summary").addEventListener("click", async () => {
  const { annotators, pairs } = await (await reach("GET", "summary")).json();
  const figure = (value) => value?.toFixed(3) ?? "–";
  fill("annotators", annotators.map((one) => [one.annotator, one.done, one.skipped, one.left]));
  fill("pairs", pairs.map((pair) => [
    `${pair.first}, ${pair.second}`, pair.images, figure(pair.same_answer), figure(pair.kappa), pair.maps, figure(pair.iou),
  ]));
  $("work").hidden = true;
  $("summary").hidden = false;
});

$("hide-summary").addEventListener("click", () => {
  $("summary").hidden = true;
  $("work").hidden = false;
});

if (localStorage.getItem("annotate-name")) begin(localStorage.getItem("annotate-name"));
