// Steps that one call may take. A tokenizer.json comes from a stranger, and what it describes (a regular expression that
// backtracks, replacements that double a text) could keep the worker busy for hours; nothing cancels a call that runs.

const BASE = 5_000_000;
const PER_UNIT = 5_000; // of the texts: published tokenizers take fewer than 200

/** A file's fault: the message names the field. `bridge/tokenizers.py` makes an InvalidWeights of it. */
export class TokenizerError extends Error {
  name = "TokenizerError";
}

let left = BASE;

/** Begin a call on texts of so many units. */
export function beginCall(units) {
  left = BASE + PER_UNIT * units;
}

/** Take steps; throws where the call has none left. */
export function spend(steps, what) {
  left -= steps;
  if (left < 0) throw new TokenizerError(`${what} takes too many steps on this text`);
}
