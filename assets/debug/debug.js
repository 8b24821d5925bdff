"use strict";
// The page at /debug/: polls figures once a second, draws flame graphs from folded stacks. No library, no other host.

const element = (id) => document.getElementById(id);
const history = new Map();
const HISTORY = 60;

const sized = (value, unit) => {
  const steps = ["", "k", "M", "G", "T"];
  let step = 0;
  while (Math.abs(value) >= 1000 && step < steps.length - 1) { value /= 1000; step += 1; }
  const digits = step === 0 && Number.isInteger(value) ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${steps[step]}${unit}`.trim();
};
const seconds = (value) => {
  if (value === null || value === undefined) return "";
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 2 : 0)} ms`;
  return value < 120 ? `${value.toFixed(1)} s` : value < 7200 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(1)} h`;
};

// Elements are made, never parsed: names of streams and files come from others.
const make = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};
const fill = (table, columns, rows, empty) => {
  const head = make("tr");
  for (const [title, numeric] of columns) head.append(make("th", title, numeric ? "n" : ""));
  const lines = rows.map((row) => {
    const line = make("tr");
    row.forEach((cell, at) => line.append(make("td", cell, columns[at][1] ? "n" : "")));
    return line;
  });
  if (lines.length === 0) {
    const line = make("tr");
    const cell = make("td", empty, "note");
    cell.colSpan = columns.length;
    line.append(cell);
    lines.push(line);
  }
  table.replaceChildren(head, ...lines);
};

const tiles = new Map();
const tile = (name, shown, value) => {
  let parts = tiles.get(name);
  if (!parts) {
    const box = make("div", undefined, "tile");
    const line = svg("polyline", {});
    const picture = svg("svg", { viewBox: `0 0 ${HISTORY - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
    picture.append(line);
    parts = { number: make("b"), line };
    box.append(parts.number, make("span", name), picture);
    element("tiles").append(box);
    tiles.set(name, parts);
    history.set(name, []);
  }
  parts.number.textContent = shown;
  const values = history.get(name);
  values.push(value);
  if (values.length > HISTORY) values.shift();
  const most = Math.max(...values, 1e-9);
  const first = HISTORY - values.length;
  parts.line.setAttribute("points", values.map((v, at) => `${first + at},${19 - (18 * v) / most}`).join(" "));
};

let before = null;
const show = (now) => {
  const figure = (name) => now.figures[name] ?? 0;
  element("state").textContent = `${now.draining ? "draining" : "up"} ${seconds(now.uptime)}, ${now.threads} threads, ${now.files} files`;
  if (before && now.uptime > before.uptime) {
    const passed = now.uptime - before.uptime;
    const rate = (name) => Math.max(0, (now[name] - before[name]) / passed);
    tile("sent per second", `${sized(rate("sent"), "B/s")}`, rate("sent"));
    tile("received per second", `${sized(rate("received"), "B/s")}`, rate("received"));
    tile("requests per second", sized(rate("requests"), ""), rate("requests"));
    tile("CPU", `${(100 * rate("cpu")).toFixed(0)} %`, rate("cpu"));
    const cores = now.busy.filter((core) => core.runtime.startsWith("core"));
    const old = new Map(before.busy.map((core) => [core.runtime, core.seconds]));
    const busy = cores.map((core) => (core.seconds - (old.get(core.runtime) ?? core.seconds)) / passed);
    tile("busiest core", `${(100 * Math.max(0, ...busy)).toFixed(0)} %`, Math.max(0, ...busy));
    const copied = now.sent > before.sent ? (now.copied - before.copied) / (now.sent - before.sent) : 0;
    tile("of it copied", `${(100 * copied).toFixed(2)} %`, copied);
  }
  tile("connections", String(now.connections), now.connections);
  tile("viewers", String(figure("weir_viewers")), figure("weir_viewers"));
  tile("live streams", String(figure("weir_streams.live")), figure("weir_streams.live"));
  tile("memory", sized(now.rss, "B"), now.rss);
  tile("live windows", sized(figure("weir_window_bytes"), "B"), figure("weir_window_bytes"));
  const lookups = figure("weir_index_hits") + figure("weir_index_misses");
  const hits = lookups ? figure("weir_index_hits") / lookups : 1;
  tile("index in memory", lookups ? `${(100 * hits).toFixed(1)} %` : "–", hits);
  fill(element("by-route"),
    [["route"], ["requests", true], ["mean", true], ["median ≤", true], ["99 % ≤", true]],
    now.routes.map((r) => [r.route, String(r.count), seconds(r.mean), seconds(r.p50), seconds(r.p99)]), "no request yet");
  before = now;
};

const WAITING = 100;
const showTasks = ({ tasks }) => {
  const rank = { publisher: 0, stream: 1, recording: 2, viewer: 3, upload: 4, connection: 5, pool: 6 };
  tasks.sort((a, b) => rank[a.kind] - rank[b.kind] || (b.seconds ?? 0) - (a.seconds ?? 0));
  fill(element("waiting"), [["what"], ["who"], ["route"], ["stream"], ["waits for"], ["for", true]],
    tasks.slice(0, WAITING).map((t) => [t.kind, t.who, t.route, t.stream, t.waits_for, seconds(t.seconds)]), "nothing");
};

const get = async (path) => {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) {
    const text = await response.text();
    let detail = text.trim();
    try { detail = JSON.parse(text).detail ?? detail; } catch { /* plain text says it, too */ }
    throw new Error(`${response.status}: ${detail}`);
  }
  return response;
};

const poll = async () => {
  try {
    const [figures, tasks] = await Promise.all([get("/debug/figures"), get("/debug/tasks?format=json")]);
    show(await figures.json());
    showTasks(await tasks.json());
  } catch (error) {
    element("state").textContent = `no answer: ${error.message}`;
  }
  setTimeout(poll, document.hidden ? 5000 : 1000);
};

// A flame graph of folded stacks: "outermost;…;leaf value" by line.
const tree = (folded) => {
  const root = { name: "all", value: 0, below: new Map() };
  for (const line of folded.split("\n")) {
    const at = line.lastIndexOf(" ");
    const value = Number(line.slice(at + 1));
    if (at < 0 || !(value > 0)) continue;
    root.value += value;
    let node = root;
    for (const name of line.slice(0, at).split(";")) {
      let next = node.below.get(name);
      if (!next) { next = { name, value: 0, below: new Map() }; node.below.set(name, next); }
      next.value += value;
      node = next;
    }
  }
  return root;
};
const hue = (name) => { let h = 7; for (const c of name) h = (h * 31 + c.codePointAt(0)) >>> 0; return 18 + (h % 40); };
const ROW = 18;
const draw = (root, amount) => {
  const width = Math.max(320, element("graph").clientWidth);
  const boxes = [];
  let rows = 0;
  const walk = (node, x, depth) => {
    const wide = (node.value / root.value) * width;
    if (wide < 0.5) return;
    rows = Math.max(rows, depth + 1);
    boxes.push([node, x, depth, wide]);
    let at = x;
    for (const next of [...node.below.values()].sort((a, b) => b.value - a.value)) {
      walk(next, at, depth + 1);
      at += (next.value / root.value) * width;
    }
  };
  walk(root, 0, 0);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${rows * ROW}`, role: "img", "aria-label": "flame graph" });
  for (const [node, x, depth, wide] of boxes) {
    const box = svg("rect", { x, y: depth * ROW, width: wide, height: ROW, fill: `hsl(${hue(node.name)} 80% 68%)` });
    const title = svg("title", {});
    title.textContent = `${node.name}\n${amount(node.value)}, ${((100 * node.value) / root.value).toFixed(1)} %`;
    box.append(title);
    box.addEventListener("click", () => draw(node === root && node.whole ? node.whole : Object.assign(node, { whole: node.whole ?? root.whole ?? root }), amount));
    picture.append(box);
    if (wide > 30) {
      const text = svg("text", { x: x + 4, y: depth * ROW + 13 });
      const room = Math.floor((wide - 8) / 6.4);
      text.textContent = node.name.length > room ? `${node.name.slice(0, Math.max(0, room - 1))}…` : node.name;
      picture.append(text);
    }
  }
  element("graph").replaceChildren(picture);
};

const bytes = (value) => sized(value, "B");
const nanoseconds = (value) => seconds(value / 1e9);
const GRAPHS = {
  cpu: { path: (s) => `/debug/pprof/profile?seconds=${s}&format=folded`, amount: nanoseconds, takes: true, empty: "no CPU was used" },
  spans: { path: (s) => `/debug/profile?seconds=${s}&format=folded`, amount: nanoseconds, takes: true, empty: "no span ran" },
  heap: { path: () => "/debug/pprof/heap?format=folded", amount: bytes, empty: "nothing was sampled yet" },
  allocs: { path: (s) => `/debug/pprof/allocs?seconds=${s}&format=folded`, amount: bytes, takes: true, empty: "no allocation was sampled" },
};
const buttons = [...document.querySelectorAll("button[data-graph]")];
const graph = async (button) => {
  const { path, amount, takes, empty } = GRAPHS[button.dataset.graph];
  const over = element("seconds").value;
  buttons.forEach((one) => { one.disabled = true; });
  element("progress").textContent = takes ? `${button.textContent}: taken over ${over} s …` : `${button.textContent} …`;
  try {
    const root = tree(await (await get(path(over))).text());
    element("graph").replaceChildren();
    if (root.value > 0) draw(root, amount);
    const done = takes ? ` over ${over} s` : "";
    element("progress").textContent = root.value > 0 ? `${button.textContent}${done}: ${amount(root.value)} in all. A click shows a part alone, a click on its top row everything.` : `${button.textContent}: ${empty}.`;
  } catch (error) {
    element("progress").textContent = `${button.textContent}: ${error.message}`;
  }
  buttons.forEach((one) => { one.disabled = false; });
};
buttons.forEach((button) => button.addEventListener("click", () => graph(button)));

element("measure").addEventListener("click", async ({ currentTarget: button }) => {
  button.disabled = true;
  try {
    const { spans } = await (await get("/debug/profile?seconds=2&sort=tottime&limit=12&format=json")).json();
    fill(element("top"), [["span"], ["calls", true], ["own", true], ["busy", true], ["wall", true], ["waiting", true], ["cancelled", true]],
      spans.map((s) => [s.name, String(s.ncalls), seconds(s.tottime), seconds(s.busycum), seconds(s.cumtime), seconds(s.await), String(s.cancelled)]), "no span ran");
  } catch (error) {
    fill(element("top"), [[""]], [], error.message);
  }
  button.disabled = false;
});
poll();
