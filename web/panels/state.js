// The state of a panel: what its status line says, whether Cancel is there, and where the focus goes when that leaves.
import { role, say } from "../dom.js";

/** Show a state ("running", "done", "cancelled", "error", …) in words; `next` gets the focus that Cancel had. */
export function showState(panel, state, words, next) {
  const cancel = role(panel, "cancel");
  const isRunning = state === "running";
  panel.dataset.state = state;
  role(panel, "results").setAttribute("aria-busy", String(isRunning));
  if (!isRunning && document.activeElement === cancel) next?.focus();
  cancel.hidden = !isRunning;
  say(role(panel, "status"), words);
}
