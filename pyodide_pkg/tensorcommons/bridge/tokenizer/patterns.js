// The `pattern` of Split and Replace: {"String": ...} or {"Regex": ...}; from a text to its [from, to, isMatch] parts.
import { TokenizerError } from "./budget.js";
import { matchString, withGaps } from "./normalized.js";
import { Regex } from "./regex.js";

/** A function that finds the matches of a regular expression; `path` names it in the error for a bad one. */
export function regexPattern(source, path) {
  let regex;
  try {
    regex = new Regex(source);
  } catch (error) {
    if (error instanceof TokenizerError) throw new TokenizerError(`${path} ${error.message}`);
    throw error;
  }
  return (text) => withGaps(regex.find(text), text.length);
}

/** The function of the pattern in the field `name`. */
export function readPattern(fields, name) {
  const pattern = fields.object(name);
  if (!pattern.has("String")) return regexPattern(pattern.string("Regex"), pattern.at("Regex"));
  const wanted = pattern.string("String");
  return wanted ? (text) => matchString(text, wanted) : regexPattern("", pattern.at("String"));
}
