// A panel that runs as a person types: waits for a pause, keeps only the latest run, and shows its state.
import { TITLES } from "./devices.js";
import { h, role, say } from "./dom.js";
import { showFailure } from "./failures.js";
import { count, seconds } from "./format.js";
import { drawStrip } from "./run-strip.js";
import { keep } from "./session.js";

const PAUSE = 350; // ms without a keystroke

export class LiveRun {
  #timer = 0;
  #latest = 0;

  /** calls: collect() → request or null, draw(part), done(answer) if there is one, run(request, onPart), cancel() */
  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    role(panel, "cancel").addEventListener("click", () => calls.cancel());
  }

  /** A person changed the request: what is shown is stale until the run that follows has ended. */
  typed() {
    keep(this.panel.id, this.calls.collect());
    this.panel.dataset.stale = "";
    if (document.body.dataset.state === "ready") this.soon();
  }

  soon(pause = PAUSE) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#go(), pause);
  }

  async #go() {
    const request = this.calls.collect();
    if (!request) {
      this.#state("idle", "");
      return;
    }
    const number = ++this.#latest;
    const current = () => number === this.#latest;
    this.#state("running", "Running…");
    role(this.panel, "error").replaceChildren();
    try {
      const answer = await this.calls.run(request, (part) => {
        if (!current()) return;
        if (part.part === "notices") this.#notices(part.notices);
        else if (part.part === "building") this.#building(part);
        else if (part.part === "progress") this.#progress(part);
        else this.#change(() => this.calls.draw(part));
      });
      if (!current()) return;
      if (answer.cancelled) {
        this.#state("cancelled", "Cancelled");
      } else if (answer.empty) {
        this.#notices(answer.notices);
        this.#change(() => this.calls.clear());
        delete this.panel.dataset.stale;
        this.#state("empty", "");
        drawStrip(role(this.panel, "stats"), null);
      } else {
        this.#stats(answer.stats);
        this.#change(() => this.calls.done?.(answer));
      }
    } catch (failure) {
      if (!current()) return;
      this.#state("error", "Failed");
      showFailure(role(this.panel, "error"), failure);
    }
  }

  // Change the results; a focused button that goes hands the focus to the panel's heading.
  #change(draw) {
    const isInside = role(this.panel, "results").contains(document.activeElement);
    draw();
    if (isInside && document.activeElement === document.body) this.panel.querySelector("h2").focus({ preventScroll: true });
  }

  #stats(stats) {
    delete this.panel.dataset.stale;
    this.#state(stats ? "done" : "idle", stats ? seconds(stats.seconds) : "");
    drawStrip(role(this.panel, "stats"), stats);
  }

  // Progress of building, which a run with a new shape on its device waits for; Cancel is beside it.
  #building({ device, done, total }) {
    const what = device === "webnn" ? "graphs" : "kernels";
    say(role(this.panel, "status"), done < total ? `Building for ${TITLES[device]}: ${done} of ${total} ${what}…` : "Running…");
  }

  #progress({ done, total }) {
    say(role(this.panel, "status"), done < total ? `${count(done)} of ${count(total)}…` : "Running…");
  }

  #notices(notices) {
    const place = role(this.panel, "notices");
    if (place.textContent !== notices.join("")) place.replaceChildren(...notices.map((text) => h("p", {}, text)));
  }

  #state(state, words) {
    const cancel = role(this.panel, "cancel");
    const running = state === "running";
    this.panel.dataset.state = state;
    role(this.panel, "results").setAttribute("aria-busy", String(running));
    if (!running && document.activeElement === cancel) this.panel.querySelector("textarea, input")?.focus();
    cancel.hidden = !running;
    say(role(this.panel, "status"), words);
  }
}
