// The SHA-256 of each piece of some bytes, by the browser; digest.py is the other half and explains the pieces.
// Chromium 153 hashes within the call: 91 MB take 59 ms in such pieces and 86 in twice as large ones, whose copies need
// new memory each.

const PIECE = 1 << 19; // as in byte_buffer.py
const AT_ONCE = 4; // pieces that other browsers' threads have at a time, each a copy
const BYTES = 32; // of a digest

/** Hash bytes as they arrive: after `add(bytes, stop)` all before `stop` are there; `end` returns the digests in a row. */
export function arriving() {
  const digests = [];
  const begin = async (bytes) => {
    await digests[digests.length - AT_ONCE];
    const start = digests.length * PIECE;
    digests.push(crypto.subtle.digest("SHA-256", bytes.subarray(start, start + PIECE)));
  };
  return {
    async add(bytes, stop) {
      while (stop - digests.length * PIECE >= PIECE) await begin(bytes);
    },
    async end(bytes) {
      while (digests.length * PIECE < bytes.length) await begin(bytes);
      const row = new Uint8Array(digests.length * BYTES);
      (await Promise.all(digests)).forEach((digest, i) => row.set(new Uint8Array(digest), i * BYTES));
      return row;
    },
  };
}

/** Return the digests of `bytes`, in a row. */
export const digestsOf = (bytes) => arriving().end(bytes);
