// Chat templates, written by whoever made a model: untrusted text. @huggingface/jinja interprets them over plain data,
// without a way to JavaScript; here their appetite is bounded, too. Imports nothing: the module comes in as an argument.

const LARGEST_RANGE = 100_000; // numbers in all ranges of one rendering together, as Jinja's sandbox allows in one
const LONGEST = 200_000; // characters of a template; the longest ones in use have about 20,000

/** The text that `template` makes of `contextJson`, an object of JSON. Throws where it is none, or asks for too much. */
export function render(jinja, template, contextJson) {
  if (template.length > LONGEST) throw new Error(`it has ${template.length} characters`);
  let left = LARGEST_RANGE;
  const range = (start, stop, step) => {
    const [from, to, by] = typeof stop === "number" ? [start, stop, typeof step === "number" ? step : 1] : [0, start, 1];
    const count = Math.max(Math.ceil((to - from) / by), 0);
    left -= count;
    if (!(left >= 0)) throw new Error("its ranges are too long");
    return Array.from({ length: count }, (_, i) => from + i * by);
  };
  return new jinja.Template(template).render({ ...JSON.parse(contextJson), range });
}
