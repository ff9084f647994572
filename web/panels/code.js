// The program that does what a panel does, in Python and in JavaScript, ready to copy. The texts are files of code/.
import { h, say } from "../dom.js";

const KINDS = [["py", "Python"], ["js", "JavaScript"]];

/** A closed <details> for the panel `name`; `change(text)` may put in what the panel shows now. */
export function codeOf(name, change = (text) => text) {
  const places = KINDS.map(([kind, title]) => {
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
    const title_ = h("div", { class: "head" }, h("h3", {}, title), h("p", { class: "status" }, status, copy));
    return { kind, text, element: h("div", { class: "program" }, title_, h("pre", { tabindex: 0, role: "region", class: "scroll", "aria-label": `${title} program` }, text)) };
  });
  const details = h("details", { class: "code" }, h("summary", {}, "The same in code"), ...places.map(({ element }) => element));
  details.refresh = async () => {
    if (!details.open) return;
    for (const { kind, text } of places) {
      const response = await fetch(new URL(`../code/${name}.${kind}.txt`, import.meta.url));
      say(text, response.ok ? change(await response.text()).trimEnd() : "This file is missing on the server.");
    }
  };
  details.addEventListener("toggle", details.refresh);
  return details;
}
