// A response's bytes, into arrays of JavaScript; http.py is the other half.
// Chunks that the browser allocates are garbage that it collects late: of 1.3 GB Chromium 153 keeps 120 MB for minutes.
// So bodies are read into an array of their own (BYOB) where the browser supports it, and the bytes are copied from it.

const PIECE = 1 << 20; // bytes a call from Python: a call takes as long as the 64 KiB that arrive at a time
const READ = 1 << 19; // bytes of a body's own array
const SPARE = 4; // such arrays to keep for later bodies

const NOTHING = new Uint8Array(0);
const spare = []; // arrays of bodies that have ended

/** Open the body of a response; `rest` is the part of its last read that is not consumed yet. */
export function open(response) {
  const body = { byob: true, own: null, rest: NOTHING };
  try {
    return { ...body, reader: response.body?.getReader({ mode: "byob" }) };
  } catch { // not a byte stream in every browser
    return { ...body, reader: response.body.getReader(), byob: false };
  }
}

/** Write the next bytes to `target` from `start` on, until it is full or PIECE bytes came. Returns how many; 0 at the end. */
export async function fill(body, target, start) {
  const stop = Math.min(start + PIECE, target.length);
  let at = start;
  while (at < stop && await has(body)) {
    const some = body.rest.subarray(0, stop - at);
    target.set(some, at);
    body.rest = body.rest.subarray(some.length);
    at += some.length;
  }
  return at - start;
}

/** Return up to `most` of the next bytes, as they arrive; none at the end. They are valid until the next call. */
export async function next(body, most) {
  await has(body);
  const some = body.rest.subarray(0, most);
  body.rest = body.rest.subarray(some.length);
  return some;
}

// Wait for bytes if none are left of the last read; false at the end.
async function has(body) {
  while (!body.rest.length && body.reader) {
    const own = body.byob && (body.own ?? spare.pop() ?? new Uint8Array(READ));
    Object.assign(body, { own: null, rest: NOTHING }); // the reader takes the array, and gives it back; not if it fails
    const { value, done } = await body.reader.read(...(own ? [own] : []));
    if (own && value) body.own = new Uint8Array(value.buffer);
    if (done) {
      if (body.own && spare.length < SPARE) spare.push(body.own);
      body.reader = body.own = null;
    } else body.rest = value;
  }
  return body.rest.length > 0;
}
