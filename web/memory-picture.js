// The picture of who holds what: models above, the weights that they share below. Models that share weights form a
// family; each block is stored once, and is as wide as the part of the family that uses it.
import { TITLES } from "./devices.js";
import { byId, each, h, say, vary } from "./dom.js";
import { bytes, plural } from "./format.js";

const COLOURS = 6;
const HINT = "Point at a model or a block, or use the arrow keys, to see who holds what.";
const OWN = 0.04; // of a family's bytes: below, what a model has of its own is a number on the model

/** Group a report's models into families: [{models, blocks: [{holders, nbytes, there}], stored}], largest first. */
export function familiesOf(report) {
  const family = new Map(report.models.map((model) => [model.name, { models: [model], blocks: new Map(), stored: 0 }]));
  for (const tensor of report.tensors) {
    const holders = tensor.holders.filter((name) => family.has(name));
    if (!holders.length) continue;
    const first = family.get(holders[0]);
    for (const name of holders) join(family, first, family.get(name));
    const key = holders.join("\n");
    const block = first.blocks.get(key) ?? { holders, nbytes: 0, there: 0 };
    block.nbytes += tensor.nbytes;
    if (!["offloaded", "dropped"].includes(tensor.state)) block.there += tensor.nbytes;
    first.blocks.set(key, block);
    first.stored += tensor.nbytes;
  }
  for (const { models, blocks, stored } of new Set(family.values())) {
    for (const model of models) {
      const own = blocks.get(model.name);
      if (own && models.length > 1 && own.nbytes < OWN * stored) blocks.delete(model.name);
    }
  }
  return [...new Set(family.values())].map(({ models, blocks, stored }) => {
    const order = (a, b) => a.holders.length - b.holders.length || b.nbytes - a.nbytes;
    return { models, blocks: [...blocks.values()].sort(order), stored };
  }).sort((a, b) => b.stored - a.stored);
}

function join(family, first, other) {
  if (other === first) return;
  for (const [key, block] of other.blocks) first.blocks.set(key, block);
  first.models.push(...other.models);
  first.stored += other.stored;
  for (const model of other.models) family.set(model.name, first);
}

export class MemoryPicture {
  #list = byId("families");
  #colours = new Map(); // model → the number of its family's colour, for as long as it is loaded
  #holders = new WeakMap(); // button → the models that it is about
  #drawn = "";
  #calls;

  /** calls: title(name), openModel(name), openTensors(name) */
  constructor(calls) {
    this.#calls = calls;
    for (const type of ["pointerover", "focusin"]) this.#list.addEventListener(type, (event) => this.#explain(event.target.closest("button")));
    for (const type of ["pointerleave", "focusout"]) this.#list.addEventListener(type, () => this.#explain(null));
    this.#list.addEventListener("keydown", (event) => this.#arrow(event));
  }

  draw(report) {
    const families = familiesOf(report);
    this.#list.hidden = families.length === 0;
    byId("idea").hidden = families.length > 0;
    if (!families.length) say(byId("detail"), "");
    else if (!byId("detail").textContent) say(byId("detail"), HINT);
    say(byId("picture-about"), families.length
      ? "Models above, the weights they share below. Each block is stored once."
      : "Nothing is loaded. Models are drawn above, the weights they share below; each block is stored once.");
    this.#colour(families);
    const shape = JSON.stringify(families.map(({ models, blocks }) => [models.map((model) => model.name), blocks.map((block) => block.holders)]));
    if (shape !== this.#drawn) this.#build(families);
    this.#drawn = shape;
    const largest = Math.max(...families.flatMap(({ blocks }) => blocks.map(({ nbytes }) => nbytes)), 1);
    families.forEach((family, index) => {
      const item = this.#list.children[index];
      item.dataset.colour = this.#colours.get(family.models[0].name);
      const buttons = item.querySelectorAll("button");
      family.models.forEach((model, i) => this.#model(buttons[i], model, family));
      family.blocks.forEach((block, i) => this.#block(buttons[family.models.length + i], block, family, largest));
    });
    this.#bars(families, report);
  }

  #colour(families) {
    const taken = new Map();
    for (const { models } of families) {
      const known = models.map((model) => this.#colours.get(model.name)).find((colour) => colour !== undefined && !taken.has(colour));
      const free = [...Array(COLOURS).keys()].find((colour) => !taken.has(colour) && ![...this.#colours.values()].includes(colour));
      const colour = known ?? free ?? taken.size % COLOURS;
      taken.set(colour, models);
    }
    this.#colours = new Map([...taken].flatMap(([colour, models]) => models.map((model) => [model.name, colour])));
  }

  #build(families) {
    const focused = document.activeElement?.closest("#families button")?.dataset.name;
    this.#list.replaceChildren(...families.map(({ models, blocks }) => h("li", { class: "family" },
      vary(h("div", { class: "chips" }, ...models.map(({ name }) => this.#button("model", [name], () => this.#calls.openModel(name)))), "--columns", columnsOf(models.length)),
      ...blocks.map(({ holders }) => vary(
        this.#button("block", holders, () => this.#calls.openTensors(holders[0])),
        "--part", (holders.length / models.length).toFixed(3))))));
    const buttons = [...this.#list.querySelectorAll("button")];
    const current = buttons.find((button) => button.dataset.name === focused);
    for (const button of buttons) button.tabIndex = -1;
    if (buttons.length) (current ?? buttons[0]).tabIndex = 0;
    if (focused !== undefined) (current ?? buttons[0] ?? byId("memory-now-title")).focus();
  }

  #button(kind, holders, open) {
    const button = h("button", { type: "button", class: kind, "data-name": holders.join(" ") }, h("b"), " ", h("span", { class: "num" }));
    button.addEventListener("click", open);
    this.#holders.set(button, holders);
    return button;
  }

  #model(button, model, { blocks }) {
    const title = this.#title(model.name);
    const isDrawn = blocks.some(({ holders }) => holders.length === 1 && holders[0] === model.name);
    say(button.firstElementChild, title);
    say(button.lastElementChild, model.exclusive_bytes && !isDrawn ? `+${bytes(model.exclusive_bytes)}` : "");
    const shared = model.shared_bytes ? `, ${bytes(model.shared_bytes)} shared with others` : "";
    name(button, `${title}: ${bytes(model.exclusive_bytes)} of its own${shared}; on ${TITLES[model.device] ?? model.device}`);
  }

  #block(button, { holders, nbytes, there }, { models }, largest) {
    const titles = holders.map((holder) => this.#title(holder));
    const many = holders.length === models.length ? plural(holders.length, "model") : `${holders.length} of ${plural(models.length, "model")}`;
    const isOwn = holders.length === 1;
    const away = there < nbytes ? `, ${bytes(nbytes - there)} of it not on the device now` : "";
    button.classList.toggle("own", isOwn && models.length > 1);
    say(button.firstElementChild, bytes(nbytes));
    say(button.lastElementChild, isOwn ? "" : `once for ${many}`);
    name(button, isOwn ? `${bytes(nbytes)} of ${titles[0]} alone${away}` : `${bytes(nbytes)} once for ${many}: ${titles.join(", ")}${away}`);
    vary(button, "--size", (nbytes / largest).toFixed(3));
    vary(button, "--there", (there / (nbytes || 1)).toFixed(3));
  }

  #title(model) {
    return this.#calls.title(model).split(", on ")[0];
  }

  #bars(families, report) {
    const total = Math.max(report.separate_weight_bytes, report.unique_weight_bytes, 1);
    const bar = (place, parts) => each(byId(place), parts, () => h("i"), (segment, [colour, size]) => {
      segment.dataset.colour = colour;
      vary(segment, "--share", (size / total).toFixed(5));
    });
    const colour = ({ models }) => this.#colours.get(models[0].name);
    bar("bar-shared", families.map((family) => [colour(family), family.stored]));
    bar("bar-separate", families.flatMap((family) => family.models.map((model) => [colour(family), model.total_bytes])));
  }

  // Describe the part under the pointer, else the focused one, and mark what belongs to it.
  #explain(pointed) {
    const button = pointed ?? document.activeElement?.closest("#families button");
    say(byId("detail"), button?.getAttribute("aria-label") ?? HINT);
    const about = new Set(this.#holders.get(button));
    for (const part of this.#list.querySelectorAll("button")) {
      const other = part.classList.contains("model") !== button?.classList.contains("model");
      part.classList.toggle("lit", other && this.#holders.get(part).some((name) => about.has(name)));
    }
  }

  // One stop of the Tab key; the arrows move within the picture.
  #arrow(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...this.#list.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(event.target) + step];
    if (!step || !next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

const columnsOf = (count) => Math.ceil(count / Math.ceil(count / 3)); // rows of at most three, of about equal length
const name = (button, text) => { if (button.getAttribute("aria-label") !== text) button.setAttribute("aria-label", text); };
