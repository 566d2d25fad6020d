// The review page: state, keys and decisions. The picture of a state is in grid.js and single.js.

import { View, ask, quantity, words } from "./faces.js";
import { Grid, decided } from "./grid.js";
import { Single } from "./single.js";

const $ = (id) => document.getElementById(id);
const form = $("filters");
const single = new Single({ stage: $("stage"), image: $("picture"), note: $("note"), facts: $("facts") });
const grid = new Grid($("grid"), $("canvas"), {
  pick: (index) => (go(index), $("grid").focus()),
  open: (index) => (go(index), look("single")),
});

let start; // what the server told once
let view = null;
let at = 0;
let mode = "grid";
let saving = Promise.resolve(); // decisions reach the server one after the other
let opened = 0; // views asked for: the answers may come in another order
let turn = 0; // of the order of `--next`, as the view was opened with it

const say = (text) => ($("say").textContent = text);

function problem(text) {
  $("problem").hidden = !text;
  $("problem").textContent = text;
}

// --- what is looked at ---------------------------------------------------------------------------------------------

function query() {
  const values = [...new FormData(form)].filter(([, value]) => value !== "");
  return new URLSearchParams(values);
}

/** Open the view that the filters ask for; with `staying` as many faces at its beginning are those of the one before. */
async function open(index = 0, staying = 0) {
  const learning = asks();
  const mine = ++opened;
  for (const name of ["low", "high", "descending"]) form.elements[name].disabled = learning || !form.elements.measure.value;
  for (const name of ["show", "reason"]) form.elements[name].disabled = learning;
  form.elements.decision.disabled = learning || form.elements.show.value === "rejected";
  try {
    if (learning) sure(await ask("api/asking"), true);
    const more = staying ? `&after=${view.number}&head=${staying}` : "";
    const found = await ask(`api/view?${query()}${more}`);
    const now = new View(found.view, found.total, (error) => {
      if (error) problem(error.message);
      if (view === now) paint();
    });
    if (staying) await now.load(at); // keys go on deciding meanwhile
    if (mine !== opened) return; // another was asked for later
    if (staying && at >= staying) return await open(at, inSight());
    view = now;
    problem("");
  } catch (error) {
    return mine === opened ? problem(error.message) : undefined;
  }
  at = Math.min(staying ? at : index, Math.max(0, view.total - 1));
  grid.at = at;
  grid.show(view, learning ? "" : form.elements.measure.value);
  paint();
}

/** Whether the view shows what `--next` asks. */
const asks = () => Boolean(start.asking) && form.elements.measure.value === start.asked[0];

/** Faces up to the last that can be seen: a new order begins behind them. */
const inSight = () => Math.max(at, mode === "grid" ? grid.last : at) + 1;

/** Tell how sure the model is by now; where a new order is there, go on with it behind what is in sight. */
function sure(asking, opening = false) {
  $("certainty").hidden = !asking;
  if (!asking) return;
  $("certainty").textContent = asking.text;
  $("certainty").classList.toggle("enough", asking.enough);
  if (opening) turn = asking.turn;
  else if (asks() && asking.turn !== turn) {
    turn = asking.turn;
    saving = saving.then(() => open(at, inSight()));
  }
}

function paint() {
  const row = view.total ? view.row(at) : null;
  $("empty").hidden = view.total > 0;
  $("empty").textContent = asks() ? "Nothing more to ask: choose another order above to go on." : "No face matches. Choose other filters above.";
  $("grid").hidden = mode !== "grid" || !view.total;
  $("single").hidden = mode !== "single" || !view.total;
  if (mode === "grid") grid.paint();
  else {
    single.paint(row, at, view.total);
    single.ahead([1, 2].filter((step) => at + step < view.total).map((step) => view.row(at + step)));
  }
  $("place").textContent = view.total ? `${quantity(at + 1)} of ${quantity(view.total)}` : "";
  for (const button of document.querySelectorAll("#bar button:not([data-act=undo]), #reasons button")) {
    button.disabled = !row?.judgeable;
    button.setAttribute("aria-pressed", String(Boolean(row?.judgeable) && held(button, row)));
  }
  for (const [name, on] of [["grid", mode === "grid"], ["single", mode === "single"], ["zoom", mode === "single" && single.zoom]])
    document.querySelector(`.modes [data-act=${name}]`).setAttribute("aria-pressed", String(on));
  remember();
}

const held = ({ dataset }, row) =>
  dataset.reason === undefined ? dataset.act === row.verdict && !row.reason : dataset.reason === row.reason;

function remember() {
  const state = query();
  state.set("at", at);
  state.set("mode", mode);
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  fillReasons(state.get("show"));
  for (const [name, value] of state) {
    const field = form.elements[name];
    if (field?.type === "checkbox") field.checked = true;
    else if (field) field.value = value;
  }
  mode = state.get("mode") === "single" ? "single" : "grid";
  return asks() ? 0 : Number(state.get("at")) || 0; // what was asked is not asked again
}

function go(index) {
  if (!view.total) return;
  at = Math.max(0, Math.min(index, view.total - 1));
  if (mode === "grid") grid.select(at);
  else grid.at = at;
  paint();
  const row = view.row(at);
  if (row) say(`Face ${at + 1} of ${view.total}: ${decided(row) || "undecided"}`);
}

function look(wanted) {
  mode = wanted;
  $("grid").hidden = mode !== "grid";
  $("single").hidden = mode !== "single";
  if (mode === "grid") grid.select(at);
  paint();
  $(mode === "grid" ? "grid" : "stage").focus({ preventScroll: true });
}

function zoom() {
  single.zoom = mode === "grid" || !single.zoom;
  look("single");
}

// --- decisions -----------------------------------------------------------------------------------------------------

function decide(verdict, reason = "") {
  const row = view?.row(at);
  if (!row) return say("Not decided: this face is still on its way.");
  if (!row.judgeable) return say("The filter rejected this face: it can be looked at only.");
  const index = at;
  view.patch(row.id, { verdict, reason });
  send(() => ask("api/decide", { id: row.id, verdict, reason }), index);
  if (index + 1 < view.total) go(index + 1);
  else paint();
  say(`Face ${index + 1}: ${reason ? `rejected, ${reason}` : verdict}${index + 1 < view.total ? "" : "; this was the last one"}`);
}

function undo() {
  send(async () => {
    const answer = await ask("api/undo", { view: view.number });
    if (answer.index === null) return Object.assign(answer, { said: "Undone, on a face outside this view" });
    view.patch(answer.id, answer);
    go(answer.index);
    return Object.assign(answer, { said: `Undone: face ${answer.index + 1} is ${answer.verdict || "undecided"} again` });
  }, at);
}

function send(question, index) {
  const asked = view;
  saving = saving.then(question).then(
    (answer) => {
      problem("");
      for (const shown of new Set([asked, view])) // a new order may have come meanwhile
        shown.patch(answer.id, { verdict: answer.verdict, reason: answer.reason, others: answer.others });
      count(answer.counts);
      sure(answer.asking);
      if (answer.said) say(answer.said);
      paint();
    },
    (error) => {
      if (error.message === "nothing to undo") return say("Nothing to undo");
      problem(`Not saved: ${error.message}`);
      if (asked !== view) return;
      view.reload(); // what holds is what the server has
      go(index);
    },
  );
}

function count(counts) {
  const done = counts.keep + counts.reject + counts.retouch;
  $("counts").replaceChildren(`${start.reviewer}: ${quantity(done)} of ${quantity(counts.crops)} decided`);
  for (const verdict of ["keep", "reject", "retouch"]) {
    const part = document.createElement("span");
    part.className = verdict;
    part.textContent = `${quantity(counts[verdict])} ${verdict}`;
    $("counts").append(part);
  }
  $("progress").max = counts.crops || 1;
  $("progress").value = done;
}

// --- keys, mouse, touch --------------------------------------------------------------------------------------------

const acts = {
  keep: () => decide("keep"),
  reject: () => decide("reject"),
  retouch: () => decide("retouch"),
  undo,
  grid: () => look("grid"),
  single: () => ((single.zoom = false), look("single")),
  zoom,
  back: () => go(at - 1),
  forth: () => go(at + 1),
  help: () => $("help").showModal(),
};
const keys = { k: "keep", r: "reject", t: "retouch", u: "undo", g: "grid", z: "zoom", "?": "help" };

function moved(key) {
  const across = mode === "grid" ? grid.columns : 1;
  const steps = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across,
    PageUp: -across * grid.rows, PageDown: across * grid.rows, Home: -Infinity, End: Infinity,
  };
  return key in steps ? at + steps[key] : null;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || !view) return;
  const typing = event.target.closest("input, select");
  if (typing && event.key !== "Escape") return;
  const onButton = event.target.closest("button") && (event.key === "Enter" || event.key === " ");
  const to = moved(event.key);
  if (onButton) return;
  if (to !== null) go(to);
  else if (event.key === "Enter") acts.single();
  else if (event.key === "Escape") {
    if (typing || mode === "grid") look(mode);
    else if (single.zoom) zoom();
    else look("grid");
  } else if (/^[1-9]$/.test(event.key) && start.reasons[event.key - 1]) decide("reject", start.reasons[event.key - 1]);
  else if (event.key.toLowerCase() in keys) acts[keys[event.key.toLowerCase()]]();
  else return;
  event.preventDefault();
}

function swiped(stage) {
  let from = null;
  stage.addEventListener("pointerdown", (event) => (from = event.pointerType === "touch" ? event : null));
  stage.addEventListener("pointerup", (event) => {
    const [x, y] = from ? [event.clientX - from.clientX, event.clientY - from.clientY] : [0, 0];
    if (Math.abs(x) > 50 && Math.abs(x) > 2 * Math.abs(y)) go(at + (x < 0 ? 1 : -1));
    from = null;
  });
  stage.addEventListener("pointercancel", () => (from = null));
}

function fillReasons(show) {
  const known = show === "rejected" ? start.filter_reasons : start.reasons.map((reason) => [reason, null]);
  const options = known.map(([reason, count]) => new Option(words(reason) + (count ? ` (${quantity(count)})` : ""), reason));
  form.elements.reason.replaceChildren(new Option("any", ""), ...options);
  form.elements.decision.disabled = show === "rejected";
}

document.addEventListener("keydown", pressed);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button || !view) return;
  if (button.dataset.reason) decide("reject", button.dataset.reason);
  else acts[button.dataset.act]();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  if (event.target.name === "show") fillReasons(event.target.value);
  open();
});
swiped($("stage"));

try {
  start = await ask("api/start");
  document.title = `Review of ${start.title}`;
  $("title").textContent = start.title;
  if (start.asking) form.elements.measure.append(new Option(start.asked[1], start.asked[0]));
  if (start.asking && !location.hash) location.hash = `measure=${start.asked[0]}`;
  if (!start.others.length) form.elements.decision.querySelector("[value=disputed]").remove();
  sure(start.asking, true);
  form.elements.measure.append(...start.measures.map((name) => new Option(words(name), name)));
  start.reasons.forEach((reason, index) => {
    const button = document.createElement("button");
    const key = document.createElement("kbd");
    key.textContent = index + 1;
    Object.assign(button, { type: "button" });
    Object.assign(button.dataset, { act: "reason", reason });
    button.append(key, ` ${reason}`);
    $("reasons").append(button);
  });
  count(start.counts);
  await open(recall());
  look(mode);
} catch (error) {
  problem(error.message);
}
