// The program that does what a panel does, in Python and in JavaScript, ready to copy. The texts are files of code/.
import { h, say } from "../dom.js";

const KINDS = [["py", "Python"], ["js", "JavaScript"]];

/** A program with its title and a button that copies it: {element, fill(text)}. */
export function program(title) {
  const text = h("code");
  const status = h("span", { class: "small muted", role: "status" });
  const copy = h("button", { type: "button", "aria-label": `Copy the ${title} program` }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      say(status, "Copied.");
    } catch {
      getSelection().selectAllChildren(text);
      say(status, "This browser does not allow it: the text is selected, press Ctrl+C or ⌘C.");
    }
  });
  const head = h("div", { class: "head" }, h("h3", {}, title), h("p", { class: "status" }, status, copy));
  const element = h("div", { class: "program" }, head, h("pre", { tabindex: 0, role: "region", class: "scroll", "aria-label": `${title} program` }, text));
  return { element, fill: (words) => say(text, words) };
}

/** A closed <details> for the panel `name`; `change(text)` may put in what the panel shows now. */
export function codeOf(name, change = (text) => text) {
  const places = KINDS.map(([kind, title]) => ({ kind, ...program(title) }));
  const details = h("details", { class: "code" }, h("summary", {}, "The same in code"), ...places.map(({ element }) => element));
  details.refresh = async () => {
    if (!details.open) return;
    for (const { kind, fill } of places) {
      const response = await fetch(new URL(`../code/${name}.${kind}.txt`, import.meta.url)).catch(() => null);
      fill(response?.ok ? change(await response.text()).trimEnd() : "This file could not be downloaded: check the connection, then open this again.");
    }
  };
  details.addEventListener("toggle", details.refresh);
  return details;
}
