// The table of tensors: sorted by a header's button, filtered by text, a page at a time, so that it stays fast for any number.
import { TITLES } from "./devices.js";
import { byId, disable, h, offer, rows, say } from "./dom.js";
import { bytes, plural } from "./format.js";

const PAGE = 25;
const STATES = { offloaded: ", moved out", dropped: ", moved out", rented: ", lent" };
const COLUMNS = [
  { key: "name", title: "Name", text: (t) => t.name, order: (t) => t.name },
  { key: "shape", title: "Shape", text: (t) => t.shape.join(" × ") || "scalar", order: (t) => t.shape.reduce((a, b) => a * b, 1) },
  { key: "dtype", title: "Dtype", text: (t) => t.format, order: (t) => t.format },
  { key: "device", title: "Device", text: (t) => TITLES[t.device] + (STATES[t.state] ?? ""), order: (t) => t.device },
  { key: "holders", title: "Holders", text: (t) => t.holders.join(", ") || "none", order: (t) => t.holders.length },
  { key: "nbytes", title: "Bytes", text: (t) => bytes(t.nbytes), order: (t) => t.nbytes, numeric: true },
];
const compareText = new Intl.Collator("en", { numeric: true }).compare;

export class TensorsTable {
  #tensors = [];
  #shown = [];
  #sort = { key: "nbytes", direction: -1 };
  #page = 0;
  #body;
  #headers = new Map();

  constructor(section) {
    const table = section.querySelector("table");
    this.#body = table.tBodies[0];
    table.tHead.append(h("tr", {}, ...COLUMNS.map((column) => this.#header(column))));
    this.#filter = byId("tensor-filter");
    this.#model = byId("tensor-model");
    this.#filter.addEventListener("input", () => this.#turn(0));
    this.#model.addEventListener("change", () => this.#turn(0));
    byId("tensor-previous").addEventListener("click", () => this.#turn(this.#page - 1));
    byId("tensor-next").addEventListener("click", () => this.#turn(this.#page + 1));
    this.#refresh();
  }

  #filter;
  #model;

  /** Draw the tensors of a report; `titleOf` maps names of models to titles. */
  draw({ tensors, models }, titleOf) {
    this.#tensors = tensors;
    offer(this.#model, [["", "All models", true], ...models.map(({ name }) => [name, titleOf(name), true])]);
    this.#refresh();
  }

  /** List the tensors of one model, by the package's name. */
  showModel(name) {
    this.#model.value = name;
    this.#filter.value = "";
    this.#turn(0);
    this.#model.focus();
  }

  #header(column) {
    const button = h("button", { type: "button", class: "sort" }, column.title, h("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      const same = this.#sort.key === column.key;
      this.#sort = { key: column.key, direction: same ? -this.#sort.direction : column.numeric ? -1 : 1 };
      this.#turn(0);
    });
    const header = h("th", { scope: "col", "data-key": column.key, class: column.numeric ? "n" : null }, button);
    this.#headers.set(column.key, header);
    return header;
  }

  #turn(page) {
    this.#page = page;
    this.#refresh();
  }

  #refresh() {
    const model = this.#model.value;
    const words = this.#filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (tensor) => {
      const text = COLUMNS.map((column) => column.text(tensor)).join(" ").toLowerCase();
      return words.every((word) => text.includes(word)) && (!model || tensor.holders.includes(model));
    };
    const { key, direction } = this.#sort;
    const { order } = COLUMNS.find((column) => column.key === key);
    const compare = (a, b) => {
      const [x, y] = [order(a), order(b)];
      return direction * (typeof x === "number" ? x - y : compareText(x, y)) || compareText(a.name, b.name);
    };
    this.#shown = this.#tensors.filter(matches).sort(compare);
    this.#draw();
  }

  #draw() {
    for (const [key, header] of this.#headers) {
      const sorted = key === this.#sort.key;
      header.setAttribute("aria-sort", !sorted ? "none" : this.#sort.direction > 0 ? "ascending" : "descending");
    }
    const count = this.#shown.length;
    this.#page = Math.max(0, Math.min(this.#page, Math.ceil(count / PAGE) - 1));
    const first = this.#page * PAGE;
    const page = this.#shown.slice(first, first + PAGE);
    rows(this.#body, page, cells, (tensor) => COLUMNS.map((column) => column.text(tensor)),
      this.#tensors.length ? "No tensor matches the filter." : "No tensor is on a device.");
    const of = count === this.#tensors.length ? plural(count, "tensor") : `${plural(count, "tensor")} of ${this.#tensors.length}`;
    say(byId("tensor-count"), count ? `${first + 1} to ${first + page.length} of ${of}` : "");
    disable(byId("tensor-previous"), this.#page === 0, byId("tensor-next"));
    disable(byId("tensor-next"), first + PAGE >= count, byId("tensor-previous"));
  }
}

const cells = () => COLUMNS.map((column, index) =>
  h(index ? "td" : "th", { scope: index ? null : "row", class: column.numeric ? "n num" : null }));
