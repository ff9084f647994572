// Checked fields of tokenizer.json: a value of the wrong type is named by its path.
import { TokenizerError } from "./budget.js";

const DEPTH = 50; // levels of Sequence; published files have 2

const shown = (value) => {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
};

/** A JSON object at `path`, and readers of its fields. */
export class Fields {
  constructor(value, path, depth = 0) {
    if (value === undefined) throw new TokenizerError(`${path} is missing: it must be an object`);
    if (value === null || typeof value !== "object" || Array.isArray(value)) throw new TokenizerError(`${path} must be an object, not ${shown(value)}`);
    if (depth > DEPTH) throw new TokenizerError(`${path} is nested more than ${DEPTH} levels deep`);
    this.value = value;
    this.path = path;
    this.depth = depth;
  }

  has(name) {
    return Object.hasOwn(this.value, name) && this.value[name] !== null;
  }

  at(name) {
    return this.path === "tokenizer.json" ? name : `${this.path}.${name}`;
  }

  fail(name, wanted) {
    const value = Object.hasOwn(this.value, name) ? this.value[name] : undefined;
    throw new TokenizerError(value === undefined ? `${this.at(name)} is missing: it must be ${wanted}` : `${this.at(name)} must be ${wanted}, not ${shown(value)}`);
  }

  /** Return the field `name` if `is` accepts it; `fallback` if it is missing or null, unless that is undefined. */
  read(name, is, wanted, fallback) {
    if (!this.has(name) && fallback !== undefined) return fallback;
    const value = Object.hasOwn(this.value, name) ? this.value[name] : undefined;
    if (!is(value)) this.fail(name, wanted);
    return value;
  }

  string(name, fallback) {
    return this.read(name, (value) => typeof value === "string", "a string", fallback);
  }

  bool(name, fallback) {
    return this.read(name, (value) => typeof value === "boolean", "true or false", fallback);
  }

  count(name, fallback) {
    return this.read(name, isCount, "a whole number from 0", fallback);
  }

  number(name, fallback) {
    return this.read(name, (value) => typeof value === "number", "a number", fallback);
  }

  char(name, fallback) {
    return this.read(name, (value) => typeof value === "string" && [...value].length === 1, "one character", fallback);
  }

  list(name, fallback) {
    return this.read(name, Array.isArray, "a list", fallback);
  }

  oneOf(name, known, fallback) {
    return this.read(name, (value) => known.includes(value), `one of ${known.join(", ")}`, fallback);
  }

  object(name) {
    return new Fields(this.read(name, () => true), this.at(name), this.depth + 1);
  }

  optional(name) {
    return this.has(name) ? this.object(name) : null;
  }

  /** Return the objects of a list. */
  objects(name, fallback) {
    return this.list(name, fallback).map((value, i) => new Fields(value, `${this.at(name)}[${i}]`, this.depth + 1));
  }

  /** Call the function of `kinds` for the type of this object. */
  make(kinds) {
    const type = this.oneOf("type", Object.keys(kinds));
    return kinds[type](this);
  }
}

/** Return true for an integer that is a valid id or length. */
export const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 31;
