// The server's faces: questions to it, and one view of which pages of rows are fetched as they are needed.

const PAGE = 100;
const KEPT_PAGES = 60;
const PAUSE = 2000; // milliseconds until rows that did not come are asked for again

/** The server's answer as an object; an Error with a line for a person where there is none. */
export async function ask(path, body) {
  const options = body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive: true,
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer: start authface curate review again");
  }
  const values = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(typeof values.detail === "string" ? values.detail : `refused (${answer.status})`);
  return values;
}

/** Where a face's picture is: `kind` is thumbnail, whole or eyes. */
export const picture = (kind, id, query = "") => `${kind}/${encodeURIComponent(id)}${query}`;

/** A number for a person. */
export const quantity = (value) =>
  Number.isInteger(value) || Math.abs(value) >= 1000 ? value.toLocaleString("en") : String(Number(value.toPrecision(3)));

/** A name of a field for a person. */
export const words = (name) => name.replaceAll("_", " ");

/** The rows of one view in a fixed order. */
export class View {
  #pages = new Map();

  constructor(number, total, arrived) {
    this.number = number;
    this.total = total;
    this.arrived = arrived;
  }

  /** The row at `index`, or null while it is on its way. */
  row(index) {
    const page = Math.floor(index / PAGE);
    const rows = this.#pages.get(page);
    if (rows === undefined) this.#fetch(page);
    else if (rows !== null) {
      this.#pages.delete(page);
      this.#pages.set(page, rows); // the latest used is the last to go
    }
    return rows?.[index - page * PAGE] ?? null;
  }

  /** The row at `index` once it is there. */
  async load(index) {
    await this.#fetch(Math.floor(index / PAGE));
  }

  /** Note what holds for a face. */
  patch(id, values) {
    for (const rows of this.#pages.values()) {
      const row = rows?.find((one) => one.id === id);
      if (row) Object.assign(row, values);
    }
  }

  /** Fetch all rows anew: what the page believed may be wrong. */
  reload() {
    this.#pages.clear();
    this.arrived();
  }

  async #fetch(page) {
    this.#pages.set(page, null);
    try {
      const start = page * PAGE;
      const { rows } = await ask(`api/rows?view=${this.number}&start=${start}&count=${PAGE}`);
      this.#pages.set(page, rows);
      for (const old of this.#pages.keys()) if (this.#pages.size > KEPT_PAGES) this.#pages.delete(old);
      this.arrived();
    } catch (error) {
      setTimeout(() => {
        if (this.#pages.get(page) === null) this.#pages.delete(page);
        this.arrived();
      }, PAUSE);
      this.arrived(error); // the page is on its way until then: what shows it would ask at once again, and for ever
    }
  }
}
