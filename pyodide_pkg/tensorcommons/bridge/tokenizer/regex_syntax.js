// Parser of regular expressions in Oniguruma's Ruby syntax, which the Rust `tokenizers` use, into nodes:
// {set}, {seq}, {alt}, {repeat, min, max, mode}, {look, ahead, negated}, {atomic}, {assert}, {group, number}, {back}.
import { TokenizerError } from "./budget.js";
import { CharSet, DIGIT, HEX, SPACE, WORD, caseVariants, ignoringCase, property } from "./char_sets.js";

const DEPTH = 60; // of groups and sets; also bounds the matcher's recursion
const LONGEST = 10_000; // characters of a pattern
const MOST = 1_000; // of {n,m}
const ESCAPES = { t: 9, n: 10, v: 11, f: 12, r: 13, e: 27, a: 7 };
const CLASSES = { d: DIGIT, s: SPACE, w: WORD, h: HEX };
const ASSERTS = { A: "start", z: "end", Z: "end or newline", b: "word", B: "not word", G: "begin" };

const not = (set) => new CharSet([set], true);

class Parser {
  constructor(source) {
    this.chars = [...source];
    this.at = 0;
    this.groups = 0;
    this.names = new Map();
    this.depth = 0;
  }

  fail(why) {
    throw new TokenizerError(`is a regular expression that ${why} (at character ${this.at + 1})`);
  }

  more() {
    return this.at < this.chars.length;
  }

  peek(ahead = 0) {
    return this.chars[this.at + ahead];
  }

  take(text) {
    for (let i = 0; i < text.length; i++) if (this.peek(i) !== text[i]) return false;
    this.at += text.length;
    return true;
  }

  until(end) {
    const stop = this.chars.indexOf(end, this.at);
    if (stop < 0) this.fail(`lacks a ${end}`);
    const text = this.chars.slice(this.at, stop).join("");
    this.at = stop + 1;
    return text;
  }

  nested(read) {
    if (++this.depth > DEPTH) this.fail(`nests more than ${DEPTH} levels`);
    const node = read();
    this.depth--;
    return node;
  }

  alternatives(flags) {
    const options = [];
    do options.push(this.sequence(flags)); while (this.take("|"));
    return options.length === 1 ? options[0] : { alt: options };
  }

  sequence(flags) {
    const items = [];
    while (this.more() && this.peek() !== "|" && this.peek() !== ")") {
      if (flags.extended && /\s/.test(this.peek())) {
        this.at++;
      } else if (flags.extended && this.peek() === "#") {
        while (this.more() && this.peek() !== "\n") this.at++;
      } else {
        const atom = this.atom(flags);
        if (atom) items.push(this.quantified(atom));
      }
    }
    return { seq: items };
  }

  quantified(atom) {
    let node = atom;
    for (let n = 0; ; n++) {
      if (n > DEPTH) this.fail(`repeats more than ${DEPTH} times in a row`);
      let [min, max, interval] = [0, Infinity, false];
      if (this.take("*")) min = 0;
      else if (this.take("+")) min = 1;
      else if (this.take("?")) max = 1;
      else if (this.peek() === "{") {
        const found = /^\{(\d{0,6})(,?)(\d{0,6})\}/.exec(this.chars.slice(this.at, this.at + 16).join(""));
        if (!found || (!found[1] && !found[3])) return node; // a literal brace
        this.at += found[0].length;
        min = Number(found[1] || 0);
        max = found[2] ? (found[3] ? Number(found[3]) : Infinity) : min;
        if (min > max) [min, max] = [max, min];
        if (min > MOST || (max > MOST && max !== Infinity)) this.fail(`repeats more than ${MOST} times`);
        interval = true;
        if (!found[2] && this.take("?")) { // {n}? is optional in Ruby's syntax
          node = { repeat: { repeat: node, min, max, mode: "greedy" }, min: 0, max: 1, mode: "greedy" };
          continue;
        }
      } else return node;
      if (node.assert || node.look) this.fail("repeats what matches no character");
      const mode = this.take("?") ? "lazy" : !interval && this.take("+") ? "possessive" : "greedy";
      node = { repeat: node, min, max, mode };
    }
  }

  atom(flags) {
    const char = this.chars[this.at++];
    if (char === "(") return this.nested(() => this.group(flags));
    if (char === "[") return { set: this.fold(this.nested(() => this.set(flags)), flags) };
    if (char === ".") return { set: flags.dotAll ? property("any") : new CharSet([[10, 10]], true) };
    if (char === "^") return { assert: "line start" };
    if (char === "$") return { assert: "line end" };
    if (char === "\\") return this.escape(flags);
    if ("*+?".includes(char)) this.at--, this.fail("repeats nothing");
    return this.literal(char.codePointAt(0), flags);
  }

  literal(code, flags) {
    const codes = flags.ignoreCase ? caseVariants(code) : [code];
    return { set: this.fold(new CharSet(codes.map((each) => [each, each])), flags) };
  }

  fold(set, flags) {
    return flags.ignoreCase ? ignoringCase(set) : set;
  }

  group(flags) {
    const close = (node) => {
      if (!this.take(")")) this.fail("lacks a )");
      return node;
    };
    const inner = () => close(this.alternatives(flags));
    if (!this.take("?")) {
      const number = ++this.groups;
      return { group: inner(), number };
    }
    if (this.take("#")) return this.until(")"), null;
    if (this.take(":")) return inner();
    if (this.take("=")) return { look: inner(), ahead: true, negated: false };
    if (this.take("!")) return { look: inner(), ahead: true, negated: true };
    if (this.take(">")) return { atomic: inner() };
    if (this.take("<=")) return { look: inner(), ahead: false, negated: false };
    if (this.take("<!")) return { look: inner(), ahead: false, negated: true };
    if (this.take("<")) {
      const number = ++this.groups;
      this.names.set(this.until(">"), number);
      return { group: inner(), number };
    }
    let on = true;
    const changed = { ...flags };
    for (; "imx-".includes(this.peek() ?? "?"); this.at++) {
      const option = { i: "ignoreCase", m: "dotAll", x: "extended" }[this.peek()];
      if (option) changed[option] = on;
      else on = false;
    }
    if (this.take(":")) return close(this.alternatives(changed));
    if (this.take(")")) return this.alternatives(changed); // a(?i)b|c is a(?i:b|c) in Ruby's syntax
    return this.fail("has a group of a kind that is not supported");
  }

  escape(flags) {
    if (!this.more()) this.fail("ends in a backslash");
    const char = this.chars[this.at++];
    if (Object.hasOwn(ASSERTS, char)) return { assert: ASSERTS[char] };
    if (char >= "1" && char <= "9") {
      const number = Number(char);
      if (/\d/.test(this.peek() ?? "")) this.fail("refers to a group above 9");
      return { back: number };
    }
    if (char === "k") {
      if (!this.take("<")) this.fail("has a \\k without <");
      const name = this.until(">");
      return { back: this.names.get(name) ?? (Number(name) || this.fail("refers to an unknown group")) };
    }
    if (char === "R") {
      const lineEnd = new CharSet([[10, 13], [0x85, 0x85], [0x2028, 0x2029]]);
      const pair = { seq: [this.literal(13, {}), this.literal(10, {})] };
      return { atomic: { alt: [pair, { set: lineEnd }] } };
    }
    this.at--;
    const item = this.escaped();
    return typeof item === "number" ? this.literal(item, flags) : { set: item }; // (?i) leaves \p{Lu} as it is
  }

  /** Parse an escape, in sets and outside: a code point or a CharSet. */
  escaped() {
    const char = this.chars[this.at++];
    if (char === undefined) this.fail("ends in a backslash");
    if (Object.hasOwn(CLASSES, char)) return CLASSES[char];
    if (Object.hasOwn(CLASSES, char.toLowerCase())) return not(CLASSES[char.toLowerCase()]);
    if (char === "p" || char === "P") {
      if (!this.take("{")) this.fail("has a \\p without {");
      const negated = this.take("^") !== (char === "P");
      const set = property(this.until("}"));
      return negated ? not(set) : set;
    }
    if (Object.hasOwn(ESCAPES, char)) return ESCAPES[char];
    if (char === "x" || char === "u") {
      const braces = char === "x" && this.take("{");
      const digits = braces ? this.until("}") : this.chars.slice(this.at, this.at + (char === "x" ? 2 : 4)).join("").replace(/[^0-9A-Fa-f].*/s, "");
      if (!braces) this.at += digits.length;
      const code = /^[0-9A-Fa-f]{1,8}$/.test(digits) ? parseInt(digits, 16) : Infinity;
      if (code > 0x10ffff) this.fail("has an escape that is not a character");
      return code;
    }
    if (char === "0") return 0;
    if (/[A-Za-z]/.test(char)) this.at--, this.fail(`has the unsupported escape \\${char}`);
    return char.codePointAt(0);
  }

  set(flags) {
    const negated = this.take("^");
    let items = [];
    const both = []; // operands of &&
    for (let first = true; ; first = false) {
      if (!this.more()) this.fail("lacks a ]");
      if (this.take("]")) {
        if (!first) break;
        items.push([93, 93]);
        continue;
      }
      if (this.take("&&")) {
        both.push(new CharSet(items));
        items = [];
        continue;
      }
      if (this.peek() === "[") {
        items.push(this.bracket(flags));
        continue;
      }
      const low = this.member();
      if (this.peek() === "-" && this.peek(1) !== undefined && this.peek(1) !== "]" && typeof low === "number") {
        this.at++;
        const high = this.peek() === "[" ? null : this.member();
        if (typeof high === "number") {
          if (high < low) this.fail("has a range that ends before it begins");
          items.push([low, high]);
        } else items.push([low, low], [45, 45], ...(high ? [high] : []));
      } else items.push(typeof low === "number" ? [low, low] : low);
    }
    let set = new CharSet(items);
    for (const other of both) {
      const [left, right] = [set, other];
      set = new CharSet([(code) => left.test(code) && right.test(code)]);
    }
    if (negated) set = not(flags.ignoreCase ? ignoringCase(set) : set);
    return set;
  }

  bracket(flags) {
    const found = /^\[:(\^?)([A-Za-z]+):\]/.exec(this.chars.slice(this.at, this.at + 20).join(""));
    if (!found) {
      this.at++;
      return this.nested(() => this.set(flags));
    }
    this.at += found[0].length;
    return found[1] ? not(property(found[2])) : property(found[2]);
  }

  member() {
    const char = this.chars[this.at++];
    if (char !== "\\") return char.codePointAt(0);
    if (this.take("b")) return 8;
    return this.escaped();
  }
}

/** Parse a pattern into nodes, and count its groups. Throws TokenizerError for unsupported syntax. */
export function parse(source) {
  if (source.length > LONGEST) throw new TokenizerError(`is a regular expression of more than ${LONGEST} characters`);
  const parser = new Parser(source);
  const flags = { ignoreCase: false, dotAll: false, extended: false };
  const node = parser.alternatives(flags);
  if (parser.more()) parser.fail("has a ) too many");
  return { node, groups: parser.groups };
}
