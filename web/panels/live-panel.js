// A panel that runs as a person types: waits for a pause, keeps only the latest run, and shows its state.
import { TITLES } from "../devices.js";
import { h, role, say } from "../dom.js";
import { showFailure } from "../failures.js";
import { count, duration } from "../format.js";
import { drawStrip } from "../run-strip.js";
import { keep } from "../session.js";
import { codeOf } from "./code.js";
import { showState } from "./state.js";

const PAUSE = 350; // ms without a keystroke

/** A panel gives collect() → request, draw(part), clear(), uses(modelId), and `models`, those that it needs first. */
export class LivePanel {
  #timer = 0;
  #latest = 0;

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    role(panel, "cancel").addEventListener("click", () => calls.cancel(panel.id));
    panel.append(codeOf(panel.id));
  }

  /** Run a request; gives the answer of Python. */
  run(request, onPart) {
    return this.calls.run(this.panel.id, request, onPart);
  }

  /** Draw what only the whole answer has. */
  done() {}

  /** A model was loaded, moved or unloaded. */
  changed() {
    this.soon(0);
  }

  /** The models for what a person typed while Python started. */
  get wanted() {
    return "stale" in this.panel.dataset ? this.models : [];
  }

  /** The place of a part of the results. */
  part(name) {
    return this.panel.querySelector(`[data-part="${name}"]`);
  }

  /** A person changed the request: what is shown is stale until the run that follows has ended. */
  typed() {
    keep(this.panel.id, this.collect());
    this.panel.dataset.stale = "";
    if (document.body.dataset.state === "ready") this.soon();
  }

  soon(pause = PAUSE) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#go(), pause);
  }

  async #go() {
    const number = ++this.#latest;
    const current = () => number === this.#latest;
    this.#state("running", "Running…");
    role(this.panel, "error").replaceChildren();
    try {
      const answer = await this.run(this.collect(), (part) => {
        if (!current()) return;
        if (part.part === "notices") this.#notices(part.notices);
        else if (part.part === "building") this.#building(part);
        else if (part.part === "progress") this.#progress(part);
        else this.#change(() => this.draw(part));
      });
      if (!current()) return;
      if (answer.cancelled) {
        this.#state("cancelled", "Cancelled");
      } else if (answer.empty) {
        this.#notices(answer.notices);
        this.#change(() => this.clear());
        delete this.panel.dataset.stale;
        this.#state("empty", "");
        drawStrip(role(this.panel, "stats"), null);
      } else {
        this.#stats(answer.stats);
        this.#change(() => this.done(answer));
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
    if (isInside && document.activeElement === document.body) this.panel.querySelector("h2").focus();
  }

  #stats(stats) {
    delete this.panel.dataset.stale;
    this.#state(stats ? "done" : "idle", stats ? duration(stats.seconds) : "");
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
    showState(this.panel, state, words, this.panel.querySelector("textarea, input"));
  }
}
