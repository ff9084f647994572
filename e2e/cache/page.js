// Define globalThis.run(source) for the test: Python in a worker, or with ?main in this page.
import { boot } from "./boot.js";

function inWorker() {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  worker.addEventListener("message", ({ data: [number, reply] }) => {
    waiting.get(number)(reply);
    waiting.delete(number);
  });
  let next = 0;
  return (source) => new Promise((resolve) => {
    waiting.set(next, resolve);
    worker.postMessage([next++, source]);
  });
}

if (location.search === "?main") {
  globalThis.run = await boot();
} else {
  const run = inWorker();
  await run(null);
  globalThis.run = run;
}
