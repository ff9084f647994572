// Sets of characters in regular expressions, with the semantics of Oniguruma.
import { TokenizerError } from "./budget.js";

const KNOWN = 70_000; // results that a set caches

/** A set of code points with a membership `test`. */
export class CharSet {
  /** `items` are [first, last] ranges, CharSets and functions of a code point. */
  constructor(items, negated = false) {
    this.items = items;
    this.negated = negated;
    this.ascii = new Int8Array(128).fill(-1);
    this.known = new Map();
  }

  test(code) {
    if (code < 128) {
      const answer = this.ascii[code];
      return (answer < 0 ? (this.ascii[code] = this.look(code) ? 1 : 0) : answer) === 1;
    }
    let answer = this.known.get(code);
    if (answer === undefined) {
      answer = this.look(code);
      if (this.known.size < KNOWN) this.known.set(code, answer);
    }
    return answer;
  }

  look(code) {
    const found = this.items.some((item) => {
      if (item instanceof CharSet) return item.test(code);
      return typeof item === "function" ? item(code) : item[0] <= code && code <= item[1];
    });
    return found !== this.negated;
  }
}

/** Return the code points that differ from one only in case. */
export function caseVariants(code) {
  const char = String.fromCodePoint(code);
  const found = new Set([code]);
  for (const text of [char.toLowerCase(), char.toUpperCase(), char.toUpperCase().toLowerCase(), char.toLowerCase().toUpperCase()]) {
    if ([...text].length === 1) found.add(text.codePointAt(0));
  }
  return [...found];
}

/** Return the set closed under case folding. */
export const ignoringCase = (set) => new CharSet([(code) => caseVariants(code).some((variant) => set.test(variant))]);

const unicode = (source) => {
  const pattern = new RegExp(`^${source}$`, "u");
  return new CharSet([(code) => pattern.test(String.fromCodePoint(code))]);
};

const POSIX = {
  alnum: "[\\p{Alphabetic}\\p{Nd}]", alpha: "\\p{Alphabetic}", ascii: "\\p{ASCII}", any: "[^]", blank: "[\\p{Zs}\\t]",
  cntrl: "\\p{Cc}", digit: "\\p{Nd}", graph: "[^\\p{White_Space}\\p{Cc}\\p{Cn}\\p{Cs}]", lower: "\\p{Lowercase}",
  print: "(?:[^\\p{White_Space}\\p{Cc}\\p{Cn}\\p{Cs}]|\\p{Zs})", punct: "[\\p{P}\\p{S}]", space: "\\p{White_Space}",
  upper: "\\p{Uppercase}", word: "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]", xdigit: "[0-9A-Fa-f]",
};
const named = new Map();

/** Return the set of `\p{name}` or `[:name:]`. Throws for an unknown name. */
export function property(name) {
  const plain = name.toLowerCase().replace(/[\s_-]/g, "");
  let set = named.get(plain);
  if (set) return set;
  if (Object.hasOwn(POSIX, plain)) {
    set = unicode(POSIX[plain]);
  } else if (/^[\w -]{1,40}$/.test(name)) {
    const words = name.split(/[\s_-]+/).map((word) => word.slice(0, 1).toUpperCase() + word.slice(1).toLowerCase()).join("_");
    for (const spelled of [name, words]) {
      for (const source of [`\\p{${spelled}}`, `\\p{Script=${spelled}}`]) {
        try {
          set ??= unicode(source);
        } catch {
          // the engine does not support this spelling; try the next one
        }
      }
    }
  }
  if (!set) throw new TokenizerError(`has the unknown property \\p{${name.slice(0, 40)}}`);
  named.set(plain, set);
  return set;
}

export const DIGIT = property("digit");
export const SPACE = property("space");
export const WORD = property("word");
export const HEX = property("xdigit");
