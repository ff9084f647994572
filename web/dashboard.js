// Draws one memory report: the large figures, the bar by category, and the table of models. Keeps no state.
import { byId, h, say, vary } from "./dom.js";
import { bytes, megabytes, percent } from "./format.js";

const CATEGORIES = ["weights", "activations", "scratch", "staging"];

export function drawDashboard(report, titleOf) {
  say(byId("with-sharing"), bytes(report.unique_weight_bytes));
  say(byId("separate"), bytes(report.separate_weight_bytes));
  const share = report.separate_weight_bytes ? report.saved_bytes / report.separate_weight_bytes : 0;
  say(byId("saved"), bytes(report.saved_bytes));
  say(byId("saved-share"), share ? `${percent(share)} of separate copies` : "\u00a0");
  say(byId("device-bytes"), bytes(report.device_bytes));
  say(byId("device-limit"), `limit ${megabytes(report.limit_bytes)} MB, peak ${bytes(report.peak_bytes)}`);
  drawStack(report);
  drawModels(report, titleOf);
}

function drawStack(report) {
  const parts = [...CATEGORIES.map((name) => [name, report.by_category[name] ?? 0]), ["saved", report.saved_bytes]];
  const total = parts.reduce((sum, [, size]) => sum + size, 0);
  byId("stack").replaceChildren(...parts.filter(([, size]) => size > 0).map(([name, size]) =>
    vary(h("i", { class: `seg ${name}` }), "--share", (size / total).toFixed(5))));
  byId("stack-legend").replaceChildren(...parts.map(([name, size]) =>
    h("li", {}, h("i", { class: `key ${name}` }), name === "saved" ? "saved by sharing" : name, " ", h("b", { class: "num" }, bytes(size)))));
}

function drawModels(report, titleOf) {
  const table = byId("per-model");
  const cells = (model) => ["exclusive_bytes", "shared_bytes", "attributed_bytes"].map((key) => h("td", { class: "n num" }, bytes(model[key])));
  table.tBodies[0].replaceChildren(...(report.models.length
    ? report.models.map((model) => h("tr", {}, h("th", { scope: "row" }, titleOf(model.name)), h("td", {}, model.device), ...cells(model)))
    : [h("tr", {}, h("td", { colspan: 5, class: "muted" }, "No model is loaded."))]));
  const attributed = report.models.reduce((sum, model) => sum + model.attributed_bytes, 0);
  table.tFoot.replaceChildren(...(report.models.length
    ? [h("tr", {}, h("th", { scope: "row", colspan: 4 }, "All models"), h("td", { class: "n num" }, bytes(attributed)))] : []));
}
