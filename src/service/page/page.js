// The live page: what the server sends becomes text, never markup.
"use strict";

const MAX_ROWS = 200;
const SECONDS = 60;

const $ = (id) => document.getElementById(id);

/** An element with text, attributes and children. */
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") element.textContent = value;
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Replaces an element's text only where it differs, so that screen readers are not told the same again. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

let state = null;
let paused = false;
let waiting = [];
let lost = 0;
let notShown = 0;

// ---- Charts

/** The last minute of one source or route. */
class Series {
  constructor(name) {
    this.name = name;
    this.points = [];
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("class", "spark");
    this.chart.setAttribute("viewBox", `0 0 ${SECONDS * 2} 24`);
    this.chart.setAttribute("preserveAspectRatio", "none");
    this.chart.setAttribute("role", "img");
    this.cells = {};
    for (const name of ["rate", "p50", "p99", "accepted", "refused", "failed"]) {
      this.cells[name] = make("td", { class: "number", text: "–" });
    }
    this.draw();
  }

  add(rate) {
    this.points.push(rate);
    if (this.points.length > SECONDS) this.points.shift();
    this.draw();
  }

  draw() {
    const total = (point) => point.accepted + point.refused + point.failed;
    const most = Math.max(1, ...this.points.map(total));
    const shapes = [];
    const shape = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      shapes.push(element);
    };
    shape("line", { class: "base", x1: 0, y1: 23.5, x2: SECONDS * 2, y2: 23.5 });
    const start = SECONDS - this.points.length;
    this.points.forEach((point, index) => {
      let bottom = 23;
      for (const name of ["accepted", "refused", "failed"]) {
        if (point[name] === 0) continue;
        const height = Math.max(1, (point[name] / most) * 22);
        bottom -= height;
        shape("rect", { class: name, x: (start + index) * 2, y: bottom, width: 1.6, height });
      }
    });
    this.chart.replaceChildren(...shapes);
    const last = this.points.at(-1);
    const sum = (name) => this.points.reduce((all, point) => all + point[name], 0);
    const now = last ? total(last) : 0;
    this.chart.setAttribute("aria-label", `${this.name}: ${now} per second now, at most ${this.points.length ? most : 0} in the last minute`);
    say(this.cells.rate, String(now));
    // Of the last second that had any.
    const timed = this.points.findLast((point) => point.p50 !== null);
    say(this.cells.p50, timed ? milliseconds(timed.p50) : "–");
    say(this.cells.p99, timed ? milliseconds(timed.p99) : "–");
    for (const name of ["accepted", "refused", "failed"]) {
      const count = sum(name);
      say(this.cells[name], String(count));
      if (name !== "accepted") this.cells[name].classList.toggle(name === "failed" ? "bad" : "warn", count > 0);
    }
  }
}

function milliseconds(value) {
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

const sources = new Map();
const routes = new Map();

function seriesOf(map, key, name) {
  if (!map.has(key)) map.set(key, new Series(name));
  return map.get(key);
}

const QUIET = { accepted: 0, refused: 0, failed: 0, p50: null, p99: null };

function onRates(rates) {
  say($("in-flight"), String(rates.in_flight));
  for (const [name, rate] of Object.entries(rates.sources)) {
    if (!sources.has(name)) {
      seriesOf(sources, name, name || "no source");
      if (state) showSources();
    }
    sources.get(name).add(rate);
  }
  for (const [name, series] of sources) if (!(name in rates.sources)) series.add(QUIET);
  for (const [key, series] of routes) series.add(rates.routes[key] ?? QUIET);
  for (const broker of rates.brokers) {
    const cell = queues.get(broker.name);
    if (cell) say(cell, String(broker.queue));
  }
  notShown += rates.not_shown;
  showLost();
}

// ---- Tables

const queues = new Map();

function onState(next) {
  state = next;
  say($("version"), `${state.version} (${state.commit})`);
  const ready = $("ready");
  say(ready, state.draining ? "shutting down" : state.ready ? "ready" : "not ready");
  ready.className = `badge ${state.ready && !state.draining ? "good" : "bad"}`;
  $("missing").hidden = state.missing.length === 0;
  $("missing").replaceChildren(...state.missing.map((text) => make("li", { text })));
  showSources();
  showBrokers();
  showRoutes();
}

function showSources() {
  const rows = state.sources.map((source) => {
    const series = seriesOf(sources, source.name, source.name);
    return sourceRow(source.name, source.provider, source.path, series);
  });
  for (const [name, series] of sources) {
    if (name === "") rows.push(sourceRow("no source", "–", "no source has the path", series));
    else if (!state.sources.some((source) => source.name === name)) sources.delete(name);
  }
  $("sources").replaceChildren(...rows);
}

function sourceRow(name, provider, path, { chart, cells }) {
  return make("tr", {},
    make("th", { scope: "row", text: name, title: path }), make("td", { text: provider }), make("td", {}, chart),
    cells.rate, cells.p50, cells.p99, cells.accepted, cells.refused, cells.failed);
}

const HEALTH = { up: "good", refusing: "warn", starting: "warn", down: "bad" };

function showBrokers() {
  queues.clear();
  $("brokers").replaceChildren(...state.brokers.map((broker) => {
    const queue = make("td", { class: "number", text: "–" });
    queues.set(broker.name, queue);
    const health = make("td", { class: HEALTH[broker.health], text: broker.health });
    if (broker.why) health.append(make("div", { class: "hint", text: broker.why }));
    return make("tr", {},
      make("th", { scope: "row", text: broker.name }), make("td", { text: broker.kind }),
      make("td", { class: "code", text: broker.address }), health, queue);
  }));
  const classes = { yes: "good", no: "bad", unusable: "bad", unknown: "warn" };
  $("destinations").replaceChildren(...state.destinations.map((destination) => {
    const durable = make("td", { class: classes[destination.durable], text: destination.durable });
    for (const why of destination.why) durable.append(make("div", { class: "hint", text: why }));
    return make("tr", {},
      make("td", { text: destination.broker }),
      make("th", { scope: "row", class: "code", text: destination.destination }), durable);
  }));
}

function showRoutes() {
  const numbers = new Set(state.routes.map((route) => String(route.number)));
  for (const key of routes.keys()) if (!numbers.has(key)) routes.delete(key);
  $("routes").replaceChildren(...state.routes.map((route) => {
    const { chart, cells } = seriesOf(routes, String(route.number), `route ${route.number}`);
    const to = make("td", { class: "code" });
    if (route.destinations.length === 0) to.textContent = "nowhere: answered 200 and dropped";
    for (const { role, broker, topic } of route.destinations) {
      to.append(make("div", { text: `${role === "to" ? "" : `${role} `}${broker}: ${topic}` }));
    }
    return make("tr", {},
      make("th", { scope: "row", class: "number", text: String(route.number) }),
      make("td", { text: route.sources.join(", ") }),
      make("td", { class: "code", text: route.types.join(" ") }), to,
      make("td", {}, chart), cells.rate, cells.p50, cells.p99);
  }));
}

// ---- Events

/** Newest first: the event, its row and the text that the filter searches. */
let events = [];

function position(message) {
  if (message.offset !== null) return `[${message.partition}]@${message.offset}`;
  if (message.sequence !== null) return `${message.stream}@${message.sequence}`;
  return message.result === "stored" ? "" : message.result.replace("_", " ");
}

function clock(at) {
  const date = new Date(at);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

const CLASSES = { accepted: "good", refused: "warn", failed: "bad" };

function rowOf(event) {
  const time = clock(event.at);
  const open = make("button", { type: "button", class: "open", text: time, "aria-label": `${time}: show ${event.outcome} ${event.type ?? "request"}`, "aria-haspopup": "dialog" });
  const outcome = make("td", { class: CLASSES[event.class], text: event.outcome });
  if (event.answer) outcome.append(make("div", { class: "hint", text: `answered ${event.answer}` }));
  const where = make("td", { class: "code" });
  for (const message of event.messages) {
    where.append(make("div", { text: `${message.broker}: ${message.topic} ${position(message)}` }));
  }
  if (event.class !== "accepted") {
    const fault = event.faults.find(({ pointer }) => pointer !== "");
    const text = fault === undefined ? event.detail : `${fault.pointer}: ${fault.reason}`;
    where.append(make("div", { class: "hint", text }));
  }
  const row = make("tr", { class: "new" },
    make("th", { scope: "row" }, open), make("td", { text: event.source ?? "–" }), outcome,
    make("td", { class: "code", text: event.type ?? "–" }), make("td", { class: "code", text: event.event_id ?? "–" }),
    where, make("td", { class: "number", text: event.duration_ms.toFixed(1) }));
  open.addEventListener("click", () => show(event));
  return row;
}

function onEvent(event) {
  if (paused) {
    waiting.push(event);
    if (waiting.length > MAX_ROWS) {
      waiting.shift();
      lost += 1;
      showLost();
    }
    showCounts();
    return;
  }
  add(event);
}

function add(event) {
  const row = rowOf(event);
  const text = [event.source, event.outcome, event.type, event.event_id, event.detail, event.request_id, event.client,
    ...event.faults.flatMap(({ pointer, reason }) => [pointer, reason]),
    ...event.messages.flatMap((message) => [message.broker, message.topic])].join("\n").toLowerCase();
  const item = { event, row, text };
  events.unshift(item);
  row.hidden = !matches(text);
  $("rows").prepend(row);
  while (events.length > MAX_ROWS) events.pop().row.remove();
  showCounts();
}

function words() {
  return $("filter").value.toLowerCase().split(/\s+/).filter((word) => word !== "" && word !== "-");
}

function matches(text) {
  return words().every((word) => word.startsWith("-") ? !text.includes(word.slice(1)) : text.includes(word));
}

function filter() {
  for (const item of events) item.row.hidden = !matches(item.text);
  showCounts();
}

function showCounts() {
  const visible = events.filter((item) => !item.row.hidden).length;
  $("empty").hidden = events.length > 0;
  const filtered = words().length > 0 ? `${visible} of ${events.length} shown` : `${events.length} shown`;
  say($("shown"), paused ? `${filtered}; ${waiting.length} are waiting` : filtered);
}

function showLost() {
  $("lost").hidden = lost + notShown === 0;
  const parts = [];
  if (notShown > 0) parts.push(`${notShown} events came too fast to be shown; the figures count them`);
  if (lost > 0) parts.push(`${lost} events were lost, because this page was paused or did not keep up`);
  say($("lost"), parts.join("; "));
}

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) {
    waiting.forEach(add);
    waiting = [];
  }
  showCounts();
}

function clear() {
  events = [];
  waiting = [];
  lost = 0;
  notShown = 0;
  $("rows").replaceChildren();
  showCounts();
  showLost();
}

function move(step) {
  const visible = events.filter((item) => !item.row.hidden);
  if (visible.length === 0) return;
  const now = visible.findIndex((item) => item.row.contains(document.activeElement));
  const next = now === -1 ? 0 : Math.min(visible.length - 1, Math.max(0, now + step));
  visible[next].row.querySelector("button").focus();
}

// ---- One event

let shown = null;

function show(event) {
  shown = event;
  say($("detail-title"), `${event.outcome} ${event.type ?? ""}`);
  const list = make("dl");
  const pair = (name, value) => {
    if (value !== null && value !== undefined) list.append(make("dt", { text: name }), make("dd", { text: String(value) }));
  };
  pair("Time", new Date(event.at).toISOString());
  pair("Source", event.source);
  pair("Event id", event.event_id);
  pair("Type", event.type);
  pair("Request id", event.request_id);
  pair("Client", event.client);
  pair("Route", event.route);
  pair("Duration", `${event.duration_ms.toFixed(3)} ms`);
  pair("Answered", event.answer);
  pair("Reason", event.detail);
  const parts = [list];
  if (event.faults.length > 0) {
    parts.push(table("Faults", ["JSON Pointer", "Reason"], event.faults.map((fault) => [fault.pointer || "(the event)", fault.reason])));
  }
  if (event.messages.length > 0) {
    parts.push(table("Messages", ["Broker", "Topic or subject", "Position", "Result"], event.messages.map((message) =>
      [message.broker, message.topic, position(message), [message.result.replace("_", " "), message.reason].filter(Boolean).join(": ")])));
  }
  if (event.headers.length > 0) parts.push(table("Headers of the message", ["Name", "Value"], event.headers));
  parts.push(make("h3", { text: "Body" }));
  parts.push(event.body === null ? make("p", { class: "hint", text: event.body_note }) : make("pre", { tabindex: "0", text: event.body }));
  $("detail-content").replaceChildren(...parts);
  $("curl").value = curl(event);
  const provider = state?.sources.find((source) => source.name === event.source)?.provider;
  say($("curl-hint"), `It is not signed, and secrets in it are masked. \`hookbridge send --provider ${provider ?? "NAME"} --url URL FILE\` signs a body.`);
  say($("copied"), "");
  if (!$("detail").open) $("detail").showModal();
}

function table(title, names, rows) {
  return make("div", {}, make("h3", { text: title }), make("table", { "aria-label": title },
    make("thead", {}, make("tr", {}, ...names.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", { class: "code", text: text ?? "" })))))));
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(event) {
  const source = state?.sources.find((source) => source.name === event.source);
  const url = `${state?.public_scheme ?? "http"}://${publicHost()}${source?.path ?? "/"}`;
  const type = event.headers.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "application/json";
  const body = event.body === null ? "--data-binary @event.json" : `--data-raw ${quoted(event.body)}`;
  return `curl -i ${quoted(url)} -H ${quoted(`Content-Type: ${type}`)} ${body}`;
}

/** Where the public listener is, as far as this browser's machine can know. */
function publicHost() {
  const listen = state?.public_listen ?? "localhost:8080";
  const port = listen.slice(listen.lastIndexOf(":") + 1);
  const host = listen.slice(0, listen.lastIndexOf(":"));
  return host === "0.0.0.0" || host === "[::]" ? `${location.hostname}:${port}` : listen;
}

async function copy(event) {
  const text = curl(event);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS a browser lends its clipboard to loopback addresses alone.
    if (!$("detail").open) show(event);
    $("curl").focus();
    $("curl").select();
    say($("copied"), "Press Ctrl+C to copy.");
    return;
  }
  say($("copied"), "Copied.");
  say($("shown"), "Copied as curl.");
}

// ---- Keys

function onKey(key) {
  if (key.ctrlKey || key.metaKey || key.altKey) return;
  const target = key.target;
  if (target === $("filter")) {
    if (key.key === "Escape") {
      $("filter").value = "";
      filter();
      target.blur();
    }
    return;
  }
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLInputElement) return;
  if ($("detail").open) {
    if (key.key === "c" && shown) copy(shown);
    return;
  }
  if ($("help").open) return;
  const focused = () => events.find((item) => item.row.contains(document.activeElement))?.event;
  const actions = {
    "/": () => $("filter").focus(),
    "?": () => $("help").showModal(),
    p: pause,
    x: clear,
    j: () => move(1),
    k: () => move(-1),
    c: () => { const event = focused(); if (event) copy(event); },
  };
  const action = actions[key.key];
  if (action) {
    key.preventDefault();
    action();
  }
}

// ---- The stream

function connected(text, kind) {
  const badge = $("connection");
  say(badge, text);
  badge.className = `badge ${kind}`;
}

function connect() {
  const stream = new EventSource("stream");
  const on = (name, handle) => stream.addEventListener(name, (message) => handle(JSON.parse(message.data)));
  stream.addEventListener("open", () => connected("live", "good"));
  on("state", onState);
  on("rates", onRates);
  on("event", onEvent);
  on("lost", ({ count }) => {
    lost += count;
    showLost();
  });
  stream.addEventListener("error", async () => {
    if (stream.readyState !== EventSource.CLOSED) {
      connected("connecting again", "warn");
      return;
    }
    // The browser gives up where the answer is not a stream, and does not say which answer it was.
    const answer = await fetch("stream", { method: "HEAD" }).catch(() => null);
    if (answer?.status === 401 || answer?.status === 403) {
      connected("signed out: load the page again", "bad");
      return;
    }
    connected(answer?.status === 503 ? "too many pages are open; waiting" : "connecting again", "warn");
    setTimeout(connect, 5000);
  });
}

$("filter").addEventListener("input", filter);
$("pause").addEventListener("click", pause);
$("clear").addEventListener("click", clear);
$("copy").addEventListener("click", () => copy(shown));
$("close-detail").addEventListener("click", () => $("detail").close());
$("show-help").addEventListener("click", () => $("help").showModal());
$("close-help").addEventListener("click", () => $("help").close());
document.addEventListener("keydown", onKey);
showCounts();
connect();
