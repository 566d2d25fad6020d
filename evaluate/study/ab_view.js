// Pictures side by side that zoom and move together: one view, in shares of the picture, for panes of any size.

const MOST = 16;

export class View {
  #panes;
  #scale = 1;
  #x = 0.5; // the point of the picture in the middle of every pane, 0..1
  #y = 0.5;
  #drag = null;

  constructor(panes, changed) {
    this.#panes = panes;
    this.changed = changed;
    for (const pane of panes) {
      pane.addEventListener("wheel", (event) => this.#wheel(event, pane), { passive: false });
      pane.addEventListener("pointerdown", (event) => this.#grab(event, pane));
      pane.addEventListener("pointermove", (event) => this.#move(event, pane));
      for (const end of ["pointerup", "pointercancel"]) pane.addEventListener(end, () => (this.#drag = null));
      pane.addEventListener("dblclick", (event) => this.toggle(...this.#at(event, pane)));
      new ResizeObserver(() => this.#apply()).observe(pane);
    }
  }

  /** Whole pictures again. */
  reset() {
    this.#set(1, 0.5, 0.5);
  }

  /** Three times larger around a point of the picture, or whole again. */
  toggle(x = 0.5, y = 0.42) {
    if (this.#scale > 1) this.reset();
    else this.#set(3, x, y);
  }

  /** Larger or smaller by a factor; the point (x, y) of the picture stays where it is. */
  by(factor, x = this.#x, y = this.#y) {
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const kept = this.#scale / scale;
    this.#set(scale, x + (this.#x - x) * kept, y + (this.#y - y) * kept);
  }

  #set(scale, x, y) {
    [this.#scale, this.#x, this.#y] = [scale, x, y];
    const pane = this.#panes[0];
    const [width, height] = fitted(pane);
    this.#x = inside(x, width * scale, pane.clientWidth);
    this.#y = inside(y, height * scale, pane.clientHeight);
    this.#apply();
    this.changed(scale);
  }

  #apply() {
    for (const pane of this.#panes) {
      const [x, y] = this.#origin(pane);
      pane.firstElementChild.style.transform =
        this.#scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${this.#scale})`;
    }
  }

  /** Where the pane's own top left corner goes, pixels. */
  #origin(pane) {
    const size = fitted(pane);
    return [[this.#x, pane.clientWidth], [this.#y, pane.clientHeight]].map(([at, length], axis) => {
      const middle = inside(at, size[axis] * this.#scale, length);
      return length / 2 - this.#scale * ((length - size[axis]) / 2 + middle * size[axis]);
    });
  }

  /** The point of the picture under the pointer, 0..1. */
  #at(event, pane) {
    const box = pane.getBoundingClientRect();
    const [origin, size] = [this.#origin(pane), fitted(pane)];
    const point = (where, axis, length) =>
      ((where - origin[axis]) / this.#scale - (length - size[axis]) / 2) / (size[axis] || 1);
    return [point(event.clientX - box.left, 0, pane.clientWidth), point(event.clientY - box.top, 1, pane.clientHeight)];
  }

  #wheel(event, pane) {
    event.preventDefault();
    const step = Math.min(Math.abs(event.deltaY), 60) / 200;
    this.by(Math.exp(-Math.sign(event.deltaY) * step), ...this.#at(event, pane));
  }

  #grab(event, pane) {
    if (event.button !== 0) return;
    pane.setPointerCapture(event.pointerId);
    this.#drag = [event.clientX, event.clientY, this.#x, this.#y];
  }

  #move(event, pane) {
    if (!this.#drag || this.#scale === 1) return;
    const [startX, startY, x, y] = this.#drag;
    const [width, height] = fitted(pane).map((length) => (length || 1) * this.#scale);
    this.#set(this.#scale, x - (event.clientX - startX) / width, y - (event.clientY - startY) / height);
  }
}

/** Width and height of the whole picture in its pane, pixels. */
function fitted({ clientWidth, clientHeight, firstElementChild: { naturalWidth, naturalHeight } }) {
  const scale = naturalWidth ? Math.min(clientWidth / naturalWidth, clientHeight / naturalHeight) : 0;
  return [naturalWidth * scale, naturalHeight * scale];
}

/** The middle of the view, so that no more of the pane stays empty than must be. */
function inside(middle, length, pane) {
  if (length <= pane) return 0.5;
  const half = pane / length / 2;
  return Math.min(1 - half, Math.max(half, middle));
}
