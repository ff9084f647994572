// Storage of files beside Python's thread; opfs.py is the other half. files.js runs in a worker of its own, together with
// the hashing of bytes: Chromium hashes within the call, and a worker has handles that a page lacks. Arrays are transferred
// to it and back. Where no worker can be started (in a SharedWorker of Chromium, or under a policy that forbids it),
// the same functions run here.
import { digestsOf } from "./digest.js";
import * as files from "./files.js";

const NAME = "tensorcommons files"; // of the worker, which imports this file
const START = 15_000; // milliseconds in which it must start
const RUNS = "runs"; // its first message
const works = { ...files, digestsOf: (store, sizes, bytes) => digestsOf(bytes, sizes) };

/** Open the folder, or create it, and start the worker. Throws if the browser has no storage. */
export async function openStore(folder) {
  try {
    return await opened(folder);
  } catch ({ name, message }) {
    throw Object.assign(new Error(message), { name }); // see outcome()
  }
}

async function opened(folder) {
  const here = await files.openStore(folder);
  const store = { here, worker: await startWorker(folder), waiting: new Map(), count: 0 };
  if (!store.worker && !here.writes) throw new DOMException("it can write such files only in a worker", "NotSupportedError");
  if (store.worker) {
    store.worker.onmessage = ({ data }) => {
      store.waiting.get(data.id)(data);
      store.waiting.delete(data.id);
    };
  }
  return store;
}

/**
 * Call a function of files.js, or digestsOf, with the store, `given` and `bytes`. Return {result, bytes, failure}, where
 * `failure` is {name, message}. With `lent` the array of `bytes` is transferred to the worker, and comes back as `bytes`
 * of the answer; otherwise the bytes are copied.
 */
export async function run(store, work, given, bytes, lent) {
  if (!store.worker) return { bytes, ...await outcome(store.here, work, given, bytes) };
  const own = bytes && (lent ? bytes : files.lend(bytes, (view) => view.slice()));
  return new Promise((resolve) => {
    const id = ++store.count;
    store.waiting.set(id, resolve);
    store.worker.postMessage({ id, work, given, bytes: own, lent }, own ? [own.buffer] : []);
  });
}

// QuotaExceededError is a class of its own in Chromium 153, which Pyodide 314 does not recognise as an error: an await
// that is rejected with it never ends in Python. So a failure is a part of the answer.
async function outcome(store, work, given, bytes) {
  try {
    return { result: await works[work](store, ...given, ...bytes ? [bytes] : []), failure: null };
  } catch ({ name, message }) {
    return { result: null, failure: { name, message } };
  }
}

// Start the worker; null if it cannot be started, does not start within START, or has no handles for files. It says that
// it runs before it is sent anything: under load, Firefox ESR 153 did not start it, or lost what was sent before. A module
// from text, as from the wheel, has no address that a worker could be started from.
function startWorker(folder) {
  const script = import.meta.url.startsWith("data:")
    ? URL.createObjectURL(new Blob([`import ${JSON.stringify(import.meta.url)};`], { type: "text/javascript" }))
    : import.meta.url;
  return new Promise((resolve) => {
    const worker = new Worker(script, { type: "module", name: NAME });
    const settle = (hasHandles) => {
      clearTimeout(timer);
      worker.onmessage = worker.onerror = null;
      if (!hasHandles) worker.terminate();
      resolve(hasHandles ? worker : null);
    };
    const timer = setTimeout(settle, START, false);
    worker.onerror = (event) => {
      event.preventDefault();
      settle(false);
    };
    worker.onmessage = ({ data }) => {
      if (data === RUNS) worker.postMessage(folder);
      else settle(data);
    };
  }).catch(() => null).finally(() => URL.revokeObjectURL(script));
}

async function serve(folder) {
  const store = await files.openStore(folder).catch(() => null);
  onmessage = async ({ data: { id, work, given, bytes, lent } }) => {
    const answer = await outcome(store, work, given, bytes);
    postMessage({ id, ...answer, bytes: lent ? bytes : null }, lent ? [bytes.buffer] : []);
  };
  postMessage(Boolean(store?.sync));
}

if (globalThis.name === NAME) {
  onmessage = ({ data: folder }) => serve(folder);
  postMessage(RUNS);
}
