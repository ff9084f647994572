// What happened to the memory: loads, moves, changes of the limit, evictions and returns, from each report and the one
// before. The chart marks them, and a list gives them in words.
import { TITLES } from "./devices.js";
import { byId, each, h, say } from "./dom.js";
import { bytes, clock } from "./format.js";

const MOST = 200;
const TOGETHER = 2; // seconds: evictions so close are one event

export class MemoryEvents {
  #events = []; // {kind, at, name or size, …}, oldest first
  #before = null;
  #titleOf;

  /** titleOf maps the package's names of models to titles. */
  constructor(titleOf) {
    this.#titleOf = titleOf;
  }

  get all() {
    return this.#events;
  }

  /** Add what differs between this report and the last one; `at` is its time in seconds. */
  add(report, at) {
    const before = this.#before ?? { models: [], limit_bytes: report.limit_bytes, evicted_bytes: 0, restored_bytes: 0 };
    this.#before = report;
    if (report.limit_bytes !== before.limit_bytes) this.#push({ kind: "limit", at, from: before.limit_bytes, to: report.limit_bytes });
    const known = new Map(before.models.map((model) => [model.name, model]));
    for (const model of report.models) {
      const earlier = known.get(model.name);
      if (!earlier) this.#push({ kind: "load", at, name: model.name });
      else if (earlier.device !== model.device && earlier.total_bytes) this.#push({ kind: "move", at, name: model.name, from: earlier.device, to: model.device });
      const load = this.#events.findLast(({ kind, name }) => kind === "load" && name === model.name);
      if (load) [load.size, load.shared] = [model.total_bytes, model.shared_bytes];
      known.delete(model.name);
    }
    for (const name of known.keys()) this.#push({ kind: "unload", at, name });
    this.#sum("evict", at, report.evicted_bytes - before.evicted_bytes);
    this.#sum("restore", at, report.restored_bytes - before.restored_bytes);
  }

  draw() {
    const shown = this.#events.slice(-MOST).reverse();
    byId("events").hidden = shown.length === 0;
    byId("events-none").hidden = shown.length > 0;
    each(byId("events"), shown, () => h("li", {}, h("span", { class: "num muted" }), " ", h("b"), " ", h("span")), (item, event) => {
      item.dataset.kind = event.kind;
      say(item.children[0], clock(event.at));
      say(item.children[1], event.kind);
      say(item.children[2], this.#words(event));
    });
  }

  #push(event) {
    this.#events.push(event);
  }

  #sum(kind, at, size) {
    if (size <= 0) return;
    const last = this.#events.findLast((event) => event.kind === kind);
    if (last && at - last.at < TOGETHER) last.size += size;
    else this.#push({ kind, at, size });
  }

  #words({ kind, name, size, shared, from, to }) {
    const title = name && this.#titleOf(name);
    if (kind === "load") return `${title}: ${bytes(size)}${shared ? `, ${bytes(shared)} of it shared` : ""}`;
    if (kind === "unload") return title;
    if (kind === "move") return `${title}: from ${TITLES[from]} to ${TITLES[to]}`;
    if (kind === "limit") return `from ${bytes(from)} to ${bytes(to)}`;
    return kind === "evict" ? `${bytes(size)} left the device to stay under the limit` : `${bytes(size)} came back for a run`;
  }
}
