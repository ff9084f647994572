// WordPiece, WordLevel and Unigram, and the choice of the model of a tokenizer.json. A model has a `vocabulary` and
// `tokenize(text)`, which returns a flat list of [id, first byte, end byte] of each token.
import { Bpe } from "./bpe.js";
import { TokenizerError, spend } from "./budget.js";
import { byteLength, unitsAt, utf8 } from "./text.js";
import { Prefixes, Vocabulary } from "./vocabulary.js";

function unknownId(model) {
  const id = model.vocabulary.ids.get(model.unknown);
  if (id === undefined) throw new TokenizerError(`model.unk_token ${JSON.stringify(model.unknown).slice(0, 60)} is not in the vocabulary`);
  return id;
}

const bytesOf = (text) => {
  let bytes = 0;
  for (const char of text) bytes += byteLength(char.codePointAt(0));
  return bytes;
};

export class WordPiece {
  constructor(fields) {
    const table = fields.object("vocab");
    this.vocabulary = Vocabulary.of(table.value, table.path);
    this.unknown = fields.string("unk_token");
    this.prefix = fields.string("continuing_subword_prefix");
    this.longest = fields.count("max_input_chars_per_word");
    const { ids } = this.vocabulary;
    this.beginning = new Prefixes(ids);
    const inside = new Map();
    for (const [token, id] of ids) if (token.startsWith(this.prefix)) inside.set(token.slice(this.prefix.length), id);
    this.inside = new Prefixes(inside);
  }

  tokenize(text) {
    const tokens = [];
    let byte = 0;
    let known = text.length <= this.longest || [...text].length <= this.longest;
    for (let at = 0; known && at < text.length; ) {
      let [stop, id] = [at, -1];
      (at ? this.inside : this.beginning).each(text, at, (...found) => ([stop, id] = found));
      known = id >= 0;
      if (!known) break;
      const end = byte + bytesOf(text.slice(at, stop));
      tokens.push(id, byte, end);
      [at, byte] = [stop, end];
    }
    return known ? tokens : [unknownId(this), 0, bytesOf(text)];
  }
}

class WordLevel {
  constructor(fields) {
    const table = fields.object("vocab");
    this.vocabulary = Vocabulary.of(table.value, table.path);
    this.unknown = fields.string("unk_token");
  }

  tokenize(text) {
    return [this.vocabulary.ids.get(text) ?? unknownId(this), 0, bytesOf(text)];
  }
}

const UNKNOWN_PENALTY = 10;

class Unigram {
  constructor(fields) {
    const entries = fields.list("vocab");
    const ids = new Map();
    this.scores = new Float64Array(entries.length);
    let least = Infinity;
    entries.forEach((entry, id) => {
      const whole = Array.isArray(entry) && entry.length === 2 && typeof entry[0] === "string" && typeof entry[1] === "number";
      if (!whole) throw new TokenizerError(`${fields.at("vocab")}[${id}] is not a pair of a token and its score`);
      ids.set(entry[0], id);
      this.scores[id] = entry[1];
      least = Math.min(least, entry[1]);
    });
    this.unknownId = fields.has("unk_id") ? fields.count("unk_id") : null;
    if (this.unknownId !== null && this.unknownId >= entries.length) fields.fail("unk_id", "below the number of tokens");
    this.vocabulary = new Vocabulary(ids, entries.map(([token]) => token));
    this.prefixes = new Prefixes(ids);
    this.unknownScore = least - UNKNOWN_PENALTY;
    this.byteFallback = fields.bool("byte_fallback", false);
  }

  get unknown() {
    return this.unknownId === null ? null : this.vocabulary.tokens[this.unknownId];
  }

  needUnknown() {
    if (this.unknownId === null) throw new TokenizerError("model.unk_id is missing, and the text has a character that the vocabulary does not have");
    return this.unknownId;
  }

  /** Return the units where the pieces of the most likely path begin, and the length; unknown ones are merged. */
  path(text) {
    const size = text.length;
    const scores = new Float64Array(size + 1);
    const begins = new Int32Array(size + 1).fill(-1);
    const best = new Int32Array(size + 1);
    for (let at = 0; at < size; ) {
      const next = at + unitsAt(text, at);
      const here = scores[at];
      let single = false;
      const offer = (stop, id, score) => {
        if (begins[stop] < 0 || score > scores[stop]) [scores[stop], begins[stop], best[stop]] = [score, at, id];
      };
      this.prefixes.each(text, at, (stop, id) => {
        offer(stop, id, this.scores[id] + here);
        single ||= stop === next;
      });
      if (!single) offer(next, this.needUnknown(), this.unknownScore + here);
      at = next;
    }
    const cuts = [size];
    let fusing = false;
    for (let stop = size; stop > 0; stop = begins[stop]) {
      const unknown = best[stop] === this.unknownId;
      if (unknown && fusing) cuts.pop();
      cuts.push(begins[stop]);
      fusing = unknown;
    }
    return cuts.reverse();
  }

  tokenize(text) {
    const { ids } = this.vocabulary;
    const cuts = this.path(text);
    const tokens = [];
    let byte = 0;
    spend(text.length, "the model");
    for (let i = 0; i + 1 < cuts.length; i++) {
      const piece = text.slice(cuts[i], cuts[i + 1]);
      const end = byte + bytesOf(piece);
      const id = ids.get(piece);
      const fallback = id === undefined && this.byteFallback ? this.bytes(piece) : null;
      if (fallback) for (const each of fallback) tokens.push(each, byte, end);
      else tokens.push(id ?? this.needUnknown(), byte, end);
      byte = end;
    }
    return tokens;
  }

  bytes(text) {
    const found = Array.from(utf8(text), (byte) => this.vocabulary.ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
    return found.includes(undefined) ? null : found;
  }
}

const KINDS = {
  BPE: (fields) => new Bpe(fields),
  WordPiece: (fields) => new WordPiece(fields),
  WordLevel: (fields) => new WordLevel(fields),
  Unigram: (fields) => new Unigram(fields),
};

/** Return the model; files of old versions do not name its type. */
export function readModel(fields) {
  if (fields.has("type")) return fields.make(KINDS);
  if (fields.has("merges")) return new Bpe(fields);
  if (fields.has("max_input_chars_per_word")) return new WordPiece(fields);
  return Array.isArray(fields.value.vocab) ? new Unigram(fields) : new WordLevel(fields);
}
