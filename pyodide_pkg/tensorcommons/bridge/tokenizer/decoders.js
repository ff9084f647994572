// Decoders of tokenizer.json: each is a function from a list of tokens to a list of texts, which are joined at the end.
import { readPattern } from "./patterns.js";
import { CHAR_BYTES, utf8 } from "./text.js";

const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const CLEANED = [[" .", "."], [" ?", "?"], [" !", "!"], [" ,", ","], [" ' ", "'"], [" n't", "n't"], [" 'm", "'m"], [" do not", " don't"], [" 's", "'s"], [" 've", "'ve"], [" 're", "'re"]];
const cleanUp = (text) => CLEANED.reduce((done, [from, to]) => done.replaceAll(from, to), text);

function byteLevel(tokens) {
  const bytes = [];
  for (const token of tokens) {
    const own = Array.from(token, (char) => CHAR_BYTES.get(char));
    for (const byte of own.includes(undefined) ? utf8(token) : own) bytes.push(byte);
  }
  return [lossy.decode(Uint8Array.from(bytes))];
}

function byteFallback(tokens) {
  const texts = [];
  let bytes = [];
  const flush = () => {
    try {
      if (bytes.length) texts.push(strict.decode(Uint8Array.from(bytes)));
    } catch {
      bytes.forEach(() => texts.push("\ufffd"));
    }
    bytes = [];
  };
  for (const token of tokens) {
    const found = /^<0x(\+[0-9A-Fa-f]|[0-9A-Fa-f]{2})>$/.exec(token); // Rust's from_str_radix accepts a plus sign
    if (found) {
      bytes.push(parseInt(found[1], 16));
    } else {
      flush();
      texts.push(token);
    }
  }
  flush();
  return texts;
}

function wordPiece(fields) {
  const prefix = fields.string("prefix");
  const clean = fields.bool("cleanup");
  return (tokens) =>
    tokens.map((token, i) => {
      let text = token;
      if (i) text = token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
      return clean ? cleanUp(text) : text;
    });
}

function metaspace(fields) {
  const mark = fields.char("replacement");
  let scheme = fields.oneOf("prepend_scheme", ["first", "never", "always"], "always");
  if (!fields.bool("add_prefix_space", true)) scheme = "never";
  return (tokens) => tokens.map((token, i) => token.replaceAll(mark, i === 0 && scheme !== "never" ? "" : " "));
}

function strip(fields) {
  const content = fields.char("content");
  const [start, stop] = [fields.count("start"), fields.count("stop")];
  return (tokens) =>
    tokens.map((token) => {
      const chars = [...token];
      let [from, to] = [0, chars.length];
      while (from < start && chars[from] === content) from++;
      while (chars.length - to < stop && to > 0 && chars[to - 1] === content) to--;
      return chars.slice(from, to).join("");
    });
}

function ctc(fields) {
  const [pad, delimiter] = [fields.string("pad_token"), fields.string("word_delimiter_token")];
  const clean = fields.bool("cleanup");
  return (tokens) =>
    tokens
      .filter((token, i) => i === 0 || token !== tokens[i - 1])
      .map((token) => (pad ? token.replaceAll(pad, "") : token))
      .map((token) => (clean ? cleanUp(token).replaceAll(delimiter, " ") : token))
      .filter((token) => token);
}

function replace(fields) {
  const pattern = readPattern(fields, "pattern");
  const content = fields.string("content");
  const put = (token) => pattern(token).map(([from, to, isMatch]) => (isMatch ? content : token.slice(from, to))).join("");
  return (tokens) => tokens.map((token) => (token ? put(token) : ""));
}

const KINDS = {
  BPEDecoder(fields) {
    const suffix = fields.string("suffix");
    return (tokens) => tokens.map((token, i) => (suffix ? token.replaceAll(suffix, i === tokens.length - 1 ? "" : " ") : token));
  },
  ByteLevel: () => byteLevel,
  WordPiece: wordPiece,
  Metaspace: metaspace,
  CTC: ctc,
  Replace: replace,
  Fuse: () => (tokens) => [tokens.join("")],
  Strip: strip,
  ByteFallback: () => byteFallback,
  Sequence(fields) {
    const steps = fields.objects("decoders").map((part) => part.make(KINDS));
    return (tokens) => steps.reduce((done, step) => step(done), tokens);
  },
};

/** Return the function of a decoder; without one, tokens are joined by spaces. */
export function readDecoder(fields) {
  if (!fields) return (tokens) => tokens.join(" ");
  const decode = fields.make(KINDS);
  return (tokens) => decode(tokens).join("");
}
