// Tokens and their ids, and the tokens that are prefixes of a text.
import { TokenizerError, spend } from "./budget.js";
import { isCount } from "./fields.js";

/** Token → id and id → token. */
export class Vocabulary {
  /** Make a vocabulary from `{"token": id}`; errors name `path`. */
  static of(table, path) {
    const ids = new Map();
    const tokens = [];
    for (const token of Object.keys(table)) {
      const id = table[token];
      if (!isCount(id)) throw new TokenizerError(`${path} gives ${JSON.stringify(token).slice(0, 60)} the id ${JSON.stringify(id)?.slice(0, 60)}, which is not a whole number from 0`);
      ids.set(token, id);
      tokens[id] = token;
    }
    return new Vocabulary(ids, tokens);
  }

  constructor(ids, tokens) {
    this.ids = ids;
    this.tokens = tokens; // by id, with holes
  }

  get size() {
    return this.ids.size;
  }
}

/** Tokens sorted by their units: those that are prefixes of a text are found by narrowing a range. */
export class Prefixes {
  constructor(ids) {
    this.ids = ids;
    this.tokens = [...ids.keys()].filter((token) => token).sort();
    this.first = new Map(); // unit → [from, to)
    for (let from = 0, to; from < this.tokens.length; from = to) {
      const unit = this.tokens[from].charCodeAt(0);
      for (to = from + 1; to < this.tokens.length && this.tokens[to].charCodeAt(0) === unit; ) to++;
      this.first.set(unit, [from, to]);
    }
  }

  /** Call `found(stop, id)` for each token at `at` in `text`, the shortest first. */
  each(text, at, found) {
    const range = this.first.get(text.charCodeAt(at));
    if (!range) return;
    let [from, to] = range;
    for (let depth = 1; ; depth++) {
      spend(1, "the model");
      if (this.tokens[from].length === depth) {
        found(at + depth, this.ids.get(this.tokens[from]));
        if (++from === to) return;
      }
      if (at + depth >= text.length) return;
      const unit = text.charCodeAt(at + depth);
      from = this.lower(from, to, depth, unit);
      to = this.lower(from, to, depth, unit + 1);
      if (from === to) return;
    }
  }

  /** Return the first of the tokens from..to whose unit at `depth` is at least `unit`. */
  lower(from, to, depth, unit) {
    let [low, high] = [from, to];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tokens[middle].charCodeAt(depth) < unit) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
