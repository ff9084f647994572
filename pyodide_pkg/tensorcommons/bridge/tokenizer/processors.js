// Post-processors of tokenizer.json: special tokens, token types, and the spaces of offsets.
import { Encoding } from "./encoding.js";
import { isCount } from "./fields.js";
import { BYTE_CHARS, isWhitespace } from "./text.js";

const SPACE = BYTE_CHARS[32];
const isSpace = (char) => char === SPACE || isWhitespace(char);

/** Exclude leading and trailing spaces of byte-level tokens from their offsets. */
function trim(encoding, addPrefixSpace) {
  encoding.values.forEach((value, i) => {
    const chars = [...value];
    let leading = 0;
    while (leading < chars.length && isSpace(chars[leading])) leading++;
    let trailing = 0;
    while (trailing < chars.length && isSpace(chars[chars.length - 1 - trailing])) trailing++;
    const { starts, ends } = encoding;
    if (leading === 1 && addPrefixSpace && (i === 0 || starts[i] === 0)) leading = 0; // the space is not in the text
    starts[i] = Math.min(starts[i] + leading, ends[i]);
    if (trailing > 0 && ends[i] >= trailing) ends[i] = Math.max(ends[i] - trailing, starts[i]);
  });
}

/** Parse the pieces of a template: an index of the texts or ids, each with a type. */
const single = (ids, type) => ({ ids, type });
const text = (sequence, type) => ({ sequence, type });

function template(fields) {
  const tokens = fields.object("special_tokens");
  const read = (name, sequences) =>
    fields.objects(name).map((item) => {
      if (item.has("Sequence")) {
        const piece = item.object("Sequence");
        const id = piece.oneOf("id", sequences);
        return text(id === "A" ? 0 : 1, piece.count("type_id"));
      }
      const piece = item.object("SpecialToken");
      const token = tokens.object(piece.string("id"));
      const ids = token.list("ids");
      if (!ids.every(isCount)) token.fail("ids", "a list of whole numbers from 0");
      return single(ids, piece.count("type_id"));
    });
  return { pieces: [read("single", ["A"]), read("pair", ["A", "B"])], adds: true };
}

function bertLike(fields, pieces) {
  const idOf = (name) => {
    const pair = fields.list(name);
    if (pair.length !== 2 || !isCount(pair[1])) fields.fail(name, "a token and its id");
    return [pair[1]];
  };
  return { pieces: pieces(idOf("cls"), idOf("sep")), adds: true };
}

const KINDS = {
  ByteLevel: (fields) => ({ trims: fields.bool("trim_offsets") ? [fields.bool("add_prefix_space")] : [] }),
  BertProcessing: (fields) =>
    bertLike(fields, (cls, sep) => {
      const one = [single(cls, 0), text(0, 0), single(sep, 0)];
      return [one, [...one, text(1, 1), single(sep, 1)]];
    }),
  RobertaProcessing: (fields) => ({
    ...bertLike(fields, (cls, sep) => {
      const one = [single(cls, 0), text(0, 0), single(sep, 0)];
      return [one, [...one, single(sep, 0), text(1, 0), single(sep, 0)]];
    }),
    trims: fields.bool("trim_offsets", true) ? [fields.bool("add_prefix_space", true)] : [],
  }),
  TemplateProcessing: template,
  Sequence(fields) {
    const parts = fields.objects("processors").map((part) => part.make(KINDS));
    const adding = parts.filter((part) => part.adds);
    if (adding.length > 1) fields.fail("processors", "a list with at most one processor that adds tokens");
    return { pieces: adding[0]?.pieces, adds: adding.length > 0, trims: parts.flatMap((part) => part.trims ?? []) };
  },
};

const PLAIN = [[text(0, 0)], [text(0, 0), text(1, 1)]];

export class Processor {
  constructor(fields) {
    const made = fields ? fields.make(KINDS) : {};
    this.pieces = made.pieces ?? PLAIN;
    this.trims = made.trims ?? [];
  }

  /** Return the number of special tokens for an input of this many texts. */
  added(texts) {
    return this.pieces[texts - 1].reduce((sum, piece) => sum + (piece.ids?.length ?? 0), 0);
  }

  /** Build one input of one or two texts. */
  apply(texts, addSpecial) {
    const trimmed = texts.map((encoding) => {
      if (!this.trims.length) return encoding;
      const copy = encoding.slice(0);
      for (const addPrefixSpace of this.trims) trim(copy, addPrefixSpace);
      return copy;
    });
    return Encoding.concat(
      this.pieces[texts.length - 1].flatMap((piece) => {
        if (!piece.ids) return [trimmed[piece.sequence].as(piece.sequence, piece.type)];
        return addSpecial ? piece.ids.map((id) => Encoding.special(id, piece.type)) : [];
      }),
    );
  }
}
