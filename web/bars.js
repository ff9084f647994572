// A list of labels with a bar and a number each: probabilities and term weights.
import { h, vary } from "./dom.js";

/** items: [{label, value, fraction 0..1, text}] */
export function barList(items, label) {
  return h("ol", { class: "bars", "aria-label": label }, ...items.map((item, index) => h("li", index === 0 ? { class: "top" } : {},
    h("span", { class: "label" }, item.label),
    vary(h("span", { class: "bar", "aria-hidden": "true" }), "--v", item.fraction.toFixed(4)),
    h("span", { class: "num" }, item.text))));
}

/** The shape of a list before there are numbers: labels alone. */
export const blanks = (labels) => h("ol", { class: "blanks", "aria-hidden": "true" }, ...labels.map((label) => h("li", {}, h("span", { class: "label" }, label))));

export const scores = (row, label) => barList(
  row.map(({ label: name, score }) => ({ label: name, fraction: score, text: score.toFixed(3) })), label);
