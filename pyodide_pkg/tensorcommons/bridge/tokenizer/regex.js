// A backtracking matcher with a budget. Every pattern of a tokenizer.json runs in it: JavaScript's own regular
// expressions differ in \s, \w, \d and (?i), lack possessive repeats, and cannot be stopped.
// A pattern becomes a program of instructions [op, ...]; alternatives are on a stack, three numbers each.
import { TokenizerError, spend } from "./budget.js";
import { WORD } from "./char_sets.js";
import { parse } from "./regex_syntax.js";
import { unitsAt } from "./text.js";

const [SET, REPEAT, SPLIT, JUMP, SAVE, ENTER, CHECK, LOOK, ATOMIC, ASSERT, BACK, DONE] = Array(12).keys();
const MOST = 20_000; // instructions
const SLICE = 1024; // steps taken from the budget at once

class Compiler {
  constructor() {
    this.program = [];
    this.loops = 0;
    this.visits = 0; // of nodes: an empty one may be repeated endlessly
  }

  emit(...instruction) {
    if (this.program.length >= MOST) this.fail();
    this.program.push(instruction);
    return this.program.length - 1;
  }

  fail() {
    throw new TokenizerError(`is a regular expression of more than ${MOST} steps`);
  }

  get end() {
    return this.program.length;
  }

  node(node) {
    if (++this.visits > 10 * MOST) this.fail();
    if (node.set) this.emit(SET, node.set);
    else if (node.seq) node.seq.forEach((item) => this.node(item));
    else if (node.alt) this.alternatives(node.alt);
    else if (node.repeat) this.repeat(node);
    else if (node.group) {
      this.emit(SAVE, 2 * node.number);
      this.node(node.group);
      this.emit(SAVE, 2 * node.number + 1);
    } else if (node.look) this.look(node);
    else if (node.atomic) this.apart(ATOMIC, node.atomic);
    else if (node.assert) this.emit(ASSERT, node.assert);
    else this.emit(BACK, node.back);
  }

  /** Compile a separate program that ends in DONE; the instruction has the address where matching continues. */
  apart(op, node, ...more) {
    const at = this.emit(op, 0, ...more);
    this.node(node);
    this.emit(DONE);
    this.program[at][1] = this.end;
  }

  alternatives(options) {
    const jumps = [];
    options.forEach((option, i) => {
      if (i === options.length - 1) return this.node(option);
      const split = this.emit(SPLIT, 0);
      this.node(option);
      jumps.push(this.emit(JUMP, 0));
      this.program[split][1] = this.end;
    });
    for (const jump of jumps) this.program[jump][1] = this.end;
  }

  repeat({ repeat, min, max, mode }) {
    if (mode === "possessive") return this.apart(ATOMIC, { repeat, min, max, mode: "greedy" });
    const lazy = mode === "lazy";
    if (repeat.set && !lazy) return this.emit(REPEAT, repeat.set, min, max);
    for (let n = 0; n < min; n++) this.node(repeat);
    if (max === Infinity) {
      // Each round begins with ENTER, which keeps the place; CHECK begins another one if the place has changed.
      const loop = this.loops++;
      const start = this.end;
      const split = this.emit(SPLIT, 0);
      const skip = lazy ? this.emit(JUMP, 0) : null;
      if (lazy) this.program[split][1] = this.end;
      this.emit(ENTER, loop);
      this.node(repeat);
      this.emit(CHECK, loop, start);
      if (lazy) this.program[skip][1] = this.end;
      else this.program[split][1] = this.end;
    } else {
      const splits = [];
      for (let n = min; n < max; n++) {
        if (lazy) {
          splits.push([this.emit(SPLIT, 0), this.emit(JUMP, 0)]);
          this.program[splits[splits.length - 1][0]][1] = this.end;
        } else splits.push([null, this.emit(SPLIT, 0)]);
        this.node(repeat);
      }
      for (const [, exit] of splits) this.program[exit][1] = this.end;
    }
    return null;
  }

  look({ look, ahead, negated }) {
    const [min, max] = ahead ? [0, 0] : widths(look);
    if (max === Infinity) throw new TokenizerError("is a regular expression that looks behind over an unlimited length");
    this.apart(LOOK, look, ahead, negated, min, max);
  }
}

/** Return the minimum and maximum of characters that a node matches. */
function widths(node) {
  if (node.set) return [1, 1];
  if (node.assert || node.look) return [0, 0];
  if (node.back) return [0, Infinity];
  if (node.seq) return node.seq.map(widths).reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
  if (node.alt) return node.alt.map(widths).reduce(([a, b], [c, d]) => [Math.min(a, c), Math.max(b, d)]);
  if (node.repeat) {
    const [min, max] = widths(node.repeat);
    return [min * node.min, max === 0 ? 0 : max * node.max];
  }
  return widths(node.group ?? node.atomic);
}

export class Regex {
  /** Throws TokenizerError for a pattern that is not supported. */
  constructor(source) {
    const { node, groups } = parse(source);
    const compiler = new Compiler();
    compiler.node(node);
    compiler.emit(DONE);
    this.program = compiler.program;
    this.groups = groups;
    this.loops = compiler.loops;
    this.steps = SLICE;
  }

  /** Return [from, to] of each match, like the iterator of the crate onig. */
  find(text) {
    this.text = text;
    this.saved = new Array(2 * this.groups + 2).fill(-1);
    this.places = new Array(this.loops).fill(-1);
    const found = [];
    let from = 0;
    let last = -1;
    while (from <= text.length) {
      this.begin = from;
      let start = from;
      let stop = -1;
      for (; start <= text.length; start += unitsAt(text, start)) {
        this.step(this.groups);
        this.saved.fill(-1);
        stop = this.run(0, start, -1);
        if (stop >= 0) break;
      }
      if (stop < 0) break;
      if (stop === start && last === stop) { // an empty match directly after another one does not count
        from += unitsAt(text, from);
        continue;
      }
      from = last = stop;
      found.push([start, stop]);
    }
    return found;
  }

  step(count) {
    this.steps -= count;
    if (this.steps < 0) {
      spend(SLICE - this.steps, "a regular expression");
      this.steps = SLICE;
    }
  }

  /** Return the end of a match that begins at `at`, or -1. With `wanted`, it must end there. */
  run(pc, at, wanted) {
    const { program, text, saved, places } = this;
    const stack = [];
    for (;;) {
      this.step(1);
      const code = program[pc];
      let failed = false;
      switch (code[0]) {
        case SET:
          if (at < text.length && code[1].test(text.codePointAt(at))) {
            at += unitsAt(text, at);
            pc++;
          } else failed = true;
          break;
        case REPEAT: {
          const [, set, min, max] = code;
          let count = 0;
          let least = at; // end of the minimum of repeats
          while (count < max && at < text.length) {
            const char = text.codePointAt(at);
            if (!set.test(char)) break;
            at += char > 0xffff ? 2 : 1;
            if (++count <= min) least = at;
          }
          this.step(count);
          if (count < min) failed = true;
          else {
            if (at > least) stack.push(-3 - pc, at, least);
            pc++;
          }
          break;
        }
        case SPLIT:
          stack.push(code[1], at, 0);
          pc++;
          break;
        case JUMP:
          pc = code[1];
          break;
        case SAVE:
          stack.push(-1, code[1], saved[code[1]]);
          saved[code[1]] = at;
          pc++;
          break;
        case ENTER:
          stack.push(-2, code[1], places[code[1]]);
          places[code[1]] = at;
          pc++;
          break;
        case CHECK:
          pc = places[code[1]] === at ? pc + 1 : code[2];
          break;
        case LOOK:
          if (this.looks(pc + 1, at, code) === code[3]) failed = true;
          else pc = code[1];
          break;
        case ATOMIC: {
          const stop = this.run(pc + 1, at, -1);
          if (stop < 0) failed = true;
          else [at, pc] = [stop, code[1]];
          break;
        }
        case ASSERT:
          if (this.holds(code[1], at)) pc++;
          else failed = true;
          break;
        case BACK: {
          const [from, to] = [saved[2 * code[1]], saved[2 * code[1] + 1]];
          const part = from >= 0 && to >= 0 ? text.slice(from, to) : null;
          this.step(part?.length ?? 0);
          if (part !== null && text.startsWith(part, at)) {
            at += part.length;
            pc++;
          } else failed = true;
          break;
        }
        default: // DONE
          if (wanted < 0 || at === wanted) return at;
          failed = true;
      }
      while (failed) {
        if (!stack.length) return -1;
        const extra = stack.pop();
        const place = stack.pop();
        const kind = stack.pop();
        if (kind === -1) saved[place] = extra;
        else if (kind === -2) places[place] = extra;
        else if (kind >= 0) [pc, at, failed] = [kind, place, false];
        else { // a repeated set gives one character back
          at = place - 1;
          if (at > extra && isLow(text.charCodeAt(at)) && isHigh(text.charCodeAt(at - 1))) at--;
          if (at > extra) stack.push(kind, at, extra);
          [pc, failed] = [-3 - kind + 1, false];
        }
      }
    }
  }

  looks(pc, at, [, , ahead, , min, max]) {
    if (ahead) return this.run(pc, at, -1) >= 0;
    const { text } = this;
    let from = at;
    for (let width = 0; width <= max; width++) {
      this.step(1);
      if (width >= min && this.run(pc, from, at) >= 0) return true;
      if (from === 0) return false;
      from--;
      if (from > 0 && isLow(text.charCodeAt(from)) && isHigh(text.charCodeAt(from - 1))) from--;
    }
    return false;
  }

  holds(kind, at) {
    const { text } = this;
    switch (kind) {
      case "line start":
        return at === 0 || (text[at - 1] === "\n" && at < text.length);
      case "line end":
        return at === text.length || text[at] === "\n";
      case "start":
        return at === 0;
      case "end":
        return at === text.length;
      case "end or newline":
        return at === text.length || (at === text.length - 1 && text[at] === "\n");
      case "begin":
        return at === this.begin;
      default: {
        const before = at > 0 && WORD.test(codeBefore(text, at));
        const after = at < text.length && WORD.test(text.codePointAt(at));
        return (before !== after) === (kind === "word");
      }
    }
  }
}

const isHigh = (unit) => (unit & 0xfc00) === 0xd800;
const isLow = (unit) => (unit & 0xfc00) === 0xdc00;
const codeBefore = (text, at) =>
  isLow(text.charCodeAt(at - 1)) && at > 1 && isHigh(text.charCodeAt(at - 2)) ? text.codePointAt(at - 2) : text.charCodeAt(at - 1);
