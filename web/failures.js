// Failures in plain words: what happened, what to do, and the details. Text nodes only; nothing is parsed as HTML.
import { h } from "./dom.js";

const MB = 2 ** 20;
const LONGEST = 300; // characters of a message, which may quote an untrusted file
const COMMAND = 1200; // of one with a command that converts a model, and bounded quotations

// Class of the error → what happened, what to do.
const KINDS = {
  UnreachableError: ["The server does not respond.", "Check the connection, then try again."],
  FileMissingError: ["A file is missing on the server.", "If the site is yours, upload all of it again."],
  ShortReadError: ["A download ended too early.", "Try again."],
  DownloadError: ["A file could not be downloaded.", "Check the connection, then try again."],
  InvalidWeights: ["A file is damaged, or its contents do not match its name.", "Try again. If the site is yours, upload the file again."],
  OtherFormatError: ["This model is saved in a format that cannot be loaded.", "Another model can be loaded instead, or this one be converted with Python: see the details."],
  UnsupportedModel: ["This kind of model is not supported.", "The documents under “Use it” list those that are."],
  DeviceMemoryError: ["The device is out of memory.", "Unload a model, or choose another device under Models."],
  MemoryBudgetError: ["The memory limit is too low for this.", "Raise the limit under Memory, or unload a model."],
  MemoryError: ["This tab is out of memory.", "Unload models or close other tabs, then reload the page."],
  DeviceUnavailable: ["The device is not available.", "Choose another device under Models."],
  DeviceError: ["The device refused a computation.", "Choose another device under Models."],
  DeviceLost: ["The device stopped working.", "Try again, or choose another device under Models."],
  RuntimeLost: ["Python in this tab has stopped.", "Press “Start it again”, or reload the page."],
};
// The same where the files are a person's own: on another server, or chosen on this device.
const ELSEWHERE = {
  UnreachableError: [KINDS.UnreachableError[0], "Check the connection and the address. A server of another site has to allow other pages to read its files (CORS)."],
  FileMissingError: ["The model was not found, or a file of it is missing.", "Check the name or the address: it must be the folder that contains config.json and model.safetensors."],
  DownloadError: ["The server does not give out this model.", "Check the name or the address. A private model cannot be used here, because this page sends no token."],
  InvalidWeights: ["A file is damaged, or of another kind.", "A model must be saved as config.json and model.safetensors."],
};
const CHOSEN = {
  FileMissingError: ["A file is missing.", "Choose the whole folder of the model: config.json, model.safetensors and the files of its tokenizer."],
  InvalidWeights: ELSEWHERE.InvalidWeights,
};
const WHERE = { elsewhere: ELSEWHERE, chosen: CHOSEN };
const UNKNOWN = ["An unexpected error occurred.", "Reload the page; if it fails again, report it with these details."];

// Errors of the JavaScript engine and of Pyodide, recognised by their messages.
const BY_WORDS = [
  [/fatally failed|no longer be used|maximum call stack|function signature mismatch|memory access out of bounds/i, "RuntimeLost"],
  [/out of memory|could not allocate|allocation failed|unable to allocate/i, "MemoryError"],
];

/**
 * Explain an Error whose `kinds` are its class and base classes in Python, if it is the runtime's: {what, advice, details}.
 * Messages that are plain already, and state what to do, are `what` alone. `where` is that of the files, if not this site.
 */
export function explain(failure, where) {
  const kinds = failure?.kinds ?? [String(failure?.name)];
  const most = kinds.includes("OtherFormatError") ? COMMAND : LONGEST;
  const text = shorter(lastLine(String(failure?.message ?? failure)).replaceAll(/(memory:)?memory-\d+\//g, "").replaceAll(/\bmemory-\d+/g, "the model"), most);
  const known = { ...KINDS, ...WHERE[where] };
  const kind = BY_WORDS.find(([words]) => words.test(text))?.[1] ?? kinds.find((name) => Object.hasOwn(known, name));
  if (kind === "MemoryBudgetError") return overLimit(text);
  if (!kind && !kinds.includes("InternalError") && kinds.some((name) => ["TensorCommonsError", "BootError"].includes(name))) {
    return { what: sentence(text), advice: "", details: "" };
  }
  if (kind === "UnreachableError" && !navigator.onLine) return { what: "This browser is offline.", advice: "Connect to the network, then try again.", details: text };
  const [what, advice] = known[kind] ?? UNKNOWN;
  return { what, advice, details: text };
}

/** Show the failure in `place`, an alert; `before` states what did not happen ("Not moved."). */
export function showFailure(place, failure, before = "", where = "") {
  const { what, advice, details } = explain(failure, where);
  place.replaceChildren(
    h("p", {}, h("b", {}, [before, what].filter(Boolean).join(" ")), advice ? ` ${advice}` : ""),
    ...(details ? [h("p", { class: "details" }, `Details: ${details}`)] : []));
}

/** Words as a sentence: a capital at its beginning, a full stop at its end. */
export const sentence = (words) => {
  const text = words.trim();
  const isWord = /^[a-z]+ /.test(text); // and not the name of a file
  return (isWord ? text.charAt(0).toUpperCase() + text.slice(1) : text) + (/[.!?…]$/.test(text) ? "" : ".");
};

// The limit, and the one that would do, where the message has them.
function overLimit(text) {
  const [what, advice] = KINDS.MemoryBudgetError;
  const limit = /limit of ([\d,]+) bytes/.exec(text)?.[1].replaceAll(",", "") / MB;
  const more = Number(/raise max_memory_mb by (\d+)/.exec(text)?.[1]);
  if (!(limit > 0 && more > 0)) return { what, advice, details: text };
  return {
    what: `The memory limit of ${Math.round(limit)} MB is too low for this.`,
    advice: `Set it to ${Math.ceil(limit + more)} MB or more under Memory, or unload a model.`,
    details: text,
  };
}

const shorter = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

// Reduce a traceback to its last line.
function lastLine(text) {
  const lines = text.trim().split("\n").filter((line) => line.trim());
  return text.includes("Traceback (most recent call last)") ? lines.at(-1) : lines.join(" ");
}
