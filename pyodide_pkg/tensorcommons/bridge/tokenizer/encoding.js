// The tokens of a text with their properties, truncation, and windows.

/** Raised by `truncate` if no token would be left; Python raises it as ShapeMismatch. */
export class LengthError extends Error {
  name = "LengthError";
}

/** Lists of equal length: ids, types, sequences (0, 1, or -1 from a template), starts and ends in characters of
 * the text, words (-1 for none), values (the tokens as text). */
export class Encoding {
  constructor() {
    this.ids = [];
    this.types = [];
    this.sequences = [];
    this.starts = [];
    this.ends = [];
    this.words = [];
    this.values = [];
  }

  get length() {
    return this.ids.length;
  }

  push(id, start, end, word, value) {
    this.ids.push(id);
    this.types.push(0);
    this.sequences.push(0);
    this.starts.push(start);
    this.ends.push(end);
    this.words.push(word);
    this.values.push(value);
  }

  slice(from, to) {
    const part = new Encoding();
    for (const name of Object.keys(part)) part[name] = this[name].slice(from, to);
    return part;
  }

  /** Return a copy with these types and this sequence. */
  as(sequence, type) {
    const copy = this.slice(0);
    copy.types.fill(type);
    copy.sequences.fill(sequence);
    return copy;
  }

  /** Add a token without text. */
  static special(id, type) {
    const one = new Encoding();
    one.push(id, 0, 0, -1, "");
    return one.as(-1, type);
  }

  static concat(parts) {
    const whole = new Encoding();
    for (const name of Object.keys(whole)) whole[name] = [].concat(...parts.map((part) => part[name]));
    return whole;
  }
}

/** Return windows [from, to) of at most `size` tokens over `length` tokens; adjacent ones share `overlap` tokens. */
export function windows(length, size, overlap, left) {
  if (length <= size) return [[0, length]];
  if (size === 0) return [[0, 0]];
  if (overlap >= size) throw new LengthError(`windows with room for ${size} tokens of a text cannot share ${overlap}: make them longer`);
  const cuts = [];
  if (left) {
    for (let to = length; ; to -= size - overlap) {
      cuts.push([Math.max(0, to - size), to]);
      if (to <= size) return cuts;
    }
  }
  for (let from = 0; ; from += size - overlap) {
    cuts.push([from, Math.min(from + size, length)]);
    if (from + size >= length) return cuts;
  }
}

/** Return the number of tokens that two texts keep under a common `limit`: the longer one is truncated first. */
export function longestFirst(first, second, limit) {
  if (first + second <= limit) return [first, second];
  let [short, long] = first > second ? [second, first] : [first, second];
  long = Math.max(short, limit - short);
  if (short + long > limit) {
    short = Math.floor(limit / 2);
    long = limit - short;
  }
  return first > second ? [long, short] : [short, long];
}
