// One face at a time: the crop as large as fits, or the eyes in the original photo's own pixels.

import { picture, quantity, words } from "./faces.js";
import { decided } from "./grid.js";

const MOST = 4096; // pixels a side that the server gives

export class Single {
  #shown = "";

  constructor({ stage, image, note, facts }) {
    Object.assign(this, { stage, image, note, facts, zoom: false });
    image.addEventListener("load", () => this.#loaded());
    image.addEventListener("error", () => {
      this.stage.classList.add("broken");
      this.note.textContent = "This picture cannot be read.";
    });
    new ResizeObserver(() => this.row && this.paint(this.row, this.index, this.total)).observe(stage);
  }

  /** Show a row; null while it is on its way. */
  paint(row, index, total) {
    Object.assign(this, { row, index, total });
    if (!row || !this.stage.clientWidth) return;
    const address = this.#address(row);
    if (address !== this.#shown) {
      this.#shown = address;
      this.stage.classList.remove("broken");
      this.stage.classList.toggle("zoomed", this.zoom);
      this.image.removeAttribute("style");
      this.image.src = address;
      this.note.textContent = "";
    }
    this.stage.dataset.verdict = row.verdict;
    this.stage.setAttribute("aria-label", `Face ${index + 1} of ${total}: ${decided(row) || "undecided"}`);
    this.#describe(row);
  }

  /** Let the browser fetch what will be looked at next. */
  ahead(rows) {
    for (const row of rows) if (row) new Image().src = this.#address(row);
  }

  #address(row) {
    if (!this.zoom) return picture("whole", row.id);
    const pixels = (length) => Math.min(MOST, Math.max(16, Math.round(length * devicePixelRatio)));
    const { clientWidth, clientHeight } = this.stage;
    return picture("eyes", row.id, `?width=${pixels(clientWidth)}&height=${pixels(clientHeight)}`);
  }

  #loaded() {
    const { row, image } = this;
    if (!row) return;
    const crop = row.crop ? `crop of ${row.size} px${row.enlarged ? ", enlarged from fewer" : ""}` : "the face in its photo";
    this.note.textContent = crop;
    if (!this.zoom) return;
    image.style.width = `${image.naturalWidth / devicePixelRatio}px`; // one pixel of the photo, one of the screen
    image.style.height = `${image.naturalHeight / devicePixelRatio}px`;
    const [width, height] = row.photo;
    this.note.textContent = `the original photo's own pixels, 100 %; it has ${width} × ${height}`;
  }

  #describe(row) {
    const told = row.verdict || (row.why ? "rejected by the filter" : "undecided");
    const state = element("p", `verdict ${row.verdict || (row.why ? "filter" : "")}`, told);
    if (row.reason) state.append(element("span", "", row.reason));
    if (row.why) state.append(element("span", "", why(row)));
    const parts = [state];
    for (const [who, verdict, reason] of row.others)
      parts.push(element("p", verdict === row.verdict ? "remark" : "remark other", `${who}: ${verdict}${reason ? `, ${reason}` : ""}`));
    if (row.retouched) parts.push(element("p", "remark", "retouched by hand"));
    parts.push(list(Object.entries(row.measures).map(([name, value]) => [words(name), quantity(value)]), "measures"));
    const facts = [["photo", row.name], ["photographer", row.photographer], ["licence", row.licence], ["id", row.id]];
    parts.push(list(facts.filter(([, value]) => value), "origin"));
    this.facts.replaceChildren(...parts);
  }
}

function why(row) {
  const [reason, value, limit] = row.why;
  return value === null || limit === null ? words(reason) : `${words(reason)}: ${quantity(value)}, limit ${quantity(limit)}`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function list(entries, className) {
  const made = element("dl", className, "");
  for (const [name, value] of entries) {
    const pair = element("div", "", "");
    const text = element("bdi", "", value);
    const definition = element("dd", "", "");
    definition.append(text);
    pair.append(element("dt", "", name), definition);
    made.append(pair);
  }
  return made;
}
