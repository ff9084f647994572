// A text with the origin of each of its characters: `NormalizedString` of the Rust `tokenizers`.
// Rust counts bytes; here each UTF-16 unit has the range of its original characters (code points) in
// the whole text, so slices need no shifting and offsets need no conversion at the end.
import { spend } from "./budget.js";
import { unitsAt } from "./text.js";

const STEPS = 20; // cost of a character, relative to a step of a regular expression
const COMPARED = 16; // characters of two strings compared per step

export class NormalizedString {
  /** `starts` and `ends` by unit; the slice of the original text begins at `shift` and has `extent` characters. */
  constructor(text, starts, ends, shift, extent) {
    this.text = text;
    this.starts = starts;
    this.ends = ends;
    this.shift = shift;
    this.extent = extent;
  }

  static of(text) {
    const starts = new Array(text.length);
    const ends = new Array(text.length);
    let char = 0;
    for (let at = 0; at < text.length; at++, char++) {
      starts[at] = char;
      ends[at] = char + 1;
      if (text.codePointAt(at) > 0xffff) {
        at++;
        starts[at] = char;
        ends[at] = char + 1;
      }
    }
    return new NormalizedString(text, starts, ends, 0, char);
  }

  /** Return units `from` to `to` (at least one) as a separate string. */
  slice(from, to) {
    if (from === 0 && to === this.text.length && this.starts[0] === this.shift) return this;
    return new NormalizedString(
      this.text.slice(from, to),
      this.starts.slice(from, to),
      this.ends.slice(from, to),
      this.starts[from],
      Math.max(0, this.ends[to - 1] - this.starts[from]),
    );
  }

  /**
   * Return the units of the whole original slice. These are all units, unless characters without an origin
   * come first, or marks were reordered before the text was sliced: then some are left out, as in Rust.
   */
  range() {
    const { starts, ends, shift, extent } = this;
    if (extent === 0) return [0, 0];
    let from = -1;
    let to = 0;
    for (let at = 0; at < ends.length; at++) {
      const end = ends[at] - shift;
      if (end < 0 || end > extent) break;
      if (from < 0 && starts[at] !== ends[at]) from = at;
      to = at + 1;
    }
    return from < 0 ? [to, to] : [from, to];
  }

  /**
   * Replace all characters by `chars`. `changes[i]` is 0 if a character replaces the next one, 1 if it
   * is inserted (with the origin of the one before), and -n if n more of the old ones are removed with it.
   * `removed` characters are removed at the beginning.
   */
  transform(chars, changes, removed = 0) {
    const [from, to] = this.range();
    this.transformRange(from, to, chars, changes, removed);
  }

  transformRange(from, to, chars, changes, removed = 0) {
    spend(STEPS * (chars.length + to - from), "the normalizer");
    const { text, starts, ends, shift } = this;
    const newStarts = [];
    const newEnds = [];
    let old = from;
    const skip = (count) => {
      for (; count > 0 && old < to; count--) old += unitsAt(text, old);
    };
    skip(removed);
    let result = "";
    for (let i = 0; i < chars.length; i++) {
      const char = chars[i];
      const change = changes[i];
      let start = shift;
      let end = shift;
      const source = change > 0 ? old - 1 : Math.min(old, text.length - 1);
      if (source >= 0) {
        start = starts[source];
        end = ends[source];
      }
      if (change <= 0) skip(1 - change);
      for (let n = char.length; n > 0; n--) {
        newStarts.push(start);
        newEnds.push(end);
      }
      result += char;
    }
    const whole = from === 0 && to === text.length;
    this.text = whole ? result : text.slice(0, from) + result + text.slice(to);
    this.starts = whole ? newStarts : starts.slice(0, from).concat(newStarts, starts.slice(to));
    this.ends = whole ? newEnds : ends.slice(0, from).concat(newEnds, ends.slice(to));
  }

  /** Keep the characters that `keep` accepts. */
  filter(keep) {
    const chars = [];
    const changes = [];
    let removed = 0;
    let atStart = 0;
    for (const char of this.text) {
      if (!keep(char)) {
        removed++;
        continue;
      }
      if (chars.length) changes.push(-removed);
      else atStart = removed;
      chars.push(char);
      removed = 0;
    }
    if (chars.length) changes.push(-removed);
    this.transform(chars, changes, atStart);
  }

  /** Replace each character by `change(char)`. */
  map(change) {
    const chars = Array.from(this.text, change);
    this.transform(chars, new Array(chars.length).fill(0));
  }

  /** Replace each character by those of `expand(char)`, which has at least one. */
  expand(expand) {
    const chars = [];
    const changes = [];
    for (const char of this.text) {
      let change = 0;
      for (const part of expand(char)) {
        chars.push(part);
        changes.push(change);
        change = 1;
      }
    }
    this.transform(chars, changes);
  }

  /** Insert `prefix` at the beginning, with the origin of the first character. */
  prepend(prefix) {
    if (!this.text) return;
    const first = String.fromCodePoint(this.text.codePointAt(0));
    const chars = [...prefix, first];
    this.transformRange(0, first.length, chars, chars.map((_, i) => (i ? 1 : 0)));
  }

  /** Replace each match by `content`, with the origin of the last character of the match. */
  replace(matches, content) {
    const { text, starts, ends } = this;
    let result = "";
    const newStarts = [];
    const newEnds = [];
    let done = 0;
    const keep = (stop) => {
      result += text.slice(done, stop);
      for (let at = done; at < stop; at++) {
        newStarts.push(starts[at]);
        newEnds.push(ends[at]);
      }
      done = stop;
    };
    for (const [from, to, isMatch] of matches) {
      if (!isMatch) continue;
      spend(STEPS * (content.length + 1), "the normalizer");
      keep(from);
      const start = to > 0 ? starts[to - 1] : this.shift;
      const end = to > 0 ? ends[to - 1] : this.shift;
      for (let n = content.length; n > 0; n--) {
        newStarts.push(start);
        newEnds.push(end);
      }
      result += content;
      done = to;
    }
    keep(text.length);
    this.text = result;
    this.starts = newStarts;
    this.ends = newEnds;
  }

  /** Remove whitespace at both ends. */
  strip(left, right, isSpace) {
    const chars = [...this.text];
    let leading = 0;
    let trailing = 0;
    if (left) while (leading < chars.length && isSpace(chars[leading])) leading++;
    if (right) while (trailing < chars.length && isSpace(chars[chars.length - 1 - trailing])) trailing++;
    if (!leading && !trailing) return;
    const kept = chars.slice(leading, Math.max(leading, chars.length - trailing));
    this.transform(kept, kept.map(() => 0), leading);
  }

  /** Split by `matches`, which are consecutive and cover the text, merged according to `behavior`. */
  split(matches, behavior) {
    let parts = matches;
    if (behavior === "Removed") {
      parts = matches.filter(([, , isMatch]) => !isMatch);
    } else if (behavior !== "Isolated") {
      const backwards = behavior === "MergedWithNext";
      const joins = behavior === "Contiguous" ? (isMatch, before) => isMatch === before : (isMatch, before) => isMatch && !before;
      parts = [];
      let before = false;
      for (const [from, to, isMatch] of backwards ? matches.toReversed() : matches) {
        const last = parts[parts.length - 1];
        if (!last || !joins(isMatch, before)) parts.push([from, to]);
        else if (backwards) last[0] = from;
        else last[1] = to;
        before = isMatch;
      }
      if (backwards) parts.reverse();
    }
    const result = [];
    for (const [from, to] of parts) if (from < to) result.push(this.slice(from, to));
    return result;
  }
}

/** Return [from, to, isMatch] over the whole text, with a match for each character that `isMatch` accepts. */
export function matchChars(text, isMatch) {
  const matches = [];
  let done = 0;
  for (let at = 0; at < text.length; ) {
    const char = String.fromCodePoint(text.codePointAt(at));
    const stop = at + char.length;
    if (isMatch(char)) {
      if (done < at) matches.push([done, at, false]);
      matches.push([at, stop, true]);
      done = stop;
    }
    at = stop;
  }
  if (done < text.length) matches.push([done, text.length, false]);
  return matches;
}

/** Return [from, to, isMatch] over the whole text for ascending matches [from, to]. */
export function withGaps(found, length) {
  const matches = [];
  let done = 0;
  for (const [from, to] of found) {
    if (done !== from) matches.push([done, from, false]);
    matches.push([from, to, true]);
    done = to;
  }
  if (done !== length) matches.push([done, length, false]);
  return matches;
}

/** Return the matches of the string `wanted` in `text`. */
export function matchString(text, wanted) {
  spend((text.length * wanted.length) / COMPARED, "a pattern");
  const found = [];
  for (let at = text.indexOf(wanted); at >= 0 && wanted; at = text.indexOf(wanted, at + wanted.length)) {
    found.push([at, at + wanted.length]);
  }
  return withGaps(found, text.length);
}
