// The tokenizer of a tokenizer.json: from a text to tokens and back, equal to the Rust `tokenizers` 0.23 in ids, offsets
// and texts. Each stage is a file of tokenizer/. `bridge/tokenizers.py` is the other half; a batch
// is one call, because a call through a proxy costs more than a short text.
import { AddedTokens, readAdded } from "./tokenizer/added_tokens.js";
import { beginCall } from "./tokenizer/budget.js";
import { readDecoder } from "./tokenizer/decoders.js";
import { Encoding, LengthError, longestFirst, windows } from "./tokenizer/encoding.js";
import { Fields } from "./tokenizer/fields.js";
import { readModel } from "./tokenizer/models.js";
import { readNormalizer } from "./tokenizer/normalizers.js";
import { readPreTokenizer } from "./tokenizer/pre_tokenizers.js";
import { Processor } from "./tokenizer/processors.js";
import { isAscii, unitOfByte } from "./tokenizer/text.js";

class Tokenizer {
  constructor(table, changes) {
    const fields = new Fields(table, "tokenizer.json");
    if (fields.has("version") && fields.string("version") !== "1.0") fields.fail("version", '"1.0"');
    if (fields.has("normalizer")) change(fields.object("normalizer"), changes);
    this.model = readModel(fields.object("model"));
    beginCall(0);
    this.normalize = readNormalizer(fields.optional("normalizer"));
    this.preTokenize = readPreTokenizer(fields.optional("pre_tokenizer"));
    this.processor = new Processor(fields.optional("post_processor"));
    this.decode = readDecoder(fields.optional("decoder"));
    this.added = new AddedTokens(this.model.vocabulary, this.normalize);
    this.add(fields.objects("added_tokens", []).map((token) => readAdded(token, token.count("id"))));
    this.info = {
      vocabulary: this.model.vocabulary.size,
      unk_token: this.model.unknown,
      continuing_subword_prefix: this.model.prefix ?? "",
      truncation: fields.optional("truncation")?.value ?? null,
      padding: fields.optional("padding")?.value ?? null,
      normalizer: fields.optional("normalizer")?.value ?? null,
      added: [this.processor.added(1), this.processor.added(2)], // special tokens of a text and of a pair
    };
  }

  add(tokens) {
    beginCall(tokens.reduce((sum, token) => sum + token.content.length, 0));
    this.added.add(tokens);
  }

  /** The tokens of a text, without special ones. */
  encode(text) {
    const result = new Encoding();
    let word = 0;
    for (const part of this.added.extract(text)) {
      if (part.id !== null) {
        const { starts, ends } = part.text;
        result.push(part.id, starts[0], ends[ends.length - 1], word++, part.text.text);
        continue;
      }
      for (const piece of this.preTokenize(part.text)) {
        if (piece.text) this.tokenize(piece, word++, result);
      }
    }
    return result;
  }

  tokenize(piece, word, result) {
    const { text, starts, ends } = piece;
    const { tokens } = this.model.vocabulary;
    const found = this.model.tokenize(text);
    const units = isAscii(text) ? null : unitOfByte(text);
    for (let i = 0; i < found.length; i += 3) {
      const [first, last] = [found[i + 1], found[i + 2] - 1];
      result.push(found[i], starts[units ? units[first] : first], ends[units ? units[last] : last], word, tokens[found[i]]);
    }
  }

  /** The inputs of one text or pair: its truncated one, or with `overlap` all windows of it. */
  inputs(texts, { limit, left, overlap, special }) {
    let room = limit === null ? Infinity : limit - (special ? this.processor.added(texts.length) : 0);
    if (room < 0) throw new LengthError(`max_length ${limit} has no room for the ${limit - room} special tokens of an input`);
    let dropped = 0;
    const apply = (...parts) => {
      const input = this.processor.apply(parts, special);
      input.dropped = dropped;
      return input;
    };
    const last = texts[texts.length - 1];
    if (overlap === null && texts.length === 2) {
      const kept = longestFirst(texts[0].length, last.length, room);
      dropped = texts[0].length + last.length - kept[0] - kept[1];
      return [apply(...texts.map((text, i) => text.slice(...windows(text.length, kept[i], 0, left)[0])))];
    }
    if (texts.length === 2) {
      room -= texts[0].length;
      if (room < Math.min(1, last.length)) throw new LengthError(`the first text takes all of the ${limit} tokens: none is left for the second`);
    }
    const cuts = windows(last.length, room, overlap ?? 0, left);
    if (overlap === null) dropped = Math.max(0, last.length - room);
    return (overlap === null ? cuts.slice(0, 1) : cuts).map((cut) => apply(...texts.slice(0, -1), last.slice(...cut)));
  }
}

/** Put the options of a BertNormalizer that tokenizer_config.json states in the place of tokenizer.json's. */
function change(normalizer, changes) {
  if (normalizer.value.type === "BertNormalizer") Object.assign(normalizer.value, changes);
  if (normalizer.value.type === "Sequence") normalizer.objects("normalizers").forEach((part) => change(part, changes));
}

/**
 * The tokenizer of the bytes of a tokenizer.json.
 * @param {Uint8Array} bytes
 * @param {string} changesJson options of BertNormalizer that stand in place of the file's
 */
export function create(bytes, changesJson) {
  return new Tokenizer(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)), JSON.parse(changesJson));
}

/** What the Python half decides by, as JSON. */
export const infoOf = (tokenizer) => JSON.stringify(tokenizer.info);

/**
 * Add tokens, each as tokenizer.json has them under added_tokens; `file` says where they stand. One that is only `named`
 * is a special token, and is left as it is where it was added already.
 */
export function addTokens(tokenizer, tokensJson, file) {
  const tokens = JSON.parse(tokensJson).filter((token) => !token.named || !tokenizer.added.ids.has(token.content));
  tokenizer.add(tokens.map(({ named, ...token }) => readAdded(new Fields(named ? { special: true, ...token } : token, file))));
}

const ROWS = ["ids", "types", "sequences", "starts", "ends", "words"];

/**
 * The inputs that texts become.
 * @param {string} textsJson an array of n strings
 * @param {string} pairsJson an array of n strings, or null
 * @param {string} optionsJson {limit, left, overlap, special}; see Tokenizer.inputs
 * @returns {Int32Array} for each input the number of its text, its length, how many tokens were left out, and
 *   its ids, types, sequences, starts, ends, words
 */
export function encodeBatch(tokenizer, textsJson, pairsJson, optionsJson) {
  const pairs = JSON.parse(pairsJson);
  const options = JSON.parse(optionsJson);
  beginCall(textsJson.length + pairsJson.length);
  const found = JSON.parse(textsJson).map((text, i) =>
    tokenizer.inputs([tokenizer.encode(text), ...(pairs ? [tokenizer.encode(pairs[i])] : [])], options),
  );
  const packed = new Int32Array(found.flat().reduce((sum, input) => sum + 3 + ROWS.length * input.length, 0));
  let at = 0;
  found.forEach((inputs, owner) => {
    for (const input of inputs) {
      packed[at++] = owner;
      packed[at++] = input.length;
      packed[at++] = input.dropped;
      for (const name of ROWS) {
        packed.set(input[name], at);
        at += input.length;
      }
    }
  });
  return packed;
}

/** The text of each array of ids, as JSON. Ids that the vocabulary does not have are left out. */
export function decodeBatch(tokenizer, rowsJson, skipSpecialTokens) {
  const { added } = tokenizer;
  const texts = JSON.parse(rowsJson).map((ids) => {
    beginCall(ids.length);
    const tokens = ids.map((id) => added.tokenOf(id)).filter((token) => token !== undefined && !(skipSpecialTokens && added.special.has(token)));
    return tokens.length ? tokenizer.decode(tokens) : "";
  });
  return JSON.stringify(texts);
}

/** The text of each array of tokens, as JSON. */
export function joinTokens(tokenizer, rowsJson) {
  beginCall(rowsJson.length);
  return JSON.stringify(JSON.parse(rowsJson).map((tokens) => (tokens.length ? tokenizer.decode(tokens) : "")));
}

/** The tokens of an array of ids, as JSON; null for an id that the vocabulary does not have. */
export const tokensOf = (tokenizer, idsJson) => JSON.stringify(JSON.parse(idsJson).map((id) => tokenizer.added.tokenOf(id) ?? null));

/** The ids of an array of tokens, as JSON; null for what the vocabulary does not have. */
export const idsOf = (tokenizer, tokensJson) => JSON.stringify(JSON.parse(tokensJson).map((token) => tokenizer.added.idOf(token) ?? null));

