// The panel of sentences: rows to type in, their similarity as a matrix, and the skill probability of each.
import { barList, blanks } from "../bars.js";
import { byId, h } from "../dom.js";
import { kept } from "../session.js";
import { LivePanel } from "./live-panel.js";
import { matrix } from "./matrix.js";
import { showNeed } from "./need.js";

const FIRST = [
  "Strong knowledge of Python and SQL is required.",
  "Building ETL jobs with Python is my daily work.",
  "The cat sleeps on the warm windowsill.",
];
const MOST = 12; // rows

export class SentencesPanel extends LivePanel {
  models = ["all-MiniLM-L6-v2", "skill-head"];
  #rows = byId("sentence-rows");
  #add = byId("add-sentence");
  #seen = false;

  constructor(panel, calls) {
    super(panel, calls);
    for (const text of kept(panel.id, { texts: FIRST }).texts) this.#addRow(text);
    this.#add.addEventListener("click", () => {
      this.#addRow("").focus();
      this.typed();
    });
    this.clear();
  }

  uses(id) {
    return this.models.includes(id);
  }

  collect() {
    return { texts: [...this.#rows.querySelectorAll("textarea")].map((field) => field.value) };
  }

  #addRow(text) {
    const field = h("textarea", { rows: 1, spellcheck: "false", dir: "auto" });
    field.value = text;
    field.addEventListener("input", () => this.typed());
    const remove = h("button", { type: "button", class: "quiet" }, "Remove");
    const row = h("li", {}, field, remove);
    remove.addEventListener("click", () => {
      const next = row.nextElementSibling ?? row.previousElementSibling;
      row.remove();
      this.#number();
      (next.querySelector("button:enabled") ?? next.querySelector("textarea")).focus();
      this.typed();
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

  clear() {
    this.part("similarity").replaceChildren(h("p", { class: "needs small" }, "How alike each sentence is to each other appears here."));
    this.part("skill").replaceChildren(blanks(this.collect().texts.map((_, i) => String(i + 1))));
  }

  draw({ part, needs: missing, rows, value }) {
    const place = this.part(part);
    if (missing) showNeed(place, missing, this.calls);
    else if (part === "similarity") this.#matrix(place, rows, value);
    else place.replaceChildren(this.#skill(rows, value));
  }

  #skill(rows, labels) {
    const items = labels.map(([{ score }], i) => ({ label: String(rows[i] + 1), fraction: score, text: score.toFixed(3) }));
    return barList(items, "Skill probability of each sentence");
  }

  #matrix(place, rows, values) {
    const { texts } = this.collect();
    place.replaceChildren(matrix(rows.map((row) => [row + 1, texts[row] ?? ""]), values, "Cosine similarity of each sentence with each other"));
    if (!this.#seen) {
      this.#seen = true;
      this.calls.firstResult();
    }
  }
}
