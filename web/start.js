// Starts the runtime before the page's other modules have arrived; main.js takes it over.
import { connect } from "./tensorcommons.mjs";

let listener = null;
let last = null;
let first = connect({
  progress_callback: (event) => {
    last = event;
    listener?.(event);
  },
});
first.catch(() => {}); // main.js reports it

/** The runtime that is starting since the page was opened, or from the second call on another one. */
export function startRuntime(onProgress) {
  const starting = first ?? connect({ progress_callback: onProgress });
  first = null;
  listener = onProgress;
  if (last) onProgress(last);
  return starting;
}
