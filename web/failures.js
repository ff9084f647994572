// Failures in plain words: what happened, what to do, and the details. Text nodes only; nothing is parsed as HTML.
import { h } from "./dom.js";

const MB = 2 ** 20;
const LONGEST = 300; // characters of details, which may quote an untrusted file

// Class of the error → what happened, what to do.
const KINDS = {
  UnreachableError: ["The server does not respond.", "Check the connection, then try again."],
  FileMissingError: ["A file is missing on the server.", "If the site is yours, upload all of it again."],
  ShortReadError: ["A download ended too early.", "Try again."],
  DownloadError: ["A file could not be downloaded.", "Check the connection, then try again."],
  InvalidWeights: ["A file is damaged, or its contents do not match its name.", "Try again. If the site is yours, upload the file again."],
  UnsupportedModel: ["This kind of model is not supported.", "The documents under “Use it” list those that are."],
  DeviceMemoryError: ["The device is out of memory.", "Unload a model, or choose another device under Models."],
  MemoryBudgetError: ["The memory limit is too low for this.", "Raise the limit under Memory, or unload a model."],
  MemoryError: ["This tab is out of memory.", "Unload models or close other tabs, then reload the page."],
  DeviceUnavailable: ["The device is not available.", "Choose another device under Models."],
  DeviceError: ["The device refused a computation.", "Choose another device under Models."],
  DeviceLost: ["The device stopped working.", "Try again, or choose another device under Models."],
  Stopped: ["Python in this tab has stopped.", "Reload the page."],
};
const UNKNOWN = ["An unexpected error occurred.", "Reload the page; if it fails again, report it with these details."];

// Errors of the JavaScript engine and of Pyodide, recognised by their messages.
const BY_WORDS = [
  [/fatally failed|no longer be used|maximum call stack|function signature mismatch|memory access out of bounds/i, "Stopped"],
  [/out of memory|could not allocate|allocation failed|unable to allocate/i, "MemoryError"],
];

/** Explain an Error whose `kinds` are its class and base classes in Python, if it is the runtime's: {what, advice, details}. */
export function explain(failure) {
  const text = lastLine(String(failure?.message ?? failure));
  const kind = BY_WORDS.find(([words]) => words.test(text))?.[1] ?? (failure?.kinds ?? [String(failure?.name)]).find((name) => Object.hasOwn(KINDS, name));
  const [what, advice] = kind === "MemoryBudgetError" ? overLimit(text) : KINDS[kind] ?? UNKNOWN;
  return { what, advice, details: text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text };
}

/** Show the failure in `place`, an alert; `before` states what did not happen ("Not moved."). */
export function showFailure(place, failure, before = "") {
  const { what, advice, details } = explain(failure);
  place.replaceChildren(
    h("p", {}, h("b", {}, [before, what].filter(Boolean).join(" ")), advice ? ` ${advice}` : ""),
    h("p", { class: "details" }, `Details: ${details}`));
}

// The limit, and the one that would do, where the message has them.
function overLimit(text) {
  const [what, advice] = KINDS.MemoryBudgetError;
  const limit = /limit of ([\d,]+) bytes/.exec(text)?.[1].replaceAll(",", "") / MB;
  const more = Number(/raise max_memory_mb by (\d+)/.exec(text)?.[1]);
  if (!(limit > 0 && more > 0)) return [what, advice];
  return [`The memory limit of ${Math.round(limit)} MB is too low for this.`, `Set it to ${Math.ceil(limit + more)} MB or more under Memory, or unload a model.`];
}

// Reduce a traceback to its last line.
function lastLine(text) {
  const lines = text.trim().split("\n").filter((line) => line.trim());
  return text.includes("Traceback (most recent call last)") ? lines.at(-1) : lines.join(" ");
}
