// Drawing in slices. Each part of the page draws its newest state, and a frame draws parts until it has taken a few
// milliseconds; the rest waits for the next one. So no turn of the page is long, also where the cores are at work.
const SLICE = 4; // ms
const waiting = new Map(); // part → what draws it

/** Have `draw` called in one of the next frames, instead of what was asked for the same part before. */
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
