// A square table of similarities: each row and column is one thing, and each cell a number with a shade.
import { h, vary } from "../dom.js";

/** names: [number, text] of each row; values: numbers from -1 to 1 */
export function matrix(names, values, caption) {
  const digits = names.length > 8 ? 2 : 3; // the whole matrix stays in sight
  const head = h("tr", {}, h("td", {}), ...names.map(([number]) => h("th", { scope: "col" }, String(number))));
  const body = values.map((row, i) => h("tr", {},
    h("th", { scope: "row" }, h("b", {}, String(names[i][0])), " ", h("span", { dir: "auto" }, names[i][1].slice(0, 80))),
    ...row.map((value) => vary(h("td", { class: "num cell" }, value.toFixed(digits)), "--v", Math.max(0, value).toFixed(3)))));
  return h("table", { class: names.length > 5 ? "matrix many" : "matrix" },
    h("caption", { class: "sr" }, caption), h("thead", {}, head), h("tbody", {}, ...body));
}
