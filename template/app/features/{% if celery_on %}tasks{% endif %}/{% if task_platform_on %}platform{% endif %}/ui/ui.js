"use strict";
// Live updates; everything else works without this file.

const main = document.getElementById("main");
let live = document.getElementById("live");

function duration(seconds) {
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function age() {
  for (const one of document.querySelectorAll("[data-since]")) {
    const seconds = (Date.now() - Date.parse(one.dataset.since)) / 1000;
    one.textContent = Math.abs(seconds) < 1 ? "now" : seconds >= 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
  }
}

// Somebody who reads, selects or answers a question must not lose the place.
function isBusy() {
  return live.querySelector("details[open]") !== null || !document.getSelection().isCollapsed;
}

let asked = 0;
let timer;

async function refresh() {
  const own = ++asked;
  let response;
  try {
    response = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return tryAgain("The server does not answer; trying again.");
  }
  if (response.redirected || response.status === 401) {
    pause();
    return say("The login has ended. Reload the page to log in again.");
  }
  if (!response.ok) return tryAgain(`The server answers with ${response.status}; trying again.`);
  const next = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("live");
  // An older answer must not replace a newer one.
  if (!next || own !== asked) return undefined;
  if (isBusy()) {
    if (!timer) setTimeout(refresh, 2000);
    return undefined;
  }
  const focused = document.activeElement;
  const place = focusable(live).indexOf(focused);
  live.replaceWith(next);
  live = next;
  if (place >= 0) {
    const all = focusable(live);
    const isSame = (one) => (focused.id ? one.id === focused.id : focused.href && one.href === focused.href);
    (all.find(isSame) || all[place] || main).focus({ preventScroll: true });
  }
  return say("");
}

function tryAgain(text) {
  if (!timer) setTimeout(refresh, 5000);
  return say(text);
}

function focusable(root) {
  return [...root.querySelectorAll("a, button, input, summary, [tabindex]")];
}

const report = document.createElement("span");
report.className = "unseen";
report.setAttribute("role", "status");

function say(text) {
  if (report.textContent !== text) report.textContent = text;
  report.className = text ? "problem" : "unseen";
}

function pause() {
  clearInterval(timer);
  timer = undefined;
}

function repeat(seconds) {
  const button = document.createElement("button");
  button.className = "live quiet";
  button.type = "button";
  button.textContent = "Live";
  const start = () => {
    timer = setInterval(() => document.visibilityState === "visible" && !isBusy() && refresh(), seconds * 1000);
  };
  button.addEventListener("click", () => {
    if (timer) pause();
    else {
      start();
      refresh();
    }
    button.setAttribute("aria-pressed", String(Boolean(timer)));
  });
  start();
  button.setAttribute("aria-pressed", "true");
  main.prepend(button, report);
}

function follow(path) {
  const source = new EventSource(path);
  let state = live.dataset.state;
  const show = (event) => {
    const task = JSON.parse(event.data);
    const now = `${task.state} ${task.attempt}`;
    const bar = live.querySelector("[data-progress]");
    const text = live.querySelector("[data-progress-text]");
    const value = task.progress && task.progress.value;
    const isKnown = value && typeof value === "object" && typeof value.done === "number";
    if (now === state && (!isKnown || (text && (bar ? bar.max === value.total : !value.total)))) {
      if (!isKnown) return;
      if (bar) bar.value = Math.min(value.done, value.total);
      text.textContent = `${value.done}${value.total ? ` of ${value.total}` : ""}${value.message ? ` · ${value.message}` : ""}`;
      return;
    }
    state = now;
    refresh();
  };
  source.addEventListener("state", show);
  source.addEventListener("progress", show);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED && live.dataset.events) say("Live updates have stopped; reload the page.");
  });
  main.prepend(report);
}

setInterval(age, 5000);
if (live && live.dataset.events) follow(live.dataset.events);
if (live && live.dataset.refresh) repeat(Number(live.dataset.refresh));
