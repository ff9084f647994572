// The tokens of a text with what is known of each, and how they are truncated and cut into windows.

/** Raised by `truncate` where no token would be left; the Python half makes a ShapeMismatch of it. */
export class LengthError extends Error {
  name = "LengthError";
}

/** Equally long lists: ids, types, sequences (0, 1, or -1 for what a template adds), starts and ends in characters of
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

  /** A copy with these types and this sequence. */
  as(sequence, type) {
    const copy = this.slice(0);
    copy.types.fill(type);
    copy.sequences.fill(sequence);
    return copy;
  }

  /** A token that stands for no text. */
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

/** [from, to) of windows of at most `size` tokens over `length` of them; neighbours share `overlap` tokens. */
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

/** How many tokens of two texts stay when together they may have `limit`: the longer one gives way first. */
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
