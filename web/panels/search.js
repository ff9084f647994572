// The panel of search: a text is cut into passages and embedded, and a question ranks them.
import { byId, h, role, say } from "../dom.js";
import { count, plural } from "../format.js";
import { kept } from "../session.js";
import { takeDrops } from "./drops.js";
import { LivePanel } from "./live-panel.js";
import { showNeed } from "./need.js";

const MINILM = "all-MiniLM-L6-v2";
const LARGEST = 5_000_000; // bytes of a file

export class SearchPanel extends LivePanel {
  models = [MINILM];
  #text = byId("search-text");
  #question = byId("search-question");
  #found = byId("search-found");
  #counts = byId("search-counts");
  #need = byId("search-need");

  constructor(panel, calls) {
    super(panel, calls);
    const before = kept("search", {});
    this.#question.value = before.question ?? this.#question.value;
    if (before.text !== undefined) this.#text.value = before.text;
    else this.#sample();
    for (const field of [this.#text, this.#question]) field.addEventListener("input", () => this.typed());
    this.#text.addEventListener("input", () => role(panel, "notices").replaceChildren()); // about a file
    const file = byId("search-file");
    file.addEventListener("change", () => {
      this.#open([...file.files]);
      file.value = ""; // the same file can be chosen again
    });
    takeDrops(panel, (found) => this.#open(found.map(([, each]) => each)));
  }

  uses(id) {
    return id === MINILM;
  }

  collect() {
    return { text: this.#text.value, question: this.#question.value };
  }

  run(request, onPart) {
    return this.calls.isLoaded(MINILM) ? super.run(request, onPart) : this.#needed();
  }

  async #sample() {
    const response = await fetch(new URL("../samples/handbook.txt", import.meta.url)).catch(() => null);
    if (!response?.ok || this.#text.value) return;
    this.#text.value = await response.text();
    if (document.body.dataset.state === "ready") this.soon(0);
  }

  async #open([file, ...more]) {
    if (!file) return;
    const { text, refused, uncertain } = await textOf(file);
    if (text !== undefined) {
      this.#text.value = text;
      this.typed();
    }
    const others = more.length && `One file is searched at a time: ${plural(more.length, "other file was", "other files were")} not opened.`;
    const paragraphs = (...all) => all.filter(Boolean).map((each) => h("p", {}, each));
    role(this.panel, "error").replaceChildren(...paragraphs(refused));
    role(this.panel, "notices").replaceChildren(...paragraphs(uncertain, others));
  }

  #needed() {
    this.clear();
    showNeed(this.#need, MINILM, this.calls, "to search");
    return { stats: null };
  }

  clear() {
    say(this.#counts, "");
    this.#found.replaceChildren();
  }

  done({ passages, left_out: leftOut, embedded, found }) {
    if (passages === undefined) return; // the model is needed first
    this.#need.replaceChildren();
    say(this.#counts, `${plural(passages, "passage")}, ${embedded ? `${count(embedded)} of them embedded now` : "none embedded again"}`
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

// Decode a file: {text, uncertain}, where its encoding is not certain, or {refused}, why it cannot be read.
async function textOf(file) {
  if (file.size > LARGEST) return { refused: `${file.name} has more than 5 MB: choose a smaller text file.` };
  const bytes = new Uint8Array(await file.arrayBuffer());
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  const decode = (name, options) => new TextDecoder(name, options).decode(bytes);
  let text;
  let uncertain = "";
  try {
    text = decode(encoding, { fatal: true });
  } catch {
    text = decode("windows-1252");
    uncertain = `${file.name} is not in UTF-8. It was read as Western European (Windows-1252): save it as UTF-8 if letters are wrong.`;
  }
  return text.includes("\0") ? { refused: `${file.name} is not a text file: choose a file of plain text.` } : { text, uncertain };
}
