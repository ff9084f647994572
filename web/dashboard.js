// Draws one memory report: the figures, the bar by category, and the table of models. Keeps no state.
import { TITLES } from "./devices.js";
import { byId, each, h, rows, say, vary } from "./dom.js";
import { bytes, megabytes, percent } from "./format.js";
import { scaleOf } from "./limit-control.js";

const CATEGORIES = ["weights", "constants", "activations", "scratch", "staging"];
const WORDS = { constants: "weights in graphs", activations: "results", scratch: "working space", staging: "being read" };

export function drawFigures(report) {
  say(byId("with-sharing"), bytes(report.unique_weight_bytes));
  say(byId("separate"), bytes(report.separate_weight_bytes));
  const share = report.separate_weight_bytes ? report.saved_bytes / report.separate_weight_bytes : 0;
  say(byId("saved"), bytes(report.saved_bytes));
  say(byId("saved-share"), share ? percent(share) : "");
  say(byId("device-bytes"), bytes(report.device_bytes));
  byId("figures").hidden = false;
  const used = `${megabytes(report.device_bytes)} of ${bytes(report.limit_bytes)}`;
  say(byId("memory-line"), share ? `${used} used · ${bytes(report.saved_bytes)} saved by sharing` : `${used} used`);
  drawStack(report);
}

function drawStack(report) {
  const parts = CATEGORIES.map((name) => [name, report.by_category[name] ?? 0]);
  const scale = scaleOf(report);
  each(byId("stack"), parts.filter(([, size]) => size > 0), () => h("i"), (segment, [name, size]) => {
    segment.className = `seg ${name}`;
    vary(segment, "--share", (size / scale).toFixed(5));
  });
  const legend = byId("stack-legend");
  if (!legend.children.length) {
    legend.append(...parts.map(([name]) =>
      h("li", {}, h("i", { class: `key ${name}` }), WORDS[name] ?? name, " ", h("b", { class: "num" }))),
    h("li", {}, h("i", { class: "key copies" }), "end of separate copies"));
  }
  parts.forEach(([, size], i) => {
    legend.children[i].hidden = i > 0 && size === 0;
    say(legend.children[i].lastElementChild, bytes(size));
  });
}

/** The models that do not fit under the limit, and how many bytes of their weights each run moves. */
export function drawStreams(report, titleOf) {
  const streams = Object.entries(report.moved_bytes);
  byId("streams").hidden = streams.length === 0;
  each(byId("streams"), streams, () => h("li", {}, h("b", { class: "num" }), " ", h("span")), (item, [name, size]) => {
    say(item.firstElementChild, bytes(size));
    say(item.lastElementChild, `moved to the device by each run of ${titleOf(name)}: its weights do not all fit under the limit, so they are streamed`);
  });
}

export function drawModels(report, titleOf) {
  const table = byId("per-model");
  const number = () => h("td", { class: "n num" });
  rows(table.tBodies[0], report.models,
    () => [h("th", { scope: "row" }), h("td"), number(), number(), number()],
    (model) => [titleOf(model.name), TITLES[model.device] ?? model.device, ...[model.exclusive_bytes, model.shared_bytes, model.attributed_bytes].map(bytes)],
    "No model is loaded.");
  const attributed = report.models.reduce((sum, model) => sum + model.attributed_bytes, 0);
  each(table.tFoot, report.models.length ? [attributed] : [],
    () => h("tr", {}, h("th", { scope: "row", colspan: 4 }, "All models"), number()),
    (row, size) => say(row.cells[1], bytes(size)));
}
