// What WebNN supports in this browser, by operation as its context reports, and which ops run on another device.
import { TITLES } from "./devices.js";
import { byId, h, say } from "./dom.js";
import { explain } from "./failures.js";
import { plural } from "./format.js";

export class LimitsPanel {
  #details;
  #ask;
  #isReady = false;
  #rows = []; // one per operation: [cells, text to filter by]
  #about = "";

  /** ask() → {missing} or {device, fallback, limits: {operation: {operand: limit}}, refused: {reason: {op: [dtypes]}}} */
  constructor(details, ask) {
    this.#details = details;
    this.#ask = ask;
    details.addEventListener("toggle", () => this.#open());
    byId("limits-filter").addEventListener("input", () => this.#filter());
  }

  /** Python runs: the limits can be requested from now on. */
  ready() {
    this.#isReady = true;
    this.#open();
  }

  async #open() {
    if (!this.#details.open) return;
    const about = byId("limits-about");
    if (!this.#isReady) {
      say(about, "Python is starting.");
      return;
    }
    if (!this.#rows.length) say(about, "Loading the list…");
    try {
      this.#draw(await this.#ask());
    } catch (error) {
      const { what, advice } = explain(error);
      say(about, `The list could not be loaded. ${what} ${advice}`.trim());
    }
  }

  #draw({ missing, device, fallback, limits, refused }) {
    byId("limits-tables").hidden = Boolean(missing);
    if (missing) {
      say(byId("limits-about"), `WebNN is not available: ${missing}`);
      return;
    }
    const operations = Object.entries(limits).filter(([, limit]) => typeof limit === "object").sort();
    this.#rows = operations.flatMap(([name, limit]) => rowsOf(name, limit));
    this.#about = `${device}: ${plural(operations.length, "entry", "entries")} of opSupportLimits(), `
      + `${plural(limits.maxTensorByteLength, "byte")} at most in a tensor. `
      + (Object.keys(refused).length ? `Refused ops run on ${TITLES[fallback] ?? fallback}.` : "No op is refused.");
    byId("refused-table").tBodies[0].replaceChildren(...Object.entries(refused).flatMap(([reason, ops]) =>
      Object.entries(ops).map(([op, dtypes]) => h("tr", {}, h("th", { scope: "row" }, op), h("td", {}, dtypes.join(", ")), h("td", {}, reason)))));
    this.#filter();
  }

  #filter() {
    const words = byId("limits-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = this.#rows.filter(([, text]) => words.every((word) => text.includes(word)));
    byId("limits-table").tBodies[0].replaceChildren(...(shown.length ? shown.map(([cells]) => h("tr", {}, ...cells.map((cell, i) =>
      h(i ? "td" : "th", { scope: i ? null : "row" }, cell)))) : [h("tr", {}, h("td", { colspan: 4, class: "muted" }, "No operation matches the filter."))]));
    say(byId("limits-about"), words.length ? `${plural(shown.length, "row")} of ${this.#rows.length}. ${this.#about}` : this.#about);
  }
}

// One row for the operands of an operation with equal limits. An entry without operands is a row itself.
function rowsOf(name, limit) {
  const operands = limit.dataTypes ? [["", limit]] : Object.entries(limit);
  const groups = new Map();
  for (const [operand, { dataTypes, rankRange }] of operands) {
    const { min, max } = rankRange ?? {};
    const rank = min === max ? `${min ?? "any"}` : `${min} to ${max}`;
    const key = JSON.stringify([dataTypes, rank]);
    groups.set(key, { dataTypes, rank, names: [...(groups.get(key)?.names ?? []), operand] });
  }
  return [...groups.values()].map(({ dataTypes, rank, names }) => {
    const cells = [name, names.join(", "), dataTypes.join(", "), rank];
    return [cells, cells.join(" ").toLowerCase()];
  });
}
