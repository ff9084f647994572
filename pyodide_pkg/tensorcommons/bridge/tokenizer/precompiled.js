// The normalizer of SentencePiece models: a map from strings to strings, as read by `Precompiled` and the crate
// spm_precompiled. The blob has the size of a Darts double array, the array, and zero-terminated replacements.
import { spend } from "./budget.js";
import { isAscii, utf8 } from "./text.js";

const LONGEST = 6; // bytes; longer clusters are looked up by character

export class CharsMap {
  /** Throws RangeError for a truncated blob. */
  constructor(base64) {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const size = bytes.length < 4 ? NaN : new DataView(bytes.buffer).getUint32(0, true);
    if (!(size <= bytes.length - 4) || size < 4) throw new RangeError("is cut");
    this.units = new Uint32Array(bytes.slice(4, 4 + size - (size % 4)).buffer);
    this.texts = bytes.subarray(4 + size - (size % 4));
    this.decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    this.decoder.decode(this.texts);
    this.known = new Map();
    this.segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });
  }

  /** Return the replacement of the shortest key that is a prefix of `chunk` (the shortest, as in Rust), or null. */
  replacement(chunk) {
    let found = this.known.get(chunk);
    if (found === undefined) {
      found = this.lookUp(utf8(chunk));
      if (this.known.size < 100_000) this.known.set(chunk, found);
    }
    return found;
  }

  lookUp(key) {
    const { units, texts } = this;
    const offset = (unit) => (unit >>> 10) << ((unit & 0x200) >> 6);
    let at = offset(units[0]);
    for (const byte of key) {
      if (byte === 0) break;
      at ^= byte;
      const unit = units[at];
      if (unit === undefined || (unit & 0x800000ff) >>> 0 !== byte) return null;
      at ^= offset(unit);
      if ((unit >>> 8) & 1) {
        const from = units[at] & 0x7fffffff;
        const to = texts.indexOf(0, from);
        return this.decoder.decode(texts.subarray(from, to < 0 ? texts.length : to));
      }
    }
    return null;
  }

  normalize(normalized) {
    const { text } = normalized;
    const chars = [];
    const changes = [];
    let modified = false;
    const replace = (old, found) => {
      modified = true;
      spend(found.length + 1, "the normalizer");
      const added = [...found];
      const more = added.length - [...old].length;
      for (const char of added) chars.push(char), changes.push(0);
      // Added characters are counted at the end, and removed ones at the last character.
      for (let n = 1; n <= more && n <= changes.length; n++) changes[changes.length - n] = 1;
      if (more < 0 && changes.length) changes[changes.length - 1] += more;
    };
    for (const cluster of this.clusters(text)) {
      const whole = cluster.length < LONGEST && utf8(cluster).length < LONGEST ? this.replacement(cluster) : null;
      if (whole !== null) {
        replace(cluster, whole);
        continue;
      }
      for (const char of cluster) {
        const found = this.replacement(char);
        if (found !== null) replace(char, found);
        else chars.push(char), changes.push(0);
      }
    }
    if (modified) normalized.transform(chars, changes);
  }

  *clusters(text) {
    if (isAscii(text) && !text.includes("\r\n")) yield* text;
    else for (const { segment } of this.segmenter.segment(text)) yield segment;
  }
}
