// Classes of characters as in the Rust `tokenizers`, UTF-8 lengths, and the alphabet of bytes.
// A "unit" is a UTF-16 code unit, the unit of all positions in these files; a character is a code point.

import { rangesOf } from "./unicode_tables.js";

const property = (source) => {
  const pattern = new RegExp(`^${source}$`, "u");
  return (char) => pattern.test(char);
};

/** `char::is_whitespace` */
export const isWhitespace = property("\\p{White_Space}");
/** `char::is_numeric`: digits, including ½, Ⅷ and ٣. */
export const isNumeric = property("\\p{N}");
/** Punctuation for BertPreTokenizer and Punctuation, including ASCII symbols. */
export const isPunctuation = property(`(?![${rangesOf("punctuationLater")}])[!-\\/:-@\\[-\`{-~\\p{P}${rangesOf("punctuation")}]`);
/** `is_other` of the crate unicode_categories: control, format, private use. */
export const isOther = property(`(?![${rangesOf("otherLater")}])[\\p{Cc}\\p{Cf}\\p{Co}\\p{Cs}]`);
/** Nonspacing marks, which strip_accents removes. */
export const isNonspacingMark = property(`(?![${rangesOf("nonspacingLater")}])[\\p{Mn}${rangesOf("nonspacing")}]`);
/** All marks, which StripAccents removes. */
export const isMark = property(`(?![${rangesOf("markLater")}])[\\p{M}${rangesOf("mark")}]`);
/** `\w` of the crate regex. */
export const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";

/** Return the UTF-16 units of the character at `at`. */
export const unitsAt = (text, at) => (text.codePointAt(at) > 0xffff ? 2 : 1);

/** Return the bytes of a code point in UTF-8. */
export const byteLength = (code) => (code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);

const encoder = new TextEncoder();
export const utf8 = (text) => encoder.encode(text);

/** Return the unit of the character of each UTF-8 byte of `text`, followed by the length. */
export function unitOfByte(text) {
  const units = [];
  for (let at = 0; at < text.length; ) {
    const code = text.codePointAt(at);
    for (let n = byteLength(code); n > 0; n--) units.push(at);
    at += code > 0xffff ? 2 : 1;
  }
  units.push(text.length);
  return units;
}

/** Byte → character: printable Latin-1 maps to itself, other bytes to U+0100 and up (GPT-2's alphabet). */
export const BYTE_CHARS = (() => {
  const chars = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const kept = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    chars.push(String.fromCharCode(kept ? byte : next++));
  }
  return chars;
})();
export const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

/** Return true for an ASCII text, whose characters, units and bytes are equal, and which needs no normalization. */
export const isAscii = (text) => /^[\0-\x7f]*$/.test(text);
