// The browser's own script. Pages come from the server whole; this swaps <main>, and listens to keys and drags.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// ---- Pages

let visiting = 0;

async function visit(url, { push = true, scroll = true } = {}) {
  const number = ++visiting;
  $("main").classList.add("waiting");
  const answer = await fetch(url).catch(() => null);
  if (number !== visiting) return;
  if (!answer || !answer.ok) {
    location.href = url;
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (number !== visiting) return;
  if (push) history.pushState(null, "", answer.redirected ? answer.url : url);
  document.title = page.title;
  $("main").replaceWith(page.querySelector("main"));
  $("nav.sections").replaceWith(page.querySelector("nav.sections"));
  if (scroll) scrollTo(0, 0);
  begin();
}

const address = (path, parameters) => path + (String(parameters) ? "?" + parameters : "");

function ofForm(form) {
  const parameters = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) parameters.append(name, value);
  return address(form.getAttribute("action"), parameters);
}

async function post(url, body) {
  const answer = await fetch(url, { method: "POST", body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

function say(text, action) {
  $(".news")?.remove();
  const news = document.createElement("button");
  news.className = "news";
  news.type = "button";
  news.setAttribute("role", "status");
  news.textContent = text;
  news.onclick = () => { news.remove(); action?.(); };
  document.body.append(news);
  if (!action) setTimeout(() => news.remove(), 6000);
}

// ---- How pairs are shown

function showGrid(look) {
  const grid = $("#grid");
  if (!grid) return;
  grid.classList.remove("look-overlay", "look-blink");
  if (look !== "side") grid.classList.add("look-" + look);
  for (const image of $$("img.edited", grid)) {
    image.dataset.edited ||= image.src;
    image.src = look === "overlay" ? image.dataset.edited.replace("/edited?", "/overlay?") : image.dataset.edited;
  }
  for (const button of $$("[data-look]")) button.setAttribute("aria-pressed", button.dataset.look === look);
  sessionStorage.look = look;
}

let blinking = 0;

function showStage(look) {
  const stage = $(".stage");
  if (!stage) return;
  clearInterval(blinking);
  stage.dataset.look = look;
  for (const image of $$(".third." + look + " img", stage)) image.src ||= image.dataset.src;
  for (const button of $$("[data-stage]")) button.setAttribute("aria-pressed", button.dataset.stage === look);
  const edited = $(".edited", stage);
  edited?.classList.remove("off");
  if (edited) edited.style.clipPath = "";
  if (look === "blink") blinking = setInterval(() => edited?.classList.toggle("off"), 700);
  if (look === "slider") slide();
  sessionStorage.stage = look;
}

function slide() {
  const stage = $(".stage"), edited = $(".edited", stage), range = $("input[type=range]", stage);
  if (!edited || !range) return;
  const at = range.value, box = edited.getBoundingClientRect(), outer = stage.getBoundingClientRect();
  edited.style.clipPath = `inset(0 0 0 ${at}%)`;
  range.style.width = box.width + "px"; // its thumb is where the images meet
  $(".divider", stage).style.left = box.left - outer.left + (box.width * at) / 100 + "px";
}

function swap() {
  const stage = $(".stage");
  if (!stage) return;
  if (stage.dataset.look !== "blink") showStage("blink");
  clearInterval(blinking);
  $(".edited", stage)?.classList.toggle("off");
}

// ---- Labels

let saving = Promise.resolve();

function label(verdict, reason = "") {
  const pair = current();
  if (!pair) return;
  const key = pair.dataset.pair, labelling = "labelling" in pair.dataset;
  saving = saving
    .then(() => post("/label", { key, verdict, reason }))
    .then(({ labelled }) => {
      if (labelling) {
        const parameters = new URLSearchParams(location.search);
        parameters.delete("key");
        return visit(address("/label", parameters), { push: false, scroll: false });
      }
      if (pair.matches(".look")) return visit(location.href, { push: false, scroll: false });
      mark(pair, verdict, reason);
      say(`${labelled} labelled`);
    })
    .catch((error) => say(error.message));
}

function mark(card, verdict, reason) {
  const line = $(".line", card);
  $(".chip.good, .chip.bad, .chip.unsure", line)?.remove();
  if (!verdict) return;
  const chip = document.createElement("span");
  chip.className = "chip " + verdict;
  chip.textContent = "you: " + verdict + (reason ? ", " + reason.replaceAll("_", " ") : "");
  line.append(chip);
}

function bad() {
  const reasons = $(".bad-reasons");
  if (!reasons) return label("bad");
  reasons.classList.remove("hidden");
  $("button", reasons).focus();
}

function undo() {
  const last = $(".look")?.dataset.last;
  if (!last) return;
  saving = saving
    .then(() => post("/label", { key: last, verdict: "" }))
    .then(() => {
      const parameters = new URLSearchParams(location.search);
      parameters.set("key", last);
      return visit(address("/label", parameters), { push: false, scroll: false });
    })
    .catch((error) => say(error.message));
}

// ---- Bounds

let moved = [], asked = 0, exact = 0;

const name = (m) => m.split(":")[0];

function movedParameters() {
  const parameters = new URLSearchParams();
  for (const m of moved) parameters.append("m", m);
  return parameters;
}

async function whatIf(side, wait = false) {
  const panel = $("#bound"), target = $("#what-if");
  if (!panel || !target) return;
  const parameters = movedParameters();
  parameters.set("score", panel.dataset.score);
  parameters.set("category", panel.dataset.category);
  parameters.set("regime", panel.dataset.regime);
  if (side) parameters.set("side", side);
  if (wait) parameters.set("exact", "1");
  const number = ++asked;
  const answer = await fetch(address("/bounds/what-if", parameters));
  const text = await answer.text();
  if (number < asked) return; // a later one is on its way
  if (answer.ok) target.innerHTML = text;
  else target.textContent = text;
  clearTimeout(exact);
  if (moved.length && !wait) exact = setTimeout(() => whatIf(side, true), 350);
}

let latest = null, busy = false;

// One question at a time: while it is under way only the latest wish is kept.
async function ask(side) {
  latest = side;
  if (busy) return;
  busy = true;
  while (latest !== null) {
    const next = latest;
    latest = null;
    await whatIf(next);
  }
  busy = false;
}

function boundOf(panel) {
  return ["min", "max"].map((side) => $("#" + side, panel)?.value.trim() ?? "");
}

function move(side) {
  const panel = $("#bound");
  const { score, category, regime } = panel.dataset;
  const mine = `${score}@${category}${regime && "/" + regime}`;
  moved = moved.filter((m) => name(m) !== mine);
  moved.push(mine + ":" + boundOf(panel).join(","));
  const parameters = new URLSearchParams(location.search);
  parameters.delete("m");
  for (const m of moved) parameters.append("m", m);
  history.replaceState(null, "", address(location.pathname, parameters));
  ask(side);
}

function place(handle, value) {
  const chart = handle.closest("svg"), [low, high] = [+chart.dataset.low, +chart.dataset.high];
  const box = chart.viewBox.baseVal, x = 8 + ((value - low) / (high - low)) * (box.width - 16);
  const dx = x - +$("line", handle).getAttribute("x1");
  handle.setAttribute("transform", `translate(${dx} 0)`);
  handle.setAttribute("aria-valuenow", value);
  handle.setAttribute("aria-valuetext", String(value));
  handle.dataset.value = value;
  $("text", handle).textContent = (handle.dataset.side === "min" ? "≥ " : "≤ ") + value;
}

function setBound(handle, value) {
  const chart = handle.closest("svg"), [low, high] = [+chart.dataset.low, +chart.dataset.high];
  const input = $("#" + handle.dataset.side);
  value = +Math.min(high, Math.max(low, value)).toPrecision(4);
  place(handle, value);
  input.value = value;
  move(handle.dataset.side);
}

function drag(event) {
  const handle = event.target.closest?.(".handle");
  if (!handle || event.button) return;
  event.preventDefault();
  handle.focus({ preventScroll: true });
  handle.setPointerCapture(event.pointerId);
  const chart = handle.closest("svg"), [low, high] = [+chart.dataset.low, +chart.dataset.high];
  const follow = ({ clientX }) => {
    const box = chart.getBoundingClientRect(), unit = box.width / chart.viewBox.baseVal.width;
    const share = (clientX - box.left - 8 * unit) / (box.width - 16 * unit);
    setBound(handle, low + share * (high - low));
  };
  handle.addEventListener("pointermove", follow);
  handle.addEventListener("pointerup", () => handle.removeEventListener("pointermove", follow), { once: true });
}

let applying = false;

async function apply(button) {
  applying = true; // what it selects is no news
  button.disabled = true;
  button.textContent = "Selecting…";
  try {
    const { kept, waiting, next } = await post(address("/bounds/apply", movedParameters()));
    await reset();
    const rest = waiting ? `, ${waiting.toLocaleString("en")} wait to be measured` : "";
    say(`Selected again: ${kept.toLocaleString("en")} pairs are kept${rest}. Next: ${next}`, () => {});
  } catch (error) {
    say(error.message);
    button.disabled = false;
    button.textContent = "Apply: select again";
  }
  applying = false;
}

function reset() {
  const parameters = new URLSearchParams(location.search);
  parameters.delete("m");
  return visit(address("/bounds", parameters), { scroll: false });
}

// ---- Keys, clicks and the rest

function current() {
  const focused = document.activeElement?.closest?.("[data-pair]");
  return focused || $("main .look[data-pair]") || null;
}

function step(by) {
  const cards = $$("#grid [data-pair]");
  if (!cards.length) return void $(by > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
  const at = cards.indexOf(document.activeElement?.closest?.("[data-pair]"));
  const to = cards[Math.min(cards.length - 1, Math.max(0, at + by))];
  $("a.shots", to)?.focus();
  to.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  g: () => label("good"),
  b: bad,
  u: () => label("unsure"),
  z: undo,
  "?": () => $("#keys").showModal(),
  "/": () => $("input[type=search]")?.focus(),
  " ": swap,
};

function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const handle = event.target.closest?.(".handle");
  if (handle && event.key.startsWith("Arrow")) {
    const chart = handle.closest("svg"), span = chart.dataset.high - chart.dataset.low;
    const by = ["ArrowRight", "ArrowUp"].includes(event.key) ? 1 : -1;
    event.preventDefault();
    return setBound(handle, +handle.dataset.value + (by * span * (event.shiftKey ? 10 : 1)) / 200);
  }
  if (event.target.matches?.("input:not([type=range]), select, textarea") || $("dialog[open]")) return;
  const reasons = $(".bad-reasons:not(.hidden)");
  const looks = $$("[data-stage]"), digit = +event.key;
  if (reasons && event.key === "Escape") reasons.classList.add("hidden");
  else if (reasons && digit) $$("button", reasons)[digit - 1]?.click();
  else if (looks.length && digit) looks[digit - 1]?.click();
  else if (event.key === " " && (!$(".stage") || event.target.matches("button, summary, a"))) return;
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

function clicked(event) {
  const on = (selector) => event.target.closest(selector);
  let target;
  if ((target = on("[data-look]"))) showGrid(target.dataset.look);
  else if ((target = on("[data-stage]:not(.stage)"))) showStage(target.dataset.stage);
  else if ((target = on("[data-verdict]"))) target.dataset.verdict === "bad" ? bad() : label(target.dataset.verdict);
  else if ((target = on("[data-reason]"))) label("bad", target.dataset.reason);
  else if (on("[data-undo]")) undo();
  else if (on("[data-help]")) $("#keys").showModal();
  else if (on("[data-close]")) on("dialog").close();
  else if (on("[data-reset]")) reset();
  else if ((target = on("[data-apply]"))) apply(target);
  else if ((target = on("[data-copy]"))) {
    navigator.clipboard?.writeText($(target.dataset.copy).textContent).then(() => say("Copied"), () => say("Select the text and copy it: this browser does not allow it here"));
  } else if ((target = on("a[href^='/']")) && !target.target && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.button) {
    event.preventDefault();
    visit(target.getAttribute("href") || target.href.baseVal);
  }
}

function changed(event) {
  if (event.target.matches("[data-submit]")) visit(ofForm(event.target.form), { scroll: false });
  if (event.target.matches("#min, #max")) {
    const handle = $(`.handle[data-side=${event.target.id}]`);
    if (handle && event.target.value !== "") place(handle, +event.target.value);
    move(event.target.id);
  }
}

async function look() {
  if (document.hidden || applying) return;
  const answer = await fetch("/fresh").catch(() => null);
  if (!answer?.ok) return;
  const { taken } = await answer.json();
  if (!applying && +$("main").dataset.taken < taken - 0.001) say("There are new results: show them", () => visit(location.href, { push: false, scroll: false }));
}

// What a page needs when it appears.
function begin() {
  if ($("#grid") && sessionStorage.look && sessionStorage.look !== "side") showGrid(sessionStorage.look);
  clearInterval(blinking);
  if ($(".stage") && sessionStorage.stage && sessionStorage.stage !== "side") showStage(sessionStorage.stage);
  const section = $("nav.sections [aria-current]");
  if (section) section.parentNode.scrollLeft = section.offsetLeft - section.parentNode.offsetWidth / 3;
  if (matchMedia("(max-width: 62rem)").matches) $(".filters")?.removeAttribute("open");
  for (const key of JSON.parse($("[data-ahead]")?.dataset.ahead ?? "[]"))
    for (const side of ["source", "edited"]) new Image().src = `/image/this/${key}/${side}?w=0`;
  const panel = $("#bound");
  if (panel) {
    moved = JSON.parse(panel.dataset.moved);
    whatIf();
  }
}

document.addEventListener("click", clicked);
document.addEventListener("keydown", keyed);
document.addEventListener("change", changed);
document.addEventListener("pointerdown", drag);
document.addEventListener("input", (event) => event.target.matches(".stage input[type=range]") && slide());
document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-visit]")) return;
  event.preventDefault();
  visit(ofForm(event.target));
});
addEventListener("popstate", () => visit(location.href, { push: false }));
addEventListener("resize", () => $(".stage[data-look=slider]") && slide());
setInterval(look, 5000);
begin();
