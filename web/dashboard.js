// Draws one memory report: the large figures, the bar by category, and the table of models. Keeps no state.
import { byId, each, h, rows, say, vary } from "./dom.js";
import { bytes, megabytes, percent } from "./format.js";

const CATEGORIES = ["weights", "activations", "scratch", "staging"];
const WORDS = { activations: "activations (results)", scratch: "scratch (working space)", staging: "staging (being read)", saved: "saved by sharing" };
const GROUPS = 4; // of models that share weights, the largest first

export function drawFigures(report) {
  say(byId("with-sharing"), bytes(report.unique_weight_bytes));
  say(byId("separate"), bytes(report.separate_weight_bytes));
  const share = report.separate_weight_bytes ? report.saved_bytes / report.separate_weight_bytes : 0;
  say(byId("saved"), bytes(report.saved_bytes));
  say(byId("saved-share"), share ? `${percent(share)} of separate copies` : "\u00a0");
  say(byId("device-bytes"), bytes(report.device_bytes));
  say(byId("device-limit"), `limit ${megabytes(report.limit_bytes)} MB, peak ${bytes(report.peak_bytes)}`);
  drawStack(report);
}

function drawStack(report) {
  const parts = [...CATEGORIES.map((name) => [name, report.by_category[name] ?? 0]), ["saved", report.saved_bytes]];
  const total = parts.reduce((sum, [, size]) => sum + size, 0);
  each(byId("stack"), parts.filter(([, size]) => size > 0), () => h("i"), (segment, [name, size]) => {
    segment.className = `seg ${name}`;
    vary(segment, "--share", (size / total).toFixed(5));
  });
  const legend = byId("stack-legend");
  if (!legend.children.length) {
    legend.append(...parts.map(([name]) =>
      h("li", {}, h("i", { class: `key ${name}` }), WORDS[name] ?? name, " ", h("b", { class: "num" }))));
  }
  parts.forEach(([, size], i) => say(legend.children[i].lastElementChild, bytes(size)));
}

/** List the models that share weights, and the bytes that are stored once for them. */
export function drawShares(report, titleOf) {
  const groups = new Map();
  for (const { holders, nbytes, device } of report.tensors) {
    if (holders.length < 2) continue;
    const key = [device, ...holders].join("\n");
    const group = groups.get(key) ?? { holders, nbytes: 0 };
    group.nbytes += nbytes;
    groups.set(key, group);
  }
  const largest = [...groups.values()].sort((a, b) => b.nbytes - a.nbytes).slice(0, GROUPS);
  byId("shares-none").hidden = largest.length > 0;
  each(byId("shares"), largest, () => h("li", {}, h("b", { class: "num" }), " ", h("span")), (item, { holders, nbytes }) => {
    say(item.firstElementChild, bytes(nbytes));
    const names = holders.map((name) => titleOf(name).split(", on ")[0]); // the backbone is in the list, too
    say(item.lastElementChild, `once for ${holders.length} models: ${names.join(" · ")}`);
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
    (model) => [titleOf(model.name), model.device, ...[model.exclusive_bytes, model.shared_bytes, model.attributed_bytes].map(bytes)],
    "No model is loaded.");
  const attributed = report.models.reduce((sum, model) => sum + model.attributed_bytes, 0);
  each(table.tFoot, report.models.length ? [attributed] : [],
    () => h("tr", {}, h("th", { scope: "row", colspan: 4 }, "All models"), number()),
    (row, size) => say(row.cells[1], bytes(size)));
}
