// tensorcommons for pages that are not written in Python: connect() starts the runtime in a worker, and gives pipelines with
// the calls and results of transformers.js. docs/javascript.md describes it, tensorcommons.d.mts has the types.

const MARK = "__tensorcommons__"; // see pyodide_pkg/tensorcommons/remote/messages.py
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: globalThis.Float16Array ?? Uint16Array,
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};
const IMAGE_TASKS = new Set(["image-feature-extraction", "image-classification", "zero-shot-image-classification", "saliency"]);

const MOST_STARTS = 3; // of the worker of all tabs, by one connect()
const KNOCK_EVERY = 2000; // ms

/** An array of numbers: `data` is a typed array, `dims` its shape. */
export class Tensor {
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims, size: data.length });
  }

  /** The numbers as nested arrays. */
  tolist() {
    const nested = (offset, dims, size) => {
      if (!dims.length) return this.data[offset];
      const step = size / dims[0];
      return Array.from({ length: dims[0] }, (_, i) => nested(offset + i * step, dims.slice(1), step));
    };
    return nested(0, this.dims, this.size);
  }
}

/** An error of the runtime: `name` is its class in Python, `kinds` that class and its base classes. */
export class TensorCommonsError extends Error {
  constructor({ kinds, message, ...more }) {
    super(message);
    Object.assign(this, more);
    this.name = kinds[0];
    this.kinds = kinds;
  }
}

// The address that relative ones refer to: the page's, or that of the worker that uses this module.
const here = () => globalThis.document?.baseURI ?? location.href;
const failure = (name, message) => new TensorCommonsError({ kinds: [name, "TensorCommonsError"], message });

/**
 * Start the runtime of this page, or with `shared` the one of all pages of this origin, and wait until it is ready.
 * @param {object} [options] see tensorcommons.d.mts
 */
export async function connect({ shared = false, progress_callback, signal, base, ...options } = {}) {
  signal?.throwIfAborted();
  const folder = base === undefined ? new URL("./", import.meta.url) : new URL(`${base}`.replace(/\/?$/, "/"), here());
  if (folder.origin !== location.origin) {
    throw failure("BootError", `${folder} is of another origin, from which browsers start no worker: put the folder of tensorcommons.mjs on this page's server`);
  }
  for (let starts = 1; ; starts += 1) {
    const { connection, lock, reason } = await opened(shared, folder, options);
    try {
      const { isFirst, ...facts } = await connection.start({ start: options, lock }, progress_callback, signal);
      const runtime = new Runtime(connection, { ...facts, shared: Boolean(lock), reason });
      if (!isFirst && options.max_memory_mb != null) await runtime.setMemoryLimit(options.max_memory_mb);
      return runtime;
    } catch (error) {
      connection.close(error);
      if (!lock || error.name !== "RuntimeLost" || starts === MOST_STARTS) throw error;
      // The worker of all tabs ended with the process of another tab: this one starts it again.
    }
  }
}

/** Open a worker: {connection, lock, reason}, where the reason is why it is not a shared one. */
async function opened(shared, base, options) {
  let reason = "shared was not requested";
  if (shared) {
    const gpu = await hardware(base, options);
    reason = await whyNotShared(options, gpu);
    if (!reason) {
      try {
        return { ...await openShared(base, options, gpu), reason };
      } catch (error) {
        reason = error.message;
      }
    }
  }
  const worker = new Worker(new URL("worker.js", base), { type: "module", name: "tensorcommons" });
  const connection = new Connection(worker, () => worker.terminate());
  worker.addEventListener("error", (event) => {
    if (connection.isReady) return; // an error of one call, which the worker reports
    event.preventDefault();
    connection.fail(failure("BootError", `The worker could not start${event.message ? `: ${event.message}` : ". Check the connection and retry."}`));
  });
  return { connection, reason };
}

/** Connect to the SharedWorker of this origin. Throws an Error with the reason where it cannot be used. */
async function openShared(base, options, gpu) {
  const { build } = await fetch(new URL("manifest.json", base), { cache: "no-cache" }).then((response) => response.json());
  const release = new AbortController();
  const lock = await held(release.signal);
  // Its name has what only a start can set, and the build: the worker of an earlier one may still serve older tabs.
  const name = `tensorcommons ${build} ${JSON.stringify([options.devices, options.webnn])}`;
  const found = await answered(() => new SharedWorker(new URL("worker.js", base), { type: "module", name })).catch((error) => {
    release.abort();
    throw error;
  });
  const { port, hello: { alive, gpu: hasGpu } } = found;
  const connection = new Connection(port, () => {
    leave(port);
    release.abort();
  });
  try {
    if (gpu && !hasGpu) throw new Error("this browser has WebGPU in pages, but not in a SharedWorker");
    navigator.locks.request(alive, { mode: "shared", signal: release.signal }, () => {
      connection.fail(failure("RuntimeLost", "the worker of all tabs has ended: connect() again, and make the pipelines again"));
    }).catch(() => {}); // the page closed its connection first
    return { connection, lock };
  } catch (error) {
    connection.close(error);
    throw error;
  }
}

/**
 * Connect by `open`, and again while there is no answer: a worker that ends at this moment never gives one. The result is
 * {port, hello} of the first answer.
 */
function answered(open) {
  return new Promise((resolve, reject) => {
    let isDone = false;
    const settle = (end, value) => {
      isDone = true;
      clearInterval(timer);
      end(value);
    };
    const knock = () => {
      const worker = open();
      worker.port.onmessage = ({ data }) => (isDone ? leave(worker.port) : settle(resolve, { port: worker.port, hello: data.hello }));
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        if (!isDone) settle(reject, new Error(`the SharedWorker could not start${event.message ? `: ${event.message}` : ""}`));
      });
    };
    const timer = setInterval(knock, KNOCK_EVERY);
    knock();
  });
}

function leave(port) {
  port.postMessage({ leave: true });
  port.close();
}

/** Hold a lock of a new name until `signal` aborts. */
function held(signal) {
  const name = `tensorcommons ${crypto.randomUUID()}`;
  return new Promise((resolve) => {
    navigator.locks.request(name, () => {
      resolve(name);
      return new Promise((release) => { signal.addEventListener("abort", release, { once: true }); });
    });
  });
}

/** Whether models would run on a hardware GPU. */
async function hardware(base, { devices }) {
  if (devices && !devices.includes("webgpu")) return false;
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return false;
  return !(await import(new URL("bridge/webgpu/adapter.js", base))).isSoftware(adapter);
}

async function whyNotShared({ devices }, gpu) {
  if (!globalThis.SharedWorker) return "this browser has no SharedWorker";
  if (!navigator.locks) return "the page is not served from a secure context (https or localhost), so that tabs cannot find out when others close";
  if (devices ? devices[0] !== "webnn" : gpu || !navigator.ml) return "";
  if (!devices && !await navigator.ml.createContext({ deviceType: "cpu" }).then((context) => { context.destroy(); return true; }, () => false)) return "";
  return "WebNN is here and no hardware GPU, and a SharedWorker cannot use WebNN: name other devices to share them";
}

/** The messages of one page: calls by number, with their parts and results. */
class Connection {
  #port;
  #end;
  #calls = new Map(); // number → {resolve, reject, onPart}
  #count = 0;
  #failed = null;
  #begin = null;
  #closed;
  isReady = false;
  onReport = () => {};
  /** Resolves with the error that ended the connection. */
  closed = new Promise((resolve) => { this.#closed = resolve; });

  constructor(port, end) {
    this.#port = port;
    this.#end = end;
    port.onmessage = ({ data }) => this.#receive(data);
  }

  start(message, onProgress, signal) {
    return new Promise((resolve, reject) => {
      this.#begin = { resolve, reject, onProgress };
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      this.#port.postMessage(message);
    });
  }

  /** Send a request; the promise rejects with the signal's reason as soon as this aborts. */
  call(request, { onPart, signal } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#failed) throw this.#failed;
      const number = ++this.#count;
      const { text, buffers, owned } = pack({ ...request, call: number });
      const abort = () => {
        this.#calls.delete(number);
        this.#port.postMessage({ text: JSON.stringify({ cancel: number }), buffers: [] });
        reject(signal.reason);
      };
      const done = (settle) => (value) => {
        signal?.removeEventListener("abort", abort);
        settle(value);
      };
      this.#calls.set(number, { resolve: done(resolve), reject: done(reject), onPart });
      signal?.addEventListener("abort", abort);
      this.#port.postMessage({ text, buffers }, owned);
    });
  }

  /** Reject all calls, now and later. */
  fail(error) {
    this.#failed ??= error;
    this.#closed(this.#failed);
    this.#begin?.reject(this.#failed);
    for (const { reject } of this.#calls.values()) reject(this.#failed);
    this.#calls.clear();
  }

  close(error) {
    this.fail(error);
    this.#end();
  }

  #receive({ text, buffers, boot, ready, failed, lost }) {
    if (boot) this.#begin?.onProgress?.(boot);
    else if (ready) {
      this.isReady = true;
      this.#begin.resolve(ready);
    } else if (lost) this.fail(failure("RuntimeLost", `Python has stopped: ${lost}`));
    else if (failed) this.#begin.reject(failure(failed.name, failed.message));
    else {
      const { call, part, value, error, report } = unpack(text, buffers);
      if (report) this.onReport(report);
      const waiting = this.#calls.get(call);
      if (!waiting) return; // it was cancelled
      if (part !== undefined) waiting.onPart?.(part);
      else {
        this.#calls.delete(call);
        if (error) waiting.reject(error.kinds[0] === "AbortError" ? new DOMException(error.message, "AbortError") : new TensorCommonsError(error));
        else waiting.resolve(value);
      }
    }
  }
}

/** What connect() gives. */
class Runtime {
  #connection;
  #listeners = new Set();
  #pipelines = 0;

  constructor(connection, facts) {
    this.#connection = connection;
    Object.assign(this, facts, { closed: connection.closed });
    connection.onReport = (report) => { for (const listener of this.#listeners) listener(report); };
  }

  /** A pipeline for `task` on a model: a function of the inputs and options. */
  async pipeline(task, model, { progress_callback, signal, revision, ...options } = {}) {
    const number = ++this.#pipelines;
    const source = typeof model === "string" || model instanceof URL ? resolved(String(model), revision) : await readable(model);
    const facts = await this.#connection.call({ do: "pipeline", number, task, source, options }, { onPart: progress_callback, signal });
    const read = async (given) => IMAGE_TASKS.has(task) ? [await images(given[0]), ...given.slice(1)] : given;
    const request = async (name, all) => {
      const given = all.slice(0, all.findLastIndex((each) => each !== undefined) + 1);
      const { signal: stop, ...last } = plain(given.at(-1)) ? given.at(-1) : {};
      const rest = plain(given.at(-1)) && given.length > 1 ? [...given.slice(0, -1), last] : given;
      return [{ do: name, pipeline: number, inputs: await read(rest) }, given.length > 1 ? stop : undefined];
    };
    const call = async (...given) => {
      const [message, stop] = await request("run", given);
      return this.#connection.call(message, { signal: stop });
    };
    const connection = this.#connection;
    Object.defineProperty(call, "name", { value: task });
    return Object.assign(call, facts, {
      number,
      stream: (...given) => pieces(async (onPart, stop) => {
        const [message, outer] = await request("stream", given);
        return connection.call(message, { onPart, signal: outer ? AbortSignal.any([outer, stop]) : stop });
      }),
      to: async (device, { progress_callback: onPart, signal: stop } = {}) =>
        Object.assign(call, await connection.call({ do: "move", pipeline: number, device }, { onPart, signal: stop })),
      dispose: () => connection.call({ do: "dispose", pipeline: number }),
    });
  }

  /** Run several pipelines as one graph: [[pipeline, inputs, options], …] gives the result of each. */
  async runPipelines(calls, { signal } = {}) {
    const prepared = await Promise.all(calls.map(async ([pipe, inputs, ...more]) =>
      [pipe.number, IMAGE_TASKS.has(pipe.task) ? await images(inputs) : inputs, ...more]));
    return this.#connection.call({ do: "run together", calls: prepared }, { signal });
  }

  /** Call `listener` with the memory report, now and after each change; returns a function that ends this. */
  onReport(listener) {
    this.#listeners.add(listener);
    this.#connection.call({ do: "reports", on: true }).then((report) => this.#listeners.has(listener) && listener(report), () => {});
    return () => {
      this.#listeners.delete(listener);
      if (!this.#listeners.size) this.#connection.call({ do: "reports", on: false }).catch(() => {});
    };
  }

  /** The memory report of now. */
  report() {
    return this.#connection.call({ do: "report" });
  }

  /** Change the limit of everything on the devices; rejects with a MemoryBudgetError where that is not possible. */
  setMemoryLimit(max_memory_mb) {
    return this.#connection.call({ do: "limit", max_memory_mb });
  }

  /** Counts of runs, generations and caches. */
  stats() {
    return this.#connection.call({ do: "stats" });
  }

  /** A text of versions, devices, limits and bytes for a bug report. */
  diagnostics() {
    return this.#connection.call({ do: "diagnostics" });
  }

  /** Import Python into the runtime: the address of a file, of several (the first is called), or {path: text}. */
  async importPython(source, { signal } = {}) {
    const files = await texts(source, signal);
    const [first] = Object.keys(files);
    const name = first.replace(/(\/__init__)?\.py$/, "");
    await this.#connection.call({ do: "import", name, files }, { signal });
    return {
      call: async (function_, ...given) => {
        const options = isOptions(given.at(-1)) ? given.pop() : {};
        return this.#connection.call({ do: "invoke", name, function: function_, given: await readable(given) }, options);
      },
    };
  }

  /** Release what this page used. The runtime ends with its last page. */
  close() {
    this.#connection.close(failure("RuntimeClosed", "this page closed its connection with close(): connect() again"));
  }
}

const plain = (value) => Object.prototype.toString.call(value) === "[object Object]" && [Object.prototype, null].includes(Object.getPrototypeOf(value));
const isOptions = (value) => plain(value) && Object.keys(value).length > 0 && Object.keys(value).every((key) => ["onPart", "signal"].includes(key));

// An address relative to this page; other names are repositories.
const resolved = (source, revision) => /^(\.{0,2}\/|https?:)/.test(source) ? new URL(source, here()).href
  : source + (revision ? `@${revision}` : "");

/** Yield the parts of a call; leaving the loop cancels it. */
async function* pieces(begin) {
  const waiting = [];
  const stop = new AbortController();
  let wake = () => {};
  let failed = null;
  let isDone = false;
  const end = begin((part) => { waiting.push(part); wake(); }, stop.signal)
    .then(() => { isDone = true; }, (error) => { failed = error; })
    .finally(() => wake());
  try {
    for (;;) {
      while (waiting.length) yield waiting.shift();
      if (failed) throw failed;
      if (isDone) return;
      await new Promise((resolve) => { wake = resolve; if (waiting.length || failed || isDone) resolve(); });
    }
  } finally {
    stop.abort();
    await end;
  }
}

// --- what a message can hold ---

/** Replace files by their bytes, in objects and arrays too. The files of a model stay: Python reads them in parts. */
async function readable(value) {
  if (plain(value) && value["config.json"] instanceof Blob) return value;
  if (value instanceof Blob) return value.arrayBuffer();
  if (value?.width && !plain(value)) return images(value);
  if (Array.isArray(value)) return Promise.all(value.map(readable));
  if (!plain(value)) return value;
  return Object.fromEntries(await Promise.all(Object.entries(value).map(async ([key, each]) => [key, await readable(each)])));
}

async function texts(source, signal) {
  if (plain(source)) return source;
  const addresses = [source].flat().map((each) => new URL(each, here()));
  const folder = new URL(addresses[0].pathname.endsWith("/__init__.py") ? "../" : "./", addresses[0]).href;
  return Object.fromEntries(await Promise.all(addresses.map(async (address) => {
    if (!address.href.startsWith(folder)) throw failure("TypeError", `${address.href} must be in ${folder}, the folder of the first file`);
    const response = await fetch(address, { signal });
    if (!response.ok) throw failure("DownloadError", `${address.href}: the server answered ${response.status}`);
    return [address.href.slice(folder.length), await response.text()];
  })));
}

/** Images as arrays of pixels or bytes of files: URLs, Blobs, canvases, ImageData, ImageBitmaps, RawImages, arrays. */
async function images(given) {
  if (Array.isArray(given)) return Promise.all(given.map(images));
  if (typeof given === "string" || given instanceof URL) {
    const response = await fetch(new URL(given, here()));
    if (!response.ok) throw failure("DownloadError", `${given}: the server answered ${response.status}`);
    return response.arrayBuffer();
  }
  if (given instanceof Blob) return given.arrayBuffer();
  if (ArrayBuffer.isView(given) || given instanceof ArrayBuffer || given?.dims) return given;
  const { width, height, data } = given?.data ? given : pixels(given);
  return { type: "uint8", data: new Uint8Array(data), dims: [height, width, data.length / (width * height)] };
}

function pixels(source) {
  const width = source?.naturalWidth || source?.videoWidth || source?.width;
  const height = source?.naturalHeight || source?.videoHeight || source?.height;
  if (!(width > 0 && height > 0)) throw failure("TypeError", "an image must be an address, a Blob, a canvas, ImageData, an ImageBitmap, or an object with data and dims");
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

function pack(value) {
  const buffers = [];
  const owned = []; // copies, which can be transferred
  const text = JSON.stringify(value, (key, each) => {
    if (typeof each === "number" && !Number.isFinite(each)) return { [MARK]: String(each) };
    if (typeof each === "bigint") return Number(each);
    if (each === null || typeof each !== "object") {
      if (typeof each === "function" || typeof each === "symbol") throw failure("TypeError", `${key} is a ${typeof each}, which cannot be sent to Python`);
      return each;
    }
    if (each instanceof ArrayBuffer) return { [MARK]: buffers.push(each) - 1, dtype: null };
    if (each instanceof Blob) return { [MARK]: buffers.push(each) - 1, dtype: "file" };
    const array = ArrayBuffer.isView(each) ? each : ArrayBuffer.isView(each.data) && each.dims ? each.data : null;
    if (array) {
      const dtype = array === each || !each.type ? typeOf(array) : each.type;
      owned.push(array.buffer.slice(array.byteOffset, array.byteOffset + array.byteLength));
      buffers.push(owned.at(-1));
      return { [MARK]: buffers.length - 1, dtype, dims: array === each ? [array.length] : [...each.dims] };
    }
    if (each instanceof URL) return each.href;
    if (Object.hasOwn(each, MARK)) throw failure("TypeError", `a key must not be ${MARK}`);
    if (!Array.isArray(each) && !plain(each)) throw failure("TypeError", `${key || "a value"} is a ${each.constructor?.name}, which cannot be sent to Python`);
    return each;
  });
  return { text, buffers, owned };
}

const typeOf = (array) => array instanceof Uint8ClampedArray ? "uint8"
  : Object.keys(ARRAYS).find((name) => array.constructor.name.toLowerCase() === ARRAYS[name].name.toLowerCase() && name !== "bool") ?? "uint8";

function unpack(text, buffers) {
  return JSON.parse(text, (_, each) => {
    if (each?.[MARK] === undefined) return each;
    const { [MARK]: index, dtype, dims } = each;
    if (typeof index === "string") return Number(index);
    const { buffer } = buffers[index];
    return dtype === null ? buffer : new Tensor(dtype, new ARRAYS[dtype](buffer), dims);
  });
}
