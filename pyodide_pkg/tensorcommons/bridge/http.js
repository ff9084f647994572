// A response's bytes, straight into arrays of JavaScript's; http.py is the other half.

const PIECE = 1 << 20; // bytes after which Python hears of it: a crossing takes as long as the 64 KiB that come at a time

/** The body of a response, with what of its last chunk nobody has taken yet. */
export const open = (response) => ({ reader: response.body?.getReader(), rest: new Uint8Array(0) });

/** Puts the next bytes at `start` of `target`, until it is full or a PIECE of them came. Gives how many; 0 at the end. */
export async function fill(body, target, start) {
  const stop = Math.min(start + PIECE, target.length);
  let at = start;
  while (at < stop) {
    if (!body.rest.length) {
      const { value, done } = await body.reader?.read() ?? { done: true };
      if (done) break;
      body.rest = value;
    }
    const some = body.rest.subarray(0, stop - at);
    target.set(some, at);
    body.rest = body.rest.subarray(some.length);
    at += some.length;
  }
  return at - start;
}

/** Up to `most` of the next bytes, as they come; none at the end. */
export async function next(body, most) {
  while (!body.rest.length) {
    const { value, done } = await body.reader?.read() ?? { done: true };
    if (done) break;
    body.rest = value;
  }
  const some = body.rest.subarray(0, most);
  body.rest = body.rest.subarray(some.length);
  return some;
}
