// Limit on the steps of one call. A tokenizer.json is untrusted, and its work (a regular expression that
// backtracks, replacements that double a text) could take hours; a running call cannot be cancelled.

const BASE = 5_000_000;
const PER_UNIT = 5_000; // per unit of the texts: published tokenizers take fewer than 200

/** A fault of a file; the message names the field. `bridge/tokenizers.py` raises it as InvalidWeights. */
export class TokenizerError extends Error {
  name = "TokenizerError";
}

let left = BASE;

/** Begin a call on texts of `units` UTF-16 units. */
export function beginCall(units) {
  left = BASE + PER_UNIT * units;
}

/** Take steps; throws if the call has none left. */
export function spend(steps, what) {
  left -= steps;
  if (left < 0) throw new TokenizerError(`${what} takes too many steps on this text`);
}
