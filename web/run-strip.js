// What a run cost, as a strip: the operations that were shared within it, reused from earlier runs, and computed.
import { TITLES } from "./devices.js";
import { each, h, say, vary } from "./dom.js";
import { count, duration, plural } from "./format.js";

const PARTS = [
  ["shared", "shared in this run", (stats) => stats.reused_in_run],
  ["reused", "reused from earlier runs", (stats) => stats.reused_from_cache],
  ["computed", "computed", (stats) => stats.executed],
];

/** Draw the strip in `place`: `stats` is last_run of the manager with `seconds`, or null for none. `of` names a part of a longer run. */
export function drawStrip(place, stats, of = "") {
  place.hidden = !stats;
  if (!stats) return;
  if (!place.children.length) {
    place.append(
      h("span", { class: "strip", "aria-hidden": "true" }),
      h("ul", { class: "legend" }, ...PARTS.map(([kind, words]) => h("li", {}, h("i", { class: `key ${kind}` }), h("b", { class: "num" }), ` ${words}`))),
      h("p", { class: "num" }));
  }
  const [strip, legend, line] = place.children;
  each(strip, PARTS, () => h("i"), (part, [kind, , size]) => {
    part.className = kind;
    vary(part, "--share", (size(stats) / Math.max(stats.nodes, 1)).toFixed(4));
  });
  PARTS.forEach(([, , size], i) => say(legend.children[i].querySelector("b"), count(size(stats))));
  say(line, [
    of || `${duration(stats.seconds)} on ${stats.device.replace(/\w+/g, (kind) => TITLES[kind] ?? kind)}`,
    `${plural(stats.models.length, "model")} in one graph of ${plural(stats.nodes, "operation")}`,
    plural(stats.dispatches, "dispatch", "dispatches") + (stats.js_calls ? ` in ${plural(stats.js_calls, "JavaScript call")}` : ""),
    ...(stats.fallback ? [stats.fallback] : []),
  ].join(" · "));
}
