// Errors that the device reports later than the call that causes them, kept with the buffers that the failed work fills.

const SCOPES = ["internal", "out-of-memory", "validation"]; // the last is popped first

// An error that the device reports. `kind` is "validation", "out-of-memory" or "internal", `work` names its origin.
export class Fault extends Error {
  constructor(kind, work, message) {
    super(message);
    Object.assign(this, { kind, work });
  }
}

// Return the fault that caused the others (commands with a buffer that could not be created are invalid), or null.
export function cause(faults) {
  return faults.find((fault) => fault?.kind === "out-of-memory") ?? faults.find(Boolean) ?? null;
}

// An error as text for Python.
export function described(error) {
  return JSON.stringify({ kind: error.kind ?? "", work: error.work ?? "", message: String(error.message ?? error) });
}

// Call `work` and give what it gives with `checked`: a promise of null, or of the Fault that its commands were. What
// it throws is thrown. Nothing waits for the answers of the scopes but who awaits `checked`; still, three of them take
// 50 µs in Node: what repeats commands that were found right is not watched.
export function watched(device, name, work, scopes = SCOPES) {
  for (const kind of scopes) device.pushErrorScope(kind);
  let answers;
  try {
    return { result: work(), get checked() { return answers; } };
  } finally {
    const pop = (kind) => device.popErrorScope().then((error) => error && new Fault(kind, name, error.message), () => null);
    answers = Promise.all(scopes.toReversed().map(pop)).then(cause);
  }
}

// Let buffers refer to the work that fills them until it is confirmed: `doubt` is {fault, checked}. It stays if the work, or
// other work that it reads from (`sources`), failed: a read of them, or a computation with them, raises the error.
// `settled(doubt)` is called once that is known.
export function doubted(buffers, checked, sources, settled) {
  const doubt = { fault: null };
  doubt.checked = Promise.all([...sources.map((source) => source.checked), checked]).then((faults) => {
    doubt.fault = cause(faults);
    if (!doubt.fault) for (const buffer of buffers) if (buffer.doubt === doubt) buffer.doubt = null;
    settled?.(doubt);
    return doubt.fault;
  });
  for (const buffer of buffers) buffer.doubt = doubt;
}
