// The text for a bug report: shown, and copied where the browser allows it.
import { byId, say } from "./dom.js";
import { explain } from "./failures.js";

export class Diagnostics {
  #button = byId("copy-diagnostics");

  /** ask() → the text */
  constructor(ask) {
    this.#button.addEventListener("click", async () => {
      const text = byId("diagnostics");
      try {
        text.value = await ask();
      } catch (error) {
        say(byId("copied"), `Python does not respond. ${explain(error).advice}`);
        return;
      }
      byId("diagnostics-field").hidden = false;
      try {
        await navigator.clipboard.writeText(text.value);
        say(byId("copied"), "Copied.");
      } catch {
        text.select();
        text.focus();
        say(byId("copied"), "The browser did not copy it: copy the selected text.");
      }
    });
  }

  /** Python runs: the text can be requested from now on. */
  ready() {
    this.#button.disabled = false;
  }
}
