// The panel of a pair: four heads classify two sentences, and SPLADE gives the terms of each.
import { barList, blanks, scores } from "../bars.js";
import { byId, h } from "../dom.js";
import { LiveRun } from "../live-run.js";
import { kept } from "../session.js";
import { codeOf } from "./code.js";
import { showNeed } from "./need.js";

const LABELS = {
  nli: ["entailment", "neutral", "contradiction"],
  relevance: ["relevant", "irrelevant"],
  polarity: ["affirmed", "negated", "uncertain"],
  "relation-type": ["causal", "temporal", "spatial", "attributive", "none"],
};
const NAMES = ["A", "B"];

export class PairPanel {
  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    this.fields = [byId("premise"), byId("hypothesis")];
    this.runs = new LiveRun(panel, {
      collect: () => ({ texts: this.fields.map((field) => field.value) }),
      run: (request, onPart) => calls.run("pair", request, onPart),
      cancel: () => calls.cancel("pair"),
      draw: (part) => this.#draw(part),
      clear: () => this.#clear(),
    });
    kept(panel.id, { texts: [] }).texts.forEach((text, i) => { this.fields[i].value = text; });
    for (const field of this.fields) field.addEventListener("input", () => this.runs.typed());
    this.#clear();
    panel.append(codeOf("pair"));
  }

  changed() {
    this.runs.soon(0);
  }

  uses(id) {
    return id.startsWith("splade-tiny");
  }

  #part(name) {
    return this.panel.querySelector(`[data-part="${name}"]`);
  }

  #clear() {
    for (const [name, labels] of Object.entries(LABELS)) this.#part(name).replaceChildren(blanks(labels));
    this.#part("terms").replaceChildren(h("p", { class: "needs small" }, "The words that stand for each sentence appear here."));
  }

  #draw({ part, needs: missing, value }) {
    const place = this.#part(part);
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
