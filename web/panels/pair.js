// The panel of a pair: four heads classify two sentences, and SPLADE gives the terms of each.
import { barList, blanks, scores } from "../bars.js";
import { byId, h } from "../dom.js";
import { kept } from "../session.js";
import { LivePanel } from "./live-panel.js";
import { showNeed } from "./need.js";

const LABELS = {
  nli: ["entailment", "neutral", "contradiction"],
  relevance: ["relevant", "irrelevant"],
  polarity: ["affirmed", "negated", "uncertain"],
  "relation-type": ["causal", "temporal", "spatial", "attributive", "none"],
};
const NAMES = ["A", "B"];

export class PairPanel extends LivePanel {
  #fields = [byId("premise"), byId("hypothesis")];
  models = ["splade-tiny", ...Object.keys(LABELS).map((name) => `splade-tiny-${name}`)];

  constructor(panel, calls) {
    super(panel, calls);
    kept(panel.id, { texts: [] }).texts.forEach((text, i) => { this.#fields[i].value = text; });
    for (const field of this.#fields) field.addEventListener("input", () => this.typed());
    this.clear();
  }

  uses(id) {
    return this.models.includes(id);
  }

  collect() {
    return { texts: this.#fields.map((field) => field.value) };
  }

  clear() {
    for (const [name, labels] of Object.entries(LABELS)) this.part(name).replaceChildren(blanks(labels));
    this.part("terms").replaceChildren(h("p", { class: "needs small" }, "The words that stand for each sentence appear here."));
  }

  draw({ part, needs: missing, value }) {
    const place = this.part(part);
    if (missing) showNeed(place, missing, this.calls);
    else if (part === "terms") place.replaceChildren(h("div", { class: "twin" }, ...value.map((row, i) => this.#terms(row, NAMES[i]))));
    else if (value.length === 1) place.replaceChildren(scores(value[0], part));
    else place.replaceChildren(...value.map((row, i) => h("div", { class: "each" }, h("b", {}, NAMES[i]), scores(row, `${part} of ${NAMES[i]}`))));
  }

  #terms(row, name) {
    const largest = Math.max(...row.map((term) => term.weight), 1e-9);
    const items = row.map((term) => ({ label: term.token, fraction: term.weight / largest, text: term.weight.toFixed(2) }));
    return h("div", { class: "each" }, h("b", {}, name),
      items.length ? barList(items, `Terms of ${name}`) : h("p", { class: "needs small" }, "No term has a weight."));
  }
}
