// Normalizers of tokenizer.json: each is a function that changes a NormalizedString, named as in Rust.
import { TokenizerError } from "./budget.js";
import { readPattern } from "./patterns.js";
import { CharsMap } from "./precompiled.js";
import { BYTE_CHARS, isMark, isNonspacingMark, isOther, isWhitespace, utf8 } from "./text.js";
import { toForm } from "./unicode_forms.js";

const HAN = /^[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]$/u;
// eslint-disable-next-line no-control-regex -- matches control characters
const NMT_DROPPED = /^[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]$/;
const NMT_SPACE = /^[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]$/;

/** Replace each byte of the text by its character in GPT-2's alphabet, with the origin of the byte's character. */
export const toBytes = (text) => text.expand((char) => Array.from(utf8(char), (byte) => BYTE_CHARS[byte]));

const lowercase = (text) => text.expand((char) => char.toLowerCase());

function bert(fields) {
  const clean = fields.bool("clean_text");
  const chinese = fields.bool("handle_chinese_chars");
  const lower = fields.bool("lowercase");
  const accents = fields.bool("strip_accents", lower);
  const kept = (char) => char === "\t" || char === "\n" || char === "\r" || !(char === "\0" || char === "\ufffd" || isOther(char));
  return (text) => {
    if (clean) {
      text.filter(kept);
      text.map((char) => (isWhitespace(char) ? " " : char));
    }
    if (chinese) text.expand((char) => (HAN.test(char) ? [" ", char, " "] : [char]));
    if (accents) {
      toForm(text, "NFD");
      text.filter((char) => !isNonspacingMark(char));
    }
    if (lower) lowercase(text);
  };
}

function precompiled(fields) {
  let map;
  try {
    map = new CharsMap(fields.string("precompiled_charsmap"));
  } catch (error) {
    if (error instanceof TokenizerError) throw error;
    throw new TokenizerError(`${fields.at("precompiled_charsmap")} is not a SentencePiece charsmap in base64`);
  }
  return (text) => map.normalize(text);
}

function replace(fields) {
  const pattern = readPattern(fields, "pattern");
  const content = fields.string("content");
  return (text) => text.replace(pattern(text.text), content);
}

const KINDS = {
  BertNormalizer: bert,
  Strip(fields) {
    const [left, right] = [fields.bool("strip_left"), fields.bool("strip_right")];
    return (text) => text.strip(left, right, isWhitespace);
  },
  StripAccents: () => (text) => text.filter((char) => !isMark(char)),
  NFC: () => (text) => toForm(text, "NFC"),
  NFD: () => (text) => toForm(text, "NFD"),
  NFKC: () => (text) => toForm(text, "NFKC"),
  NFKD: () => (text) => toForm(text, "NFKD"),
  Lowercase: () => lowercase,
  Nmt: () => (text) => {
    text.filter((char) => !NMT_DROPPED.test(char));
    text.map((char) => (NMT_SPACE.test(char) ? " " : char));
  },
  Precompiled: precompiled,
  Replace: replace,
  Prepend(fields) {
    const prefix = fields.string("prepend");
    return (text) => text.prepend(prefix);
  },
  ByteLevel: () => (text) => toBytes(text),
  Sequence(fields) {
    const steps = fields.objects("normalizers").map(readNormalizer);
    return (text) => steps.forEach((step) => step(text));
  },
};

/** Return the function of a normalizer; without one, the identity. */
export const readNormalizer = (fields) => (fields ? fields.make(KINDS) : () => {});

