// The panel of sentences: rows to type in, their similarity as a matrix, and the skill probability of each.
import { barList, needs } from "./bars.js";
import { byId, h, vary } from "./dom.js";
import { LiveRun } from "./live-run.js";
import { kept } from "./session.js";

const FIRST = [
  "Strong knowledge of Python and SQL is required.",
  "Building ETL jobs with Python is my daily work.",
  "The cat sleeps on the warm windowsill.",
];
const MODELS = ["all-MiniLM-L6-v2", "skill-head"];
const PARTS = ["similarity", "skill"];
const MOST = 12; // rows

export class SentencesPanel {
  #rows = byId("sentence-rows");
  #add = byId("add-sentence");
  #seen = false;

  /** calls: run, cancel, title, load, firstResult */
  constructor(panel, calls) {
    this.panel = panel;
    this.calls = calls;
    this.runs = new LiveRun(panel, {
      collect: () => ({ texts: this.#texts() }),
      run: (request, onPart) => calls.run("sentences", request, onPart),
      cancel: () => calls.cancel("sentences"),
      draw: (part) => this.#draw(part),
      clear: () => this.#clear(),
    });
    for (const text of kept(panel.id, { texts: FIRST }).texts) this.#addRow(text);
    this.#add.addEventListener("click", () => {
      this.#addRow("").focus();
      this.#typed();
    });
    this.#clear();
  }

  changed() {
    this.runs.soon(0);
  }

  uses(id) {
    return MODELS.includes(id);
  }

  #fields() {
    return [...this.#rows.querySelectorAll("textarea")];
  }

  #texts() {
    return this.#fields().map((field) => field.value);
  }

  #addRow(text) {
    const field = h("textarea", { rows: 1, spellcheck: "false", dir: "auto" });
    field.value = text;
    field.addEventListener("input", () => this.#typed());
    const remove = h("button", { type: "button", class: "quiet" }, "Remove");
    const row = h("li", {}, field, remove);
    remove.addEventListener("click", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      this.#number();
      next?.querySelector("button").focus();
      this.#typed();
    });
    this.#rows.append(row);
    this.#number();
    return field;
  }

  #number() {
    const rows = [...this.#rows.children];
    rows.forEach((row, index) => {
      row.querySelector("textarea").setAttribute("aria-label", `Sentence ${index + 1}`);
      const remove = row.querySelector("button");
      remove.setAttribute("aria-label", `Remove sentence ${index + 1}`);
      remove.disabled = rows.length === 1;
    });
    this.#add.disabled = rows.length >= MOST;
  }

  #typed() {
    this.runs.typed();
  }

  #part(name) {
    return this.panel.querySelector(`[data-part="${name}"]`);
  }

  #clear() {
    for (const name of PARTS) this.#part(name).replaceChildren(h("p", { class: "needs small" }, "Nothing to show yet."));
  }

  #draw({ part, needs: missing, rows, value }) {
    const place = this.#part(part);
    if (missing) place.replaceChildren(needs(this.calls.title(missing), () => this.calls.load(missing)));
    else if (part === "similarity") this.#matrix(place, rows, value);
    else place.replaceChildren(this.#skill(rows, value));
  }

  #skill(rows, labels) {
    const items = labels.map(([{ score }], i) => ({ label: String(rows[i] + 1), fraction: score, text: score.toFixed(3) }));
    return barList(items, "Skill probability of each sentence");
  }

  #matrix(place, rows, matrix) {
    const texts = this.#texts();
    const digits = rows.length > 8 ? 2 : 3; // the whole matrix stays in sight
    const head = h("tr", {}, h("td", {}), ...rows.map((row) => h("th", { scope: "col" }, String(row + 1))));
    const body = matrix.map((values, i) => h("tr", {},
      h("th", { scope: "row" }, h("b", {}, String(rows[i] + 1)), " ", h("span", { dir: "auto" }, (texts[rows[i]] ?? "").slice(0, 80))),
      ...values.map((value) => vary(h("td", { class: "num cell" }, value.toFixed(digits)), "--v", Math.max(0, value).toFixed(3)))));
    place.replaceChildren(h("table", { class: rows.length > 5 ? "matrix many" : "matrix" },
      h("caption", { class: "sr" }, "Cosine similarity of each sentence with each other"),
      h("thead", {}, head), h("tbody", {}, ...body)));
    if (!this.#seen) {
      this.#seen = true;
      this.calls.firstResult();
    }
  }
}
