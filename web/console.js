// The console: Python in the page's runtime. Enter runs, Shift+Enter begins a line; ↑ and ↓ go through what was run.
import { byId, h, say } from "./dom.js";
import { explain } from "./failures.js";
import { keepField } from "./session.js";

export class Console {
  #log = byId("console-log");
  #field = byId("console-input");
  #stop = byId("console-stop");
  #history = [];
  #at = 0; // place in the history
  #program = null;
  #running = null; // the controller of the call under way

  /** start() → the program of console.py */
  constructor(start) {
    this.start = start;
    keepField(this.#field, "console");
    byId("console-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run();
    });
    this.#field.addEventListener("keydown", (event) => this.#key(event));
    this.#stop.addEventListener("click", () => this.#running?.abort());
  }

  /** Python started again: what was imported is gone. */
  forget() {
    this.#program = null;
  }

  #key(event) {
    if (event.isComposing) return;
    const { value, selectionStart } = this.#field;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#run();
    } else if (event.key === "ArrowUp" && !value.slice(0, selectionStart).includes("\n")) {
      this.#recall(-1, event);
    } else if (event.key === "ArrowDown" && !value.slice(selectionStart).includes("\n")) {
      this.#recall(1, event);
    }
  }

  #recall(step, event) {
    const at = this.#at + step;
    if (at < 0 || at > this.#history.length) return;
    event.preventDefault();
    this.#at = at;
    this.#field.value = this.#history[at] ?? "";
  }

  async #run() {
    const source = this.#field.value.trim();
    if (!source || this.#running) return;
    this.#field.value = "";
    this.#at = this.#history.push(source);
    this.#show("source", source);
    this.#running = new AbortController();
    this.#stop.disabled = false;
    say(byId("console-status"), document.body.dataset.state === "ready" ? "Running…" : "Waiting for Python…");
    try {
      this.#program ??= await this.start();
      const { text, failed } = await this.#program.call("run", source, { signal: this.#running.signal });
      if (text) this.#show(failed ? "failed" : "result", text);
    } catch (error) {
      const { what, advice, details } = explain(error);
      this.#show("failed", error.name === "AbortError" ? "Stopped." : [details || what, advice].filter(Boolean).join(" "));
    } finally {
      this.#running = null;
      if (document.activeElement === this.#stop) this.#field.focus();
      this.#stop.disabled = true;
      say(byId("console-status"), "");
    }
  }

  #show(kind, text) {
    this.#log.append(h("pre", { "data-kind": kind, dir: "auto" }, text));
    this.#log.scrollTop = this.#log.scrollHeight;
  }
}
