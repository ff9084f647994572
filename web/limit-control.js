// The limit of everything on the devices, as a slider and a number. Below what is loaded, weights leave at once, and the
// next run brings back what it needs; the answers stay the same.
import { byId, say, vary } from "./dom.js";
import { explain } from "./failures.js";
import { bytes } from "./format.js";

const MB = 2 ** 20;
const LARGEST = 1 << 20; // MB; as the number field allows
const PAUSE = 120; // ms between two values of a drag

export class LimitControl {
  #slider = byId("limit");
  #field = byId("limit-mb");
  #calls;
  #report = null;
  #wanted = null; // MB, while a change is under way
  #refused = "";
  #timer = 0;

  /** calls: set(mb), which rejects where that is not possible, and changed(), once the limit is another */
  constructor(calls) {
    this.#calls = calls;
    this.#slider.addEventListener("input", () => {
      this.#field.value = this.#slider.value;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#set(Number(this.#slider.value)), PAUSE);
    });
    this.#field.addEventListener("change", () => this.#set(this.#field.valueAsNumber));
  }

  draw(report) {
    this.#report = report;
    const scale = scaleOf(report);
    this.#slider.max = scale / MB;
    vary(byId("memory-now"), "--separate-at", Math.min(report.separate_weight_bytes / scale, 1).toFixed(4));
    if (this.#wanted === null) this.#show();
  }

  #show() {
    const limit = Math.round(this.#report.limit_bytes / MB);
    this.#slider.value = limit;
    this.#slider.setAttribute("aria-valuetext", `${limit} MB`);
    if (document.activeElement !== this.#field) this.#field.value = limit;
    say(byId("limit-note"), this.#refused || about(this.#report));
  }

  async #set(mb) {
    if (!(mb >= 1 && mb <= LARGEST)) {
      this.#refuse(`The limit is a number of MB from 1 to ${LARGEST.toLocaleString("en")}.`);
      return;
    }
    const isBusy = this.#wanted !== null;
    this.#wanted = mb;
    if (isBusy) return; // the loop below takes the newest value
    this.#refused = "";
    for (let now = null; now !== this.#wanted;) {
      now = this.#wanted;
      try {
        await this.#calls.set(now);
        this.#refused = "";
        this.#report = { ...this.#report, limit_bytes: now * MB }; // the next report says the same
      } catch (failure) {
        const { what, advice } = explain(failure);
        this.#refused = failure.name === "MemoryBudgetError"
          ? `The limit stays at ${bytes(this.#report.limit_bytes)}: more than ${now} MB is in use and cannot leave now.`
          : `The limit was not changed. ${what} ${advice}`.trim();
      }
    }
    this.#wanted = null;
    this.#field.value = Math.round(this.#report.limit_bytes / MB);
    this.#show();
    this.#calls.changed();
  }

  #refuse(words) {
    this.#refused = words;
    this.#field.value = Math.round(this.#report.limit_bytes / MB);
    this.#show();
    this.#refused = "";
  }
}

/** The bytes at the right end of the slider and of the bar above it. */
export function scaleOf(report) {
  const most = Math.max(report.device_bytes, report.separate_weight_bytes, 64 * MB) * 1.2;
  return 2 ** Math.ceil(Math.log2(most));
}

function about({ limit_bytes: limit, unique_weight_bytes: unique, separate_weight_bytes: separate }) {
  if (!unique) return "";
  if (limit < unique) return "Less than the loaded weights: some have left the device, and each run brings back what it needs. The answers stay the same.";
  if (limit < separate) return "As separate copies, these models would not fit under this limit.";
  return "Drag it below what is loaded: weights leave and come back, and the answers stay the same.";
}
