"use strict";
// Makes a row of the form, asks for its prediction and its explanation, and shows both.

const form = document.getElementById("row");
const byId = (id) => document.getElementById(id);
const model = document.body.dataset.model;
const isShare = document.body.dataset.task !== "regression";
const SVG = "http://www.w3.org/2000/svg";

form.addEventListener("submit", (event) => {
  event.preventDefault();
  predict();
});
form.addEventListener("reset", () => setTimeout(() => {
  clearProblems();
  refresh();
}));
form.addEventListener("input", refresh);
byId("copy").addEventListener("click", copyCall);
refresh();

// What the form says now: the row, and what is wrong with inputs that hold no value at all.
function readRow() {
  const row = {}, problems = [];
  for (const input of form.querySelectorAll("[data-kind]")) {
    const name = input.name, kind = input.dataset.kind;
    if (isUnknown(name)) row[name] = null;
    else if (kind === "string") row[name] = input.value;
    else if (input.value === "") problems.push({ field: name, message: emptyMessage(input) });
    else if (kind === "timestamp") row[name] = moment(input.value);
    else row[name] = exactNumber(input.value);
  }
  return { row, problems };
}

function emptyMessage(input) {
  if (input.validity.badInput) return "this is no value; write it in full";
  return input.dataset.kind === "timestamp" ? "write a date and a time" : "write a number";
}

// Whole numbers beyond 2^53 lose digits as a JavaScript number: those are sent as they are written.
function exactNumber(text) {
  const number = Number(text);
  if (Number.isSafeInteger(number) || !/^-?\d+$/.test(text.trim())) return number;
  return { exactly: text.trim() };
}

function moment(local) {
  return (local.length === 16 ? local + ":00" : local) + "Z";
}

function isUnknown(name) {
  const box = form.querySelector(`[data-unknown="${CSS.escape(name)}"]`);
  return box !== null && box.checked;
}

function bodyOf(row) {
  const parts = Object.entries(row).map(([name, value]) => {
    const text = value !== null && value.exactly ? value.exactly : JSON.stringify(value);
    return `${JSON.stringify(name)}: ${text}`;
  });
  return `{"instances": [{${parts.join(", ")}}], "model": ${JSON.stringify(model)}}`;
}

// Keeps the call and the inputs of unknown entities in step with the form.
function refresh() {
  for (const box of form.querySelectorAll("[data-unknown]")) {
    form.elements[box.dataset.unknown].disabled = box.checked;
  }
  const body = bodyOf(readRow().row).replaceAll("'", "'\\''");
  byId("curl").textContent =
    `curl -s ${location.origin}/api/v1/infer \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
  byId("copied").textContent = "";
}

async function predict() {
  clearProblems();
  const { row, problems } = readRow();
  if (problems.length) return showProblems("some fields have no value", problems);
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const body = bodyOf(row);
    const answer = await ask("/api/v1/infer", body);
    if (answer === null) return;
    showPrediction(answer);
    byId("why").textContent = "";
    byId("picture").replaceChildren();
    const told = await ask("/api/v1/explain", body);
    if (told !== null) showExplanation(told);
  } finally {
    button.disabled = false;
  }
}

// The decoded answer; null where there is none, which is then told on the page.
async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body,
    });
  } catch (error) {
    showProblems(`the server does not answer: ${error.message}`, []);
    return null;
  }
  let content;
  try {
    content = await response.json();
  } catch {
    content = { error: `status ${response.status}, and no JSON in the answer` };
  }
  if (response.ok) return content;
  showProblems(content.error, content.problems ?? []);
  return null;
}

function clearProblems() {
  byId("failure").hidden = true;
  for (const told of form.querySelectorAll(".problem")) told.hidden = true;
  for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

// Each problem stands beside the field it names; what names no field of the form stands above.
function showProblems(error, problems) {
  let first = null;
  for (const { field, message } of problems) {
    const told = field && byId(`p-${field}`);
    if (!told) continue;
    told.textContent = message.replace(/^row 0:? /, "");
    told.hidden = false;
    const input = form.elements[field];
    input.setAttribute("aria-invalid", "true");
    first = first ?? input;
  }
  byId("hint").hidden = true;
  byId("result").hidden = true;
  byId("failure").textContent = first ? "The row is refused: see the marked fields." : error;
  byId("failure").hidden = false;
  if (first) first.focus();
}

function showPrediction(answer) {
  const [row] = answer.predictions;
  byId("hint").hidden = true;
  byId("result").hidden = false;
  byId("prediction").textContent = isShare ? percent(row.prediction) : number(row.prediction);
  byId("prediction").title = String(row.prediction);
  document.querySelector(".meter").hidden = !isShare;
  byId("share").style.width = `${100 * Math.min(1, Math.max(0, row.prediction))}%`;
  byId("statuses").replaceChildren(...Object.entries(row.features).map(([view, status]) => {
    const item = document.createElement("li");
    item.textContent = `${view}: ${status.replaceAll("_", " ")}`;
    if (status !== "present") item.className = "missing";
    return item;
  }));
}

function showExplanation(told) {
  const [row] = told.explanations;
  const unit = { log_odds: "log odds", log: "logarithm", value: "", margin: "margin" }[told.scale];
  byId("why").textContent =
    `What is known of the row moves the model from ${number(row.base)} to ${number(row.margin)}` +
    (unit ? ` in ${unit}` : "") + (isShare ? `, which is ${percent(row.prediction)}.` : ".");
  byId("picture").replaceChildren(picture(row));
}

const MOST_BARS = 12;

// Bars from the base to the margin, the largest contribution first; the small rest is one bar.
function picture(row) {
  const all = Object.entries(row.contributions)
    .map(([name, by]) => ({ name: label(name, row.values[name]), by }))
    .sort((a, b) => Math.abs(b.by) - Math.abs(a.by));
  const bars = all.slice(0, MOST_BARS);
  const rest = all.slice(MOST_BARS);
  if (rest.length) {
    bars.push({ name: `${rest.length} others`, by: rest.reduce((sum, { by }) => sum + by, 0) });
  }
  const narrow = byId("answer").clientWidth < 480;
  const width = narrow ? 360 : 640, height = 26, left = narrow ? 0 : 250, right = width - 64;
  const line = narrow ? 2 * height - 8 : height;  // on a phone the name stands above its bar
  let at = row.base, low = at, high = at;
  for (const { by } of bars) {
    at += by;
    low = Math.min(low, at);
    high = Math.max(high, at);
  }
  const x = (value) => left + ((right - left) * (value - low)) / (high - low || 1);
  const total = line * bars.length + 2 * height;
  const svg = node("svg", { viewBox: `0 0 ${width} ${total}`, role: "img" });
  svg.append(node("title", {}, `Contributions: ${bars.map(barText).join("; ")}`));
  svg.append(node("line", { x1: x(row.base), x2: x(row.base), y1: height - 6, y2: total - height }));
  svg.append(text(x(row.base), 14, `base ${number(row.base)}`, "soft", anchor(x(row.base), width)));
  at = row.base;
  bars.forEach(({ name, by }, place) => {
    const top = height + line * place, y = narrow ? top + 18 : top + 4;
    const from = x(at), to = x(at + by);
    svg.append(text(narrow ? 0 : left - 10, top + (narrow ? 12 : 18), name, "", narrow ? "start" : "end"));
    svg.append(node("rect", {
      x: Math.min(from, to), y, width: Math.max(1, Math.abs(to - from)), height: height - 10, rx: 2,
      class: by < 0 ? "down" : "up",
    }));
    svg.append(text(Math.max(from, to) + 6, y + 12, signed(by), "soft", "start"));
    at += by;
  });
  svg.append(node("line", { x1: x(at), x2: x(at), y1: total - height - 4, y2: total - height + 6 }));
  svg.append(text(x(at), total - 6, `this row ${number(at)}`, "", anchor(x(at), width)));
  return svg;
}

function label(name, value) {
  const shown = `${name} = ${value === null ? "missing" : number(value)}`;
  return shown.length > 36 ? `${shown.slice(0, 16)}…${shown.slice(-19)}` : shown;
}

const barText = ({ name, by }) => `${name} ${signed(by)}`;

function anchor(x, width) {
  return x < 60 ? "start" : x > width - 60 ? "end" : "middle";
}

function text(x, y, content, kind, anchored) {
  return node("text", { x, y, class: kind, "text-anchor": anchored }, content);
}

function node(name, attributes, content) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  return made;
}

function number(value) {
  const shown = Number(value.toPrecision(4));
  return shown.toLocaleString("en-US", { maximumSignificantDigits: 4 }).replace("-", "−");
}

function signed(value) {
  return (value < 0 ? "−" : "+") + number(Math.abs(value));
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

async function copyCall() {
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
    byId("copied").textContent = "copied";
  } catch {  // no clipboard without HTTPS: mark it, so that the keyboard can
    getSelection().selectAllChildren(byId("curl"));
    byId("copied").textContent = "marked; copy it with Ctrl+C";
  }
}
