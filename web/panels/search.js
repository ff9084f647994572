// The panel of search: a text is cut into passages and embedded, and a question ranks them.
import { byId, h, role, say } from "../dom.js";
import { plural } from "../format.js";
import { LiveRun } from "../live-run.js";
import { kept } from "../session.js";
import { codeOf } from "./code.js";
import { showNeed } from "./need.js";

const MINILM = "all-MiniLM-L6-v2";
const LARGEST = 5_000_000; // bytes of a file

export class SearchPanel {
  #text = byId("search-text");
  #question = byId("search-question");
  #found = byId("search-found");
  #counts = byId("search-counts");
  #need = byId("search-need");

  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    this.runs = new LiveRun(panel, {
      collect: () => ({ text: this.#text.value, question: this.#question.value }),
      run: (request, onPart) => (calls.isLoaded(MINILM) ? calls.run("search", request, onPart) : this.#needed()),
      cancel: () => calls.cancel("search"),
      draw: () => {},
      done: (answer) => this.#draw(answer),
      clear: () => this.#clear(),
    });
    const before = kept("search", {});
    this.#question.value = before.question ?? this.#question.value;
    if (before.text !== undefined) this.#text.value = before.text;
    else this.#sample();
    for (const field of [this.#text, this.#question]) field.addEventListener("input", () => this.runs.typed());
    const file = byId("search-file");
    file.addEventListener("change", () => this.#open(file.files[0]));
    panel.addEventListener("dragover", (event) => {
      if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    });
    panel.addEventListener("drop", (event) => {
      if (!event.dataTransfer.files.length) return; // dragged text goes where the browser puts it
      event.preventDefault();
      this.#open(event.dataTransfer.files[0]);
    });
    panel.append(codeOf("search"));
  }

  uses(id) {
    return id === MINILM;
  }

  changed() {
    this.runs.soon(0);
  }

  async #sample() {
    const response = await fetch(new URL("../samples/handbook.txt", import.meta.url)).catch(() => null);
    if (!response?.ok || this.#text.value) return;
    this.#text.value = await response.text();
    if (document.body.dataset.state === "ready") this.runs.soon(0);
  }

  async #open(file) {
    const error = role(this.panel, "error");
    if (!file) return;
    if (file.size > LARGEST) {
      error.replaceChildren(h("p", {}, `${file.name} has more than 5 MB: choose a smaller text file.`));
      return;
    }
    const text = await file.text();
    if (text.includes("\0")) {
      error.replaceChildren(h("p", {}, `${file.name} is not a text file.`));
      return;
    }
    error.replaceChildren();
    this.#text.value = text;
    this.runs.typed();
  }

  #needed() {
    this.#clear();
    showNeed(this.#need, MINILM, this.calls, "to search");
    return { stats: null };
  }

  #clear() {
    say(this.#counts, "");
    this.#found.replaceChildren();
  }

  #draw({ passages, left_out: leftOut, embedded, found }) {
    if (passages === undefined) return; // the model is needed first
    this.#need.replaceChildren();
    say(this.#counts, `${plural(passages, "passage")}, ${embedded ? `${embedded.toLocaleString("en")} of them embedded now` : "none embedded again"}`
      + (leftOut ? `; ${plural(leftOut, "passage")} beyond the first 1,000 left out` : ""));
    const words = wordsOf(this.#question.value);
    this.#found.replaceChildren(...found.map(({ text, start, stop, score }) => {
      const show = h("button", { type: "button", class: "quiet" }, "Show in the text");
      show.addEventListener("click", () => {
        this.#text.focus();
        this.#text.setSelectionRange(start, stop);
      });
      return h("li", {}, h("b", { class: "num" }, score.toFixed(3)), h("p", {}, ...marked(text, words)), show);
    }));
  }
}

const wordsOf = (text) => (text.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? []);

// The text with the words of the question marked.
function marked(text, words) {
  return text.split(/([\p{L}\p{N}]+)/u).map((piece) => (words.includes(piece.toLowerCase()) ? h("mark", {}, piece) : piece));
}
