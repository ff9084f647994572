// The devices: a badge each, which one was chosen and why, which were lost, and how to enable those that are missing.
import { byId, h, say } from "./dom.js";
import { sentence } from "./failures.js";

export const TITLES = { webgpu: "WebGPU", webnn: "WebNN", cpu: "CPU" };
// How to enable devices, by navigator.vendor, which the HTML standard fixes for each kind of engine. Words only: which
// devices there are is found by opening them.
const SECURE = "Open this page over https or on localhost: browsers have WebGPU and WebNN only there. ";
const ENABLE = {
  "Google Inc.": "In Chrome or Edge enable “Unsafe WebGPU Support” and “WebNN API” at chrome://flags, and graphics "
    + "acceleration in the settings under System; then start the browser again.",
  "Apple Computer, Inc.": "Safari has WebGPU from version 26 on, and before under Feature Flags in its settings; WebKitGTK "
    + "has no WebGPU yet. WebNN is in Chrome and Edge only.",
  "": "In Firefox set dom.webgpu.enabled to true at about:config, and gfx.webgpu.ignore-blocklist, too, if it refuses this "
    + "graphics card; then start it again. WebNN is in Chrome and Edge only.",
};

let drawn = "";

/** devices: {chosen, why, kinds: {kind: {state, is}}}; a state is present, software, missing or lost */
export function drawDevices(devices) {
  const all = JSON.stringify(devices);
  if (all === drawn) return; // a screen reader would read it again
  drawn = all;
  const { kinds, chosen, why } = devices;
  say(byId("running-word"), "Running on ");
  say(byId("running-on"), TITLES[chosen]);
  byId("device-list").replaceChildren(...Object.keys(TITLES).map((kind) => badge(kind, kinds[kind], kind === chosen)));
  say(byId("decision"), `Running on ${TITLES[chosen]}: ${why}.`);
  const banner = byId("fallback");
  const parts = [...lost(kinds, chosen), ...slow(kinds)];
  banner.hidden = !parts.length;
  banner.replaceChildren(...parts);
}

/** Python did not start, so the devices are unknown. */
export function forgetDevices() {
  drawn = "";
  for (const place of byId("device-list").querySelectorAll("span:last-child")) place.textContent = "not known";
  say(byId("running-word"), "Not ");
  say(byId("running-on"), "running");
  say(byId("decision"), "");
}

/** List the choices: [kind, words, whether it is available]. */
export function choices({ kinds }) {
  return Object.entries(TITLES).map(([kind, title]) => {
    const { state } = kinds[kind];
    return [kind, ["missing", "lost"].includes(state) ? `${title} (${state})` : title, state !== "missing"];
  });
}

function badge(kind, device, chosen) {
  return h("li", { "data-kind": kind, "data-state": device.state, "data-chosen": chosen },
    h("b", {}, TITLES[kind]), " ",
    chosen ? h("span", { class: "chip chosen" }, "chosen") : null, " ",
    device.state === "software" ? h("span", { class: "chip" }, "software") : null, " ",
    h("span", {}, device.is));
}

function lost(kinds, chosen) {
  return Object.entries(kinds).filter(([, device]) => device.state === "lost").map(([kind, device]) =>
    h("p", {}, h("b", {}, `${TITLES[kind]} was lost. `), `Its models continue on ${TITLES[chosen]}. ${sentence(device.is.replace(/^lost: /, ""))}`));
}

function slow(kinds) {
  if (kinds.webgpu.state !== "missing" || kinds.webnn.state !== "missing") return [];
  return [
    h("p", {}, h("b", {}, "Neither WebGPU nor WebNN is available, so models run on the CPU. "),
      "A large model takes longer there than on a device."),
    h("p", {}, `${isSecureContext ? "" : SECURE}${ENABLE[navigator.vendor] ?? ENABLE["Google Inc."]}`),
  ];
}
