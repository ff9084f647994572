// The runtime of pages: starts Python in a worker, or in a SharedWorker for several tabs, and passes messages between
// them and the package (pyodide_pkg/tensorcommons/remote). tensorcommons.mjs is the other half. A page's first message is
// {start: options, lock}, where `lock` is one that a tab of a SharedWorker holds; the answers are {boot: event} while Python starts, then {ready} or {failed: {name, message}}.
// Everything else is {text, buffers}, in both directions.
import { installPackage, startPython } from "./python.js";

const HERE = new URL("./", import.meta.url);
const url = (path) => new URL(path, HERE).href;
const BOOT_FILE = /^(vendor\/pyodide\/(.*\.(mjs|wasm|zip|json)|numpy-.*\.whl)|start\/.*|bridge\/.*\.js|wheel\/tensorcommons-.*\.whl)$/;

const pages = new Map(); // name → port
let starting = null;
let pyodide = null;
let runtime = null; // Python's Runtime
let lastBoot = null; // the last event, for a tab that comes while Python starts
let count = 0;
// The name of a lock that the worker holds as long as it lives; a page that gets it has lost its runtime.
const alive = "onconnect" in self && new Promise((resolve) => {
  const name = `tensorcommons ${crypto.randomUUID()}`;
  navigator.locks.request(name, () => {
    resolve(name);
    return new Promise(() => {});
  });
});

const bootError = (message) => Object.assign(new Error(message), { name: "BootError" }); // a message that is plain already

async function fetchOk(path, options) {
  let response;
  try {
    response = await fetch(url(path), options);
  } catch (error) {
    throw bootError(`${path} could not be fetched (${error.message}). Check the connection and retry.`);
  }
  if (!response.ok) {
    throw bootError(`${path} could not be fetched: the server answered ${response.status} ${response.statusText}`.trim() + ". If the site is yours, upload all of it again.");
  }
  return response;
}

async function readManifest() {
  const response = await fetchOk("manifest.json", { cache: "no-cache" });
  try {
    return await response.json();
  } catch {
    throw bootError("manifest.json is not JSON: the site was built or uploaded incompletely.");
  }
}

// Pyodide fetches its own files without reporting progress. Streaming each into the HTTP cache first makes the progress
// true; Pyodide's own fetches are then answered from the cache, and its compiled WebAssembly stays cacheable.
async function download(files, progress) {
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  let loaded = 0;
  await Promise.all(files.map(async ([path]) => {
    progress({ step: "download", loaded, total, file: path });
    const reader = (await fetchOk(path)).body.getReader();
    const read = () => reader.read().catch((error) => {
      throw bootError(`The download of ${path} ended too early (${error.message}). Check the connection and retry.`);
    });
    for (let chunk = await read(); !chunk.done; chunk = await read()) {
      loaded += chunk.value.byteLength;
      progress({ step: "download", loaded: Math.min(loaded, total), total, file: path });
    }
  }));
}

// The package's JavaScript, by URL: from the wheel it would have to be evaluated, which the policy forbids.
async function importBridge(manifest) {
  const modules = { packages: { jinja2: manifest.chat.map(url) } };
  for (const path of Object.keys(manifest.files)) {
    const name = /^bridge\/(\w+)\.js$/.exec(path)?.[1];
    if (name) modules[name] = await import(url(path));
  }
  return modules;
}

async function boot(options) {
  const begun = performance.now();
  const progress = throttled((event) => {
    lastBoot = event;
    for (const port of pages.values()) port.postMessage({ boot: event });
  });
  const manifest = await readManifest();
  await download(Object.entries(manifest.files).filter(([path]) => BOOT_FILE.test(path)), progress);
  const downloaded = performance.now();
  progress({ step: "python" });
  const started = await startPython(manifest, url, fetchOk);
  pyodide = started.pyodide;
  progress({ step: "install" });
  pyodide.registerJsModule("tensorcommons_js", await importBridge(manifest));
  await installPackage(started, manifest, fetchOk);
  progress({ step: "devices" });
  const post = (name, text, buffers) => {
    const arrays = buffers.toJs({ create_pyproxies: false });
    pages.get(name)?.postMessage({ text, buffers: arrays }, arrays.map((array) => array.buffer));
  };
  runtime = await pyodide.pyimport("tensorcommons.remote.runtime").open_runtime(post, JSON.stringify(options));
  const timings = { download: downloaded - begun, total: performance.now() - begun };
  return { version: manifest.version, models: manifest.models, timings, without: started.without };
}

// A message for every chunk would keep both threads busy: at most one in 50 ms, and each change of step.
function throttled(callback) {
  let last = 0;
  let step = "";
  return (event) => {
    const now = performance.now();
    if (event.step === step && now - last < 50 && event.loaded !== event.total) return;
    last = now;
    step = event.step;
    callback(event);
  };
}

// An error as a message. Python's has a traceback, which ends with its class and message.
function described(error) {
  if (error.name !== "PythonError") return { name: error.name, message: error.message };
  const last = error.message.trim().split("\n").at(-1);
  return { name: error.type ?? "PythonError", message: last.replace(/^[\w.]+: /, "") };
}

// Report the end of Python, which leaves all calls without an answer: an error of WebAssembly, as by exhausted memory.
function lookAtPython() {
  try {
    pyodide?.runPython("0");
  } catch (error) {
    for (const port of pages.values()) port.postMessage({ lost: error.message });
    pages.clear();
    if ("onconnect" in self) setTimeout(() => self.close());
  }
}
addEventListener("error", lookAtPython);
addEventListener("unhandledrejection", lookAtPython);

async function serve(port, isShared) {
  const name = `page-${++count}`;
  pages.set(name, port);
  const leave = () => {
    if (pages.delete(name)) runtime?.leave(name);
  };
  port.onmessage = async ({ data }) => {
    if (data.text) {
      try {
        const buffers = pyodide.toPy(data.buffers);
        runtime.receive(name, data.text, buffers);
        buffers.destroy();
      } catch {
        lookAtPython();
      }
    } else if (data.leave) {
      leave();
    } else if (data.start) {
      if (data.lock) navigator.locks.request(data.lock, leave); // a tab that ends, even by a crash, releases its lock
      const isFirst = !starting;
      if (!isFirst && lastBoot) port.postMessage({ boot: lastBoot });
      starting ??= boot(data.start);
      try {
        port.postMessage({ ready: { ...await starting, isFirst } });
      } catch (error) {
        port.postMessage({ failed: described(error) });
        if (isShared) setTimeout(() => self.close()); // modules that failed to load fail again in this worker
      }
    }
  };
  if (isShared) port.postMessage({ hello: { alive: await alive, gpu: Boolean(navigator.gpu) } });
}

if ("onconnect" in self) {
  self.onconnect = ({ ports: [port] }) => serve(port, true);
} else {
  serve(self, false);
}
