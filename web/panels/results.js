// The result of any task as elements: labels, entities, vectors, terms, masks, a span, a map. Text nodes only.
import { barList, scores } from "../bars.js";
import { h } from "../dom.js";
import { matrix } from "./matrix.js";
import { draw, strongest } from "./pictures.js";

const numbers = (values) => values.map((value) => value.toFixed(4)).join(", ");
const codePoints = (text, start, stop) => [...text].slice(start, stop).join(""); // Python counts these

// By task: (value, form) → elements.
const SHOWN = {
  "text-classification": (rows) => [scores(rows, "Labels")],
  "zero-shot/nli": (rows) => [scores(rows, "Labels")],
  "image-classification": (rows) => [scores(rows, "Labels")],
  "zero-shot-image-classification": (rows) => [scores(rows, "Labels")],
  "token-classification": (rows, { text }) => [h("p", { class: "result", dir: "auto" }, ...labelled(text, rows))],
  "feature-extraction": ({ dims, first, cosines }, { text }) => [
    h("p", { class: "small" }, `${dims[0]} vectors of ${dims[1]} numbers. The first begins with ${numbers(first)} …`),
    matrix(text.split("\n").filter((line) => line.trim()).map((line, i) => [i + 1, line]), cosines, "Cosine similarity of each line with each other")],
  "sparse-embedding": (rows) => [terms(rows)],
  "fill-mask": (masks) => masks.map((rows, i) => barList(
    rows.map(({ token_str: label, score }) => ({ label, fraction: score, text: score.toFixed(3) })), `Words for mask ${i + 1}`)),
  "question-answering": ({ answer, start, end, score }, { text }) => [
    h("p", { class: "result", dir: "auto" }, h("b", {}, answer || "No answer"), ` (${score.toFixed(3)})`),
    h("p", { class: "small", dir: "auto" }, codePoints(text, 0, start), h("mark", {}, codePoints(text, start, end)), codePoints(text, end))],
  "image-feature-extraction": ({ dims, first }) => [
    h("p", { class: "small" }, `${dims[1]} vectors of ${dims[2]} numbers. The first begins with ${numbers(first)} …`)],
  saliency: (map, { picture }) => {
    const canvas = h("canvas", { role: "img", "aria-label": `What stands out most is at the ${strongest(map)}` });
    draw(canvas, picture, map);
    return [canvas];
  },
};

/** Elements for the result of a task on the fields of its form. */
export const shown = (task, value, form) => SHOWN[task](value, form);

function terms(rows) {
  if (!rows.length) return h("p", { class: "needs small" }, "No term has a weight.");
  return barList(rows.map(({ token, weight }) => ({ label: token, fraction: weight / rows[0].weight, text: weight.toFixed(2) })), "Terms");
}

function labelled(text, rows) {
  const pieces = [];
  let at = 0;
  for (const { entity_group: label, start, end, score } of rows) {
    pieces.push(codePoints(text, at, start), h("mark", { title: score.toFixed(3) }, codePoints(text, start, end), h("sup", {}, ` ${label}`)));
    at = end;
  }
  return [...pieces, codePoints(text, at)];
}
