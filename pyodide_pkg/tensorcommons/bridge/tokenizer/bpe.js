// Byte-pair encoding, like `BPE` of the Rust `tokenizers`: the adjacent pair with the lowest rank is merged first.
import { TokenizerError, spend } from "./budget.js";
import { byteLength, utf8 } from "./text.js";
import { Vocabulary } from "./vocabulary.js";

const CACHED = 10_000; // words
const CACHED_LENGTH = 256; // units of a word

/** (id, id) → rank and new id, in arrays: a Map of half a million pairs takes five times the memory. */
class Merges {
  constructor(count) {
    let size = 16;
    while (size < 2 * count) size *= 2;
    this.mask = size - 1;
    this.table = new Int32Array(2 * size).fill(-1); // first and second id
    this.ranks = new Int32Array(size);
    this.made = new Int32Array(count); // by rank
  }

  slot(a, b) {
    let at = (Math.imul(a, 0x9e3779b1) ^ Math.imul(b, 0x85ebca6b)) >>> 0;
    for (at = (at ^ (at >>> 15)) & this.mask; ; at = (at + 1) & this.mask) {
      const first = this.table[2 * at];
      if (first < 0 || (first === a && this.table[2 * at + 1] === b)) return at;
    }
  }

  set(a, b, rank, made) {
    const at = this.slot(a, b);
    this.table[2 * at] = a;
    this.table[2 * at + 1] = b;
    this.ranks[at] = rank;
    this.made[rank] = made;
  }

  /** Return the rank of a pair, or -1. */
  rank(a, b) {
    const at = this.slot(a, b);
    return this.table[2 * at] < 0 ? -1 : this.ranks[at];
  }
}

/** A binary heap: a queue of numbers, the smallest first. */
class Queue {
  constructor() {
    this.items = [];
  }

  push(value) {
    const { items } = this;
    let at = items.length;
    items.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (items[parent] <= value) break;
      items[at] = items[parent];
      at = parent;
    }
    items[at] = value;
  }

  pop() {
    const { items } = this;
    const top = items[0];
    const value = items.pop();
    const size = items.length;
    if (size) {
      let at = 0;
      for (let child = 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && items[child + 1] < items[child]) child++;
        if (items[child] >= value) break;
        items[at] = items[child];
        at = child;
      }
      items[at] = value;
    }
    return top;
  }
}

const POSITIONS = 2 ** 31; // a queue entry is rank × POSITIONS + position: exact below 2^53

export class Bpe {
  constructor(fields) {
    if (fields.number("dropout", 0) !== 0) fields.fail("dropout", "null or 0: dropout makes tokens random");
    const table = fields.object("vocab");
    this.vocabulary = Vocabulary.of(table.value, table.path);
    this.unknown = fields.string("unk_token", "") || null;
    this.prefix = fields.string("continuing_subword_prefix", "");
    this.suffix = fields.string("end_of_word_suffix", "");
    this.fuse = fields.bool("fuse_unk", false);
    this.byteFallback = fields.bool("byte_fallback", false);
    this.ignoreMerges = fields.bool("ignore_merges", false);
    this.merges = this.readMerges(fields.list("merges"), fields.at("merges"));
    this.cache = new Map();
    this.byteIds = null;
  }

  readMerges(list, path) {
    const { ids } = this.vocabulary;
    if (list.length >= 2 ** 21) throw new TokenizerError(`${path} has more than ${2 ** 21} entries`);
    const merges = new Merges(list.length);
    let rank = 0;
    list.forEach((entry, i) => {
      if (typeof entry === "string" && entry.startsWith("#version")) return;
      const pair = typeof entry === "string" ? entry.split(" ") : entry;
      const whole = Array.isArray(pair) && pair.length === 2 && pair.every((part) => typeof part === "string");
      if (!whole) throw new TokenizerError(`${path}[${i}] is not a pair of tokens`);
      const [a, b] = pair;
      const [left, right, made] = [ids.get(a), ids.get(b), ids.get(a + b.slice(this.prefix.length))];
      if (left === undefined || right === undefined || made === undefined) {
        throw new TokenizerError(`${path}[${i}] joins ${JSON.stringify(pair).slice(0, 60)}, which the vocabulary does not have`);
      }
      merges.set(left, right, rank++, made);
    });
    return merges;
  }

  /** Tokenize a word: a flat list of [id, first byte, end byte]. */
  tokenize(text) {
    if (this.ignoreMerges) {
      const id = this.vocabulary.ids.get(text);
      if (id !== undefined) return [id, 0, utf8(text).length];
    }
    let found = this.cache.get(text);
    if (!found) {
      found = this.merge(text);
      if (text.length < CACHED_LENGTH && this.cache.size < CACHED) this.cache.set(text, found);
    }
    return found;
  }

  /** Return the ids of the characters of a word, and their lengths in bytes. */
  symbols(text) {
    const { ids } = this.vocabulary;
    const symbols = [];
    const lengths = [];
    let unknown = null; // the token of the current run of unknown characters
    const flush = () => {
      if (unknown) symbols.push(unknown[0]), lengths.push(unknown[1]);
      unknown = null;
    };
    for (let at = 0; at < text.length; ) {
      const code = text.codePointAt(at);
      const char = String.fromCodePoint(code);
      const bytes = byteLength(code);
      const stop = at + char.length;
      let token = char;
      if (at > 0 && this.prefix) token = this.prefix + token;
      if (stop === text.length && this.suffix) token += this.suffix;
      at = stop;
      const id = ids.get(token);
      if (id !== undefined) {
        flush();
        symbols.push(id);
        lengths.push(bytes);
        continue;
      }
      const fallback = this.byteFallback ? this.bytes(token) : null;
      if (fallback) {
        for (const byte of fallback) symbols.push(byte), lengths.push(1);
      } else if (this.unknown !== null) {
        const unk = ids.get(this.unknown);
        if (unk === undefined) throw new TokenizerError(`model.unk_token ${JSON.stringify(this.unknown).slice(0, 60)} is not in the vocabulary`);
        if (unknown && this.fuse) unknown[1] += bytes;
        else flush(), (unknown = [unk, bytes]);
      }
    }
    flush();
    return [symbols, lengths];
  }

  /** Return the ids of the tokens <0x00> to <0xFF> for the bytes of a text; null if one is missing. */
  bytes(text) {
    this.byteIds ??= Array.from({ length: 256 }, (_, byte) => this.vocabulary.ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
    const found = Array.from(utf8(text), (byte) => this.byteIds[byte]);
    return found.includes(undefined) ? null : found;
  }

  merge(text) {
    const [symbols, lengths] = this.symbols(text);
    const { merges } = this;
    const count = symbols.length;
    const next = new Int32Array(count);
    const previous = new Int32Array(count);
    const queue = new Queue();
    const offer = (at) => {
      const rank = merges.rank(symbols[at], symbols[next[at]]);
      if (rank >= 0) queue.push(rank * POSITIONS + at);
    };
    for (let at = 0; at < count; at++) {
      next[at] = at + 1 < count ? at + 1 : -1;
      previous[at] = at - 1;
    }
    for (let at = 0; at + 1 < count; at++) offer(at);
    spend(count, "the model");
    while (queue.items.length) {
      const top = queue.pop();
      const rank = Math.floor(top / POSITIONS);
      const at = top - rank * POSITIONS;
      const right = next[at];
      if (lengths[at] === 0 || right < 0) continue;
      const known = merges.rank(symbols[at], symbols[right]); // the pair of the entry may have been merged
      if (known < 0 || merges.made[known] !== merges.made[rank]) continue;
      symbols[at] = merges.made[rank];
      lengths[at] += lengths[right];
      lengths[right] = 0;
      next[at] = next[right];
      if (next[at] >= 0) previous[next[at]] = at;
      if (previous[at] >= 0) offer(previous[at]);
      if (next[at] >= 0) offer(at);
    }
    const tokens = [];
    let byte = 0;
    for (let at = 0; at < count; at++) {
      if (!lengths[at]) continue;
      tokens.push(symbols[at], byte, byte + lengths[at]);
      byte += lengths[at];
    }
    return tokens;
  }
}
