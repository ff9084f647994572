// The memory beside the views: a column on a wide screen; on a narrow one a bar at the bottom that opens a drawer.
import { byId } from "./dom.js";

export class MemoryDrawer {
  #toggle = byId("memory-toggle");
  #aside = byId("memory-now");

  constructor() {
    this.#toggle.addEventListener("click", () => this.#open(!this.#isOpen));
    this.#aside.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#isOpen) return;
      this.#open(false);
      this.#toggle.focus();
    });
    byId("memory-body").addEventListener("click", (event) => {
      if (event.target.closest("a, #families button")) this.#open(false); // it leads to a view
    });
  }

  get #isOpen() {
    return this.#toggle.ariaExpanded === "true";
  }

  #open(open) {
    this.#toggle.setAttribute("aria-expanded", String(open));
    this.#aside.classList.toggle("open", open);
  }
}
