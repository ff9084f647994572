// The `pattern` of Split and Replace: {"String": ...} or {"Regex": ...}, which splits a text into [from, to, isMatch].
import { TokenizerError } from "./budget.js";
import { matchString, withGaps } from "./normalized.js";
import { Regex } from "./regex.js";

/** Return a function that finds the matches of a regular expression; errors name `path`. */
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

/** Return the function of the pattern in the field `name`. */
export function readPattern(fields, name) {
  const pattern = fields.object(name);
  if (!pattern.has("String")) return regexPattern(pattern.string("Regex"), pattern.at("Regex"));
  const wanted = pattern.string("String");
  return wanted ? (text) => matchString(text, wanted) : regexPattern("", pattern.at("String"));
}
