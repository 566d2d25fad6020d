// The study's page: who answers, which pair is shown, and the answer that the server has kept before the next pair comes.

import { View } from "./ab_view.js";

const $ = (id) => document.getElementById(id);
const KEYS = { 1: "left", 2: "same", 3: "right" };
const PLACES = ["left", "input", "right"];

let person = null;
let said = []; // by pair: left, same, right, or null
let at = 0;
let since = null; // when both pictures of the pair stood on the screen
let busy = false;
let inputs = false;

const view = new View(PLACES.map((place) => $(`pane-${place}`)), (scale) =>
  document.querySelector("[data-act=zoom]").setAttribute("aria-pressed", String(scale > 1)),
);

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive: true,
    });
  } catch {
    throw new Error("the server does not answer: your answers are kept; tell who runs the study");
  }
  const values = await answer.json().catch(() => ({}));
  if (answer.ok) return values;
  const error = new Error(typeof values.detail === "string" ? values.detail : `refused (${answer.status})`);
  error.status = answer.status;
  throw error;
}

function only(section) {
  for (const name of ["door", "study", "end"]) $(name).hidden = name !== section;
}

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

// --- who answers ----------------------------------------------------------------------------------------------------

async function join(name) {
  const found = await ask("api/join", { name });
  sessionStorage.setItem("name", name);
  ({ person, said, inputs } = found);
  $("question").textContent = found.question;
  $("between").hidden = !inputs;
  go(next());
}

function leave() {
  sessionStorage.removeItem("name");
  person = null;
  $("name").value = "";
  only("door");
  $("name").focus();
}

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    await join($("name").value);
  } catch (error) {
    $("refused").textContent = error.message;
  }
});

// --- which pair -----------------------------------------------------------------------------------------------------

/** The first pair without an answer; as many as there are pairs when all have one. */
function next() {
  const open = said.indexOf(null);
  return open < 0 ? said.length : open;
}

const address = (number, place) => `picture/${person}/${number}/${place}`;

function go(number) {
  at = Math.max(0, Math.min(number, next()));
  problem("");
  if (at >= said.length) {
    $("all").textContent = `All ${said.length} pairs are answered and kept. You may close this page.`;
    return only("end");
  }
  only("study");
  view.reset();
  since = null;
  const wanted = PLACES.filter((place) => inputs || place !== "input");
  let missing = wanted.length;
  for (const place of wanted) {
    const pane = $(`pane-${place}`);
    const old = pane.firstElementChild;
    const image = old.cloneNode();
    const mine = at;
    image.removeAttribute("style");
    pane.classList.remove("seen");
    image.addEventListener("load", () => {
      if (mine !== at || !image.isConnected || --missing) return;
      for (const shown of wanted) $(`pane-${shown}`).classList.add("seen");
      since = performance.now();
      paint();
      if (at + 1 < said.length) for (const ahead of wanted) new Image().src = address(at + 1, ahead);
    });
    image.addEventListener("error", () => image.isConnected && problem("A picture cannot be shown: tell who runs the study."));
    image.src = address(at, place);
    old.replaceWith(image);
  }
  paint();
}

function paint() {
  const done = said.filter(Boolean).length;
  $("place").textContent = `pair ${at + 1} of ${said.length}, ${done} answered`;
  $("progress").max = said.length;
  $("progress").value = done;
  for (const button of document.querySelectorAll("#choices button")) {
    button.disabled = since === null;
    button.setAttribute("aria-pressed", String(button.dataset.place === said[at]));
  }
  document.querySelector(".step[data-act=back]").disabled = at === 0;
  document.querySelector(".step[data-act=forth]").disabled = at >= next();
}

async function answer(place) {
  if (since === null || busy) return;
  busy = true;
  const [number, seconds] = [at, (performance.now() - since) / 1000];
  try {
    await kept({ number, place, seconds });
    said[number] = place;
    $("say").textContent = `pair ${number + 1}: ${place}`;
    go(number + 1);
  } catch (error) {
    problem(error.message);
  } finally {
    busy = false;
  }
}

/** Send an answer; to a server that was started anew, join first. */
async function kept(values) {
  try {
    await ask("api/answer", { person, ...values });
  } catch (error) {
    if (error.status !== 404) throw error;
    await ask("api/join", { name: sessionStorage.getItem("name") });
    await ask("api/answer", { person, ...values });
  }
}

// --- keys and clicks ------------------------------------------------------------------------------------------------

const acts = {
  closer: () => view.by(1.5),
  farther: () => view.by(1 / 1.5),
  whole: () => view.reset(),
  zoom: () => view.toggle(),
  help: () => $("help").showModal(),
  back: () => !busy && go(at - 1),
  forth: () => !busy && go(at + 1),
  leave,
};
const ACT_KEYS = { "+": "closer", "=": "closer", "-": "farther", 0: "whole", z: "zoom", "?": "help", ArrowLeft: "back", ArrowRight: "forth" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || $("study").hidden) return;
  if (KEYS[event.key]) answer(KEYS[event.key]);
  else if (ACT_KEYS[event.key]) acts[ACT_KEYS[event.key]]();
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.place) answer(button.dataset.place);
  else if (button?.dataset.act) acts[button.dataset.act]();
});

const before = sessionStorage.getItem("name");
if (before === null) only("door");
else join(before).catch(() => only("door"));
