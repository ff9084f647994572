// Pre-tokenizers of tokenizer.json: each is a function from a NormalizedString to the list of its parts.
import { TokenizerError } from "./budget.js";
import { matchChars } from "./normalized.js";
import { toBytes } from "./normalizers.js";
import { readPattern, regexPattern } from "./patterns.js";
import { isNumeric, isPunctuation, isWhitespace, unitsAt } from "./text.js";

const BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const splitChars = (isMatch, behavior) => (text) => text.split(matchChars(text.text, isMatch), behavior);
const inverted = (matches) => matches.map(([from, to, isMatch]) => [from, to, !isMatch]);
const memo = (make) => {
  let made;
  return () => (made ??= make());
};
const gpt2 = memo(() => regexPattern(GPT2, "ByteLevel"));
const words = memo(() => regexPattern("[\\w\u200c\u200d]+|[^\\w\\s\u200c\u200d]+", "Whitespace"));

function byteLevel(fields) {
  const prefix = fields.bool("add_prefix_space");
  const pattern = fields.bool("use_regex", true) ? gpt2() : null;
  return (text) => {
    if (prefix && !text.text.startsWith(" ")) text.prepend(" ");
    const parts = pattern ? text.split(pattern(text.text), "Isolated") : [text];
    parts.forEach(toBytes);
    return parts;
  };
}

function metaspace(fields) {
  const mark = fields.char("replacement");
  let scheme = fields.oneOf("prepend_scheme", ["first", "never", "always"], "always");
  if (fields.bool("add_prefix_space", true) === false) {
    if (fields.has("prepend_scheme") && scheme !== "never") throw new TokenizerError(`${fields.at("add_prefix_space")} does not match ${fields.at("prepend_scheme")}`);
    scheme = "never";
  }
  const splits = fields.bool("split", true);
  return (text) => {
    text.replace(matchChars(text.text, (char) => char === " "), mark);
    if (!text.text.startsWith(mark) && (scheme === "always" || (scheme === "first" && text.shift === 0))) text.prepend(mark);
    return splits ? text.split(matchChars(text.text, (char) => char === mark), "MergedWithNext") : [text];
  };
}

function split(fields) {
  const pattern = readPattern(fields, "pattern");
  const behavior = fields.oneOf("behavior", BEHAVIORS);
  const invert = fields.bool("invert");
  return (text) => text.split(invert ? inverted(pattern(text.text)) : pattern(text.text), behavior);
}

function fixedLength(fields) {
  const length = fields.count("length", 5);
  if (length === 0) fields.fail("length", "a whole number from 1");
  return (text) => {
    const parts = [];
    let from = 0;
    let count = 0;
    for (let at = 0; at < text.text.length; ) {
      at += unitsAt(text.text, at);
      if (++count === length || at === text.text.length) {
        parts.push(text.slice(from, at));
        [from, count] = [at, 0];
      }
    }
    return parts;
  };
}

const KINDS = {
  BertPreTokenizer: () => {
    const spaces = splitChars(isWhitespace, "Removed");
    const marks = splitChars(isPunctuation, "Isolated");
    return (text) => spaces(text).flatMap(marks);
  },
  ByteLevel: byteLevel,
  Delimiter(fields) {
    const delimiter = fields.char("delimiter");
    return splitChars((char) => char === delimiter, "Removed");
  },
  Metaspace: metaspace,
  Whitespace: () => (text) => text.split(inverted(words()(text.text)), "Removed"),
  WhitespaceSplit: () => splitChars(isWhitespace, "Removed"),
  Punctuation: (fields) => splitChars(isPunctuation, fields.oneOf("behavior", BEHAVIORS, "Isolated")),
  Digits: (fields) => splitChars(isNumeric, fields.bool("individual_digits") ? "Isolated" : "Contiguous"),
  Split: split,
  FixedLength: fixedLength,
  Sequence(fields) {
    const steps = fields.objects("pretokenizers").map(readPreTokenizer);
    return (text) => steps.reduce((parts, step) => parts.flatMap(step), [text]);
  },
  UnicodeScripts(fields) {
    throw new TokenizerError(`${fields.at("type")} UnicodeScripts is not supported`);
  },
};

/** Return the function of a pre-tokenizer; without one, a text is one part. */
export const readPreTokenizer = (fields) => (fields ? fields.make(KINDS) : (text) => [text]);
