// The progress of a load within a panel: a bar, bytes in words, and Cancel.
import { h, say } from "../dom.js";
import { megabytes } from "../format.js";

/** The bar for the load of `title`, hidden until show(true); `cancel` ends the load. */
export function loadingBar(title, cancel) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Loading ${title}` });
  const words = h("span", { class: "small num" });
  const stop = h("button", { type: "button" }, "Cancel", h("span", { class: "sr" }, ` loading ${title}`));
  const element = h("div", { class: "loading", hidden: true }, bar, words, stop);
  stop.addEventListener("click", cancel);
  return {
    element,
    focus: () => stop.focus(),
    get hasFocus() { return document.activeElement === document.body || element.contains(document.activeElement); },
    show(isBusy) {
      if (isBusy && element.hidden) {
        bar.value = 0;
        say(words, `${title} is waiting for its turn`);
      }
      element.hidden = !isBusy;
    },
    progress({ loaded, total, shared }) {
      bar.value = total ? loaded / total : 0;
      say(words, `${megabytes(loaded)} of ${megabytes(total)} MB · ${megabytes(shared)} MB shared`);
    },
  };
}
