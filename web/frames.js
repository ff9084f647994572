// Drawing in slices. Each part of the page draws its newest state, and a frame draws parts until it has taken a few
// milliseconds; the rest waits for the next one. So the page stays responsive, also while the cores are busy.
const SLICE = 4; // ms
const waiting = new Map(); // part → its draw function

/** Call `draw` in one of the next frames, in place of an earlier request for the same part. */
export function soon(part, draw) {
  if (!waiting.size) requestAnimationFrame(frame);
  waiting.set(part, draw);
}

function frame() {
  const began = performance.now();
  for (const [part, draw] of waiting) {
    waiting.delete(part);
    draw();
    if (performance.now() - began > SLICE) break;
  }
  if (waiting.size) requestAnimationFrame(frame);
}
