// The SHA-256 of each piece of some bytes, by the browser; digest.py is the other half and explains the pieces.
// Chromium 153 hashes within the call: 91 MB take 59 ms in such pieces and 86 in twice as large ones, whose copies need
// new memory each.

const PIECE = 1 << 19; // as in byte_buffer.py
const AT_ONCE = 4; // pieces that other browsers' threads have at a time, each a copy
const BYTES = 32; // of a digest

/**
 * Hash bytes as they arrive: after `add(bytes, stop)` all before `stop` are there; `end` returns the digests in a row.
 * `sizes` are those of consecutive parts, each of which begins a piece.
 */
export function arriving(sizes) {
  const digests = [];
  const ends = cuts(sizes);
  let [start, end] = [0, ends.next().value];
  const begin = async (bytes) => {
    await digests[digests.length - AT_ONCE];
    digests.push(crypto.subtle.digest("SHA-256", bytes.subarray(start, end)));
    [start, end] = [end, ends.next().value];
  };
  return {
    async add(bytes, stop) {
      while (end <= stop) await begin(bytes);
    },
    async end(bytes) {
      while (end !== undefined) await begin(bytes);
      const row = new Uint8Array(digests.length * BYTES);
      (await Promise.all(digests)).forEach((digest, i) => row.set(new Uint8Array(digest), i * BYTES));
      return row;
    },
  };
}

// The end of each piece of parts of these sizes.
function* cuts(sizes) {
  let at = 0;
  for (const size of sizes) {
    for (const stop = at + size; at < stop;) yield at = Math.min(at + PIECE, stop);
  }
}

/** Return the digests of `bytes`, in a row; `sizes` as for `arriving`. */
export const digestsOf = (bytes, sizes) => arriving(sizes).end(bytes);
