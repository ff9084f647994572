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
  const environment = new jinja.Environment();
  const names = { true: true, false: false, none: null, True: true, False: false, None: null };
  for (const [name, value] of Object.entries({ ...names, range, raise_exception, strftime_now, ...JSON.parse(contextJson) })) {
    environment.set(name, value);
  }
  return new jinja.Interpreter(environment).run(new jinja.Template(template).parsed).value;
}

function raise_exception(message) {
  throw new Error(message);
}

/** Today as a template asks for it, in English: `%d %b %Y`. */
function strftime_now(format) {
  const now = new Date();
  const part = (options) => new Intl.DateTimeFormat("en-US", options).format(now);
  const two = (number) => String(number).padStart(2, "0");
  const parts = {
    "%Y": () => String(now.getFullYear()),
    "%m": () => two(now.getMonth() + 1),
    "%d": () => two(now.getDate()),
    "%H": () => two(now.getHours()),
    "%M": () => two(now.getMinutes()),
    "%S": () => two(now.getSeconds()),
    "%b": () => part({ month: "short" }),
    "%B": () => part({ month: "long" }),
    "%a": () => part({ weekday: "short" }),
    "%A": () => part({ weekday: "long" }),
  };
  return format.replace(/%[A-Za-z]/g, (key) => parts[key]?.() ?? key);
}
