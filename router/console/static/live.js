// The live page: messages of /api/v1/stream become rows, newest first. Text is only ever set as text.
"use strict";
const MOST = 200; // rows
const body = document.getElementById("events");
const state = document.getElementById("state");
const button = document.getElementById("pause");
const rows = new Map(); // sequence number -> row
let paused = false;
let missed = 0;

function cell(row, text, kind) {
  const made = row.insertCell();
  made.textContent = text ?? "";
  if (kind) made.className = kind;
  return made;
}

function accepted(message) {
  const row = body.insertRow(0);
  cell(row, message.seq, "n");
  const link = document.createElement("a");
  link.href = "/events/" + encodeURIComponent("#" + message.seq);
  link.textContent = message.id ?? "erased";
  cell(row, "").append(link);
  cell(row, message.name);
  cell(row, message.source);
  const time = document.createElement("time");
  time.textContent = message.received?.slice(11, 23) ?? "";
  cell(row, "").append(time);
  row.deliveries = cell(row, "");
  rows.set(message.seq, row);
  if (rows.size > MOST) {
    const [oldest] = rows.keys();
    rows.get(oldest).remove();
    rows.delete(oldest);
  }
}

function delivery(message) {
  const place = rows.get(message.seq)?.deliveries;
  if (!place) return;
  let chip = [...place.children].find((each) => each.dataset.to === message.to);
  if (!chip) {
    chip = document.createElement("span");
    chip.dataset.to = message.to;
    place.append(chip, " ");
  }
  chip.className = message.state;
  chip.textContent = message.to + " " + message.state;
  chip.title = message.reason ?? "";
}

function say() {
  button.textContent = paused ? "Go on" : "Pause";
  button.setAttribute("aria-pressed", String(paused));
  if (paused) state.textContent = missed + " new";
}

const stream = new EventSource("/api/v1/stream");
stream.addEventListener("open", () => { if (!paused) state.textContent = "live"; });
stream.addEventListener("error", () => {
  // What is answered with anything but a stream is not asked for again.
  const over = stream.readyState === EventSource.CLOSED;
  state.textContent = over ? "ended by the server: reload this page" : "no connection, trying again";
});
stream.addEventListener("accepted", (event) => {
  if (paused) { missed += 1; say(); } else accepted(JSON.parse(event.data));
});
stream.addEventListener("delivery", (event) => delivery(JSON.parse(event.data)));
stream.addEventListener("gap", () => { if (!paused) state.textContent = "live; some came too fast to be shown"; });
button.addEventListener("click", () => {
  paused = !paused;
  missed = 0;
  state.textContent = "live";
  say();
});
