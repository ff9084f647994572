// The device badges, with the reason for what is missing, and the banner when the CPU has to do the work.
import { byId, h } from "./dom.js";

const TITLES = { webgpu: "WebGPU", webnn: "WebNN", cpu: "CPU" };

export function drawDevices(devices) {
  byId("devices").replaceChildren(...Object.entries(TITLES).map(([kind, title]) => badge(kind, title, devices[kind])));
  const reason = devices.webgpu.missing;
  const banner = byId("fallback");
  banner.hidden = !reason;
  if (reason) {
    banner.replaceChildren(
      h("b", {}, "No WebGPU, so the CPU does the work. "),
      `${sentence(reason)} NumPy in WebAssembly is slow: a larger model takes much longer than on a graphics card.`,
    );
  }
}

/** Python did not start: nothing is known about any device. */
export function forgetDevices() {
  for (const place of byId("devices").querySelectorAll("span:last-child")) place.textContent = "not known";
}

function badge(kind, title, device) {
  const software = device.is_software && kind !== "cpu"; // of a CPU it goes without saying
  const state = device.missing ? "missing" : software ? "software" : "present";
  const detail = device.missing ? `missing: ${device.missing}` : device.name;
  return h("li", { "data-kind": kind, "data-state": state },
    h("b", {}, title), " ",
    software ? h("span", { class: "chip" }, "software") : null, " ",
    h("span", {}, detail));
}

const sentence = (text) => {
  const words = text.trim();
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
};
