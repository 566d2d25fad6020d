// The grid: however many faces there are, only the cells in sight are in the document.

import { picture, quantity, words } from "./faces.js";

const GAP = 10;
const CAPTION = 26;
const AHEAD = 2; // rows beyond the edges

export class Grid {
  #cells = new Map();
  #columns = 1;
  #side = 0;
  #painted = 0;
  #settle = 0;

  constructor(element, canvas, { pick, open }) {
    this.element = element;
    this.canvas = canvas;
    this.measure = "";
    this.at = 0;
    this.view = null;
    element.addEventListener("scroll", () => requestAnimationFrame(() => this.paint()));
    new ResizeObserver(() => this.#resized()).observe(element);
    const index = (event) => event.target.closest(".cell")?.dataset.index;
    canvas.addEventListener("click", (event) => {
      const chosen = index(event);
      if (chosen === undefined) return;
      if (event.pointerType === "touch" && Number(chosen) === this.at) open(Number(chosen));
      else pick(Number(chosen));
    });
    canvas.addEventListener("dblclick", (event) => index(event) !== undefined && open(Number(index(event))));
  }

  get columns() {
    return this.#columns;
  }

  get #step() {
    return this.#side + CAPTION + GAP;
  }

  /** Rows of cells in sight. */
  get rows() {
    return Math.max(1, Math.floor(this.element.clientHeight / this.#step));
  }

  /** The last face in sight. */
  get last() {
    const { scrollTop, clientHeight } = this.element;
    return Math.ceil((scrollTop + clientHeight) / this.#step) * this.#columns - 1;
  }

  show(view, measure) {
    this.view = view;
    this.measure = measure;
    for (const cell of this.#cells.values()) cell.remove();
    this.#cells.clear();
    this.#resized();
  }

  /** Mark the face at `index` and bring it into sight. */
  select(index) {
    this.at = index;
    const top = Math.floor(index / this.#columns) * this.#step;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.#step > scrollTop + clientHeight) this.element.scrollTop = top + this.#step - clientHeight;
    this.paint();
  }

  #resized() {
    if (!this.view || !this.element.clientWidth) return;
    const style = getComputedStyle(this.canvas);
    const width = this.canvas.clientWidth;
    const least = parseFloat(style.getPropertyValue("--cell")) || 160;
    this.#columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
    this.#side = Math.floor((width - GAP * (this.#columns - 1)) / this.#columns);
    this.canvas.style.height = `${Math.ceil(this.view.total / this.#columns) * this.#step}px`;
    this.select(Math.min(this.at, Math.max(0, this.view.total - 1)));
  }

  /** Bring the cells in sight up to date. */
  paint() {
    if (!this.view || !this.element.clientWidth) return;
    const { scrollTop, clientHeight } = this.element;
    const hasty = Math.abs(scrollTop - this.#painted) > 2 * clientHeight; // on the way to somewhere else
    this.#painted = scrollTop;
    clearTimeout(this.#settle);
    if (hasty) this.#settle = setTimeout(() => this.paint(), 90);
    const first = Math.max(0, (Math.floor(scrollTop / this.#step) - AHEAD) * this.#columns);
    const lines = Math.ceil(clientHeight / this.#step) + 2 * AHEAD;
    const end = Math.min(this.view.total, first + lines * this.#columns);
    for (const [index, cell] of this.#cells) {
      if (index < first || index >= end) {
        cell.remove();
        this.#cells.delete(index);
      }
    }
    for (let index = first; index < end; index++) this.#place(index, hasty);
    const active = this.#cells.get(this.at);
    if (active) this.element.setAttribute("aria-activedescendant", active.id);
    else this.element.removeAttribute("aria-activedescendant");
  }

  #place(index, hasty) {
    let cell = this.#cells.get(index);
    if (!cell) {
      cell = blank(index, this.view.total);
      this.#cells.set(index, cell);
      this.canvas.append(cell);
    }
    const x = (index % this.#columns) * (this.#side + GAP);
    const y = Math.floor(index / this.#columns) * this.#step;
    cell.style.transform = `translate(${x}px, ${y}px)`;
    cell.style.width = `${this.#side}px`;
    cell.style.height = `${this.#side + CAPTION}px`;
    cell.classList.toggle("active", index === this.at);
    cell.setAttribute("aria-selected", String(index === this.at));
    const row = hasty ? null : this.view.row(index);
    if (row) this.#fill(cell, row, index);
  }

  #fill(cell, row, index) {
    const [image, badge, caption] = cell.children;
    if (cell.dataset.id !== row.id) {
      cell.dataset.id = row.id;
      image.src = picture("thumbnail", row.id);
    }
    cell.dataset.verdict = row.verdict;
    badge.textContent = decided(row);
    caption.textContent = shortly(row, this.measure);
    cell.setAttribute("aria-label", `Face ${index + 1}: ${decided(row) || "undecided"}; ${caption.textContent}`);
  }
}

function blank(index, total) {
  const cell = document.createElement("div");
  cell.className = "cell";
  cell.id = `cell-${index}`;
  cell.dataset.index = index;
  cell.setAttribute("role", "option");
  cell.setAttribute("aria-posinset", index + 1);
  cell.setAttribute("aria-setsize", total);
  const image = document.createElement("img");
  image.alt = "";
  image.decoding = "async";
  image.draggable = false;
  image.addEventListener("load", () => cell.classList.add("seen"));
  image.addEventListener("error", () => cell.classList.add("broken"));
  cell.append(image, document.createElement("b"), document.createElement("span"));
  return cell;
}

/** What was decided, in words. */
export function decided(row) {
  if (row.why && !row.verdict) return words(row.why[0]);
  return row.reason || row.verdict;
}

/** The measure that sorts, or the face's size. */
export function shortly(row, measure) {
  const name = measure || "size";
  const value = row.measures[name];
  return value === undefined ? `${words(name)} not measured` : `${words(name)} ${quantity(value)}`;
}
