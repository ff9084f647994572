// Added tokens, which are matched before all other processing: `AddedVocabulary` of the Rust `tokenizers`.
import { spend } from "./budget.js";
import { NormalizedString } from "./normalized.js";
import { WORD } from "./text.js";
import { Prefixes } from "./vocabulary.js";

const BEGINS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");
const STEPS = 4; // cost of checking a space
const SPACE = /^\p{White_Space}$/u;

const spacesBefore = (text, at, least) => {
  let start = at;
  while (start > least && SPACE.test(text[start - 1])) start--;
  return start;
};
const spacesBehind = (text, at) => {
  let stop = at;
  while (stop < text.length && SPACE.test(text[stop])) stop++;
  spend(STEPS * (stop - at), "an added token");
  return stop;
};
const lastChar = (text, at) => text.slice(Math.max(0, at - 2), at);

/** An added token of tokenizer.json; `normalized` is true if it is matched in the normalized text. */
export const readAdded = (fields) => ({
  content: fields.string("content"),
  single_word: fields.bool("single_word", false),
  lstrip: fields.bool("lstrip", false),
  rstrip: fields.bool("rstrip", false),
  normalized: fields.bool("normalized", !fields.bool("special", false)),
  special: fields.bool("special", false),
});

export class AddedTokens {
  constructor(vocabulary, normalizer) {
    this.vocabulary = vocabulary;
    this.normalizer = normalizer;
    this.ids = new Map(); // content → id
    this.byId = new Map(); // id → added token
    this.special = new Set(); // contents
    this.normal = new Map(); // id → normalized content, if it differs
    this.last = -1; // the greatest id
  }

  /** Add tokens in order. Tokens of the vocabulary keep their ids; others get the next ones. */
  add(tokens) {
    const { size } = this.vocabulary;
    let next = this.last >= size || size === 0 ? this.last + 1 : size;
    for (const token of tokens) {
      if (!token.content) continue;
      const known = this.idOf(token.content);
      const id = known ?? next++;
      if (token.normalized) {
        const text = NormalizedString.of(token.content);
        this.normalizer(text);
        if (text.text !== token.content) this.normal.set(id, text.text);
      }
      this.ids.set(token.content, id);
      if (token.special) this.special.add(token.content);
      this.byId.set(id, token);
      this.last = Math.max(this.last, id);
    }
    const found = [new Map(), new Map()];
    for (const [id, token] of this.byId) {
      if (token.normalized) found[1].set(this.normal.get(id) ?? token.content, id);
      else found[0].set(token.content, id);
    }
    [this.raw, this.normalized] = found.map((ids) => new Prefixes(ids));
  }

  idOf(token) {
    return this.ids.get(token) ?? this.vocabulary.ids.get(token);
  }

  tokenOf(id) {
    const added = this.byId.get(id);
    return added ? this.normal.get(id) ?? added.content : this.vocabulary.tokens[id];
  }

  /** Split a text into [from, to, id or null] by the leftmost longest tokens that their options allow. */
  find(text, prefixes) {
    const parts = [];
    let done = 0;
    for (let at = 0; at < text.length; ) {
      let [end, id] = [0, null];
      prefixes.each(text, at, (...found) => ([end, id] = found));
      if (id === null) {
        at++;
        continue;
      }
      const token = this.byId.get(id);
      let [from, to] = [at, end];
      at = end;
      if (token.single_word && (ENDS_WITH_WORD.test(lastChar(text, from)) || BEGINS_WITH_WORD.test(text.slice(to, to + 2)))) continue;
      if (token.lstrip) from = Math.max(spacesBefore(text, from, done), done);
      if (token.rstrip) to = spacesBehind(text, to);
      if (done < from) parts.push([done, from, null]);
      parts.push([from, to, id]);
      done = to;
    }
    if (done !== text.length) parts.push([done, text.length, null]);
    return parts;
  }

  /** Split a text into normalized parts {text, id}, with the id of an added token, or null. */
  extract(sentence) {
    const cut = (text, prefixes) =>
      this.find(text.text, prefixes)
        .filter(([from, to]) => from < to)
        .map(([from, to, id]) => ({ text: text.slice(from, to), id }));
    const whole = NormalizedString.of(sentence);
    return cut(whole, this.raw).flatMap((part) => {
      if (part.id !== null) return [part];
      this.normalizer(part.text);
      return cut(part.text, this.normalized);
    });
  }
}
