// Python in a worker: [number, source] in, [number, reply] out.
import { boot } from "./boot.js";

const ready = boot();
addEventListener("message", async ({ data: [number, source] }) => {
  postMessage([number, source === null ? await ready && null : await (await ready)(source)]);
});
