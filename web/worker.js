// The runtime of pages: starts Python in a worker, or in a SharedWorker for several tabs, and passes messages between
// them and the package (pyodide_pkg/tensorcommons/remote). tensorcommons.mjs is the other half. A page's first message is
// {start: options, lock}, where `lock` is one that a tab of a SharedWorker holds; the answers are {boot: event} while Python starts, then {ready} or {failed: {name, message}}.
// Everything else is {text, buffers}, in both directions.
import { startPython } from "./python.js";

const HERE = new URL("./", import.meta.url);
const url = (path) => new URL(path, HERE).href;
const BOOT_FILE = /^(vendor\/pyodide\/.*\.(wasm|zip|json)|start\/(memory|packages)-.*)$/; // beside modules, which the browser fetches itself

const pages = new Map(); // name → port
let starting = null;
let pyodide = null;
let runtime = null; // Python's Runtime
let lastBoot = null; // the last event, for a tab that comes while Python starts
let pageCount = 0;
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

// Python does not report that WebAssembly is forbidden: it would never start.
function requireWebAssembly() {
  try {
    new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]))); // no code
  } catch (error) {
    throw bootError(`This page cannot run WebAssembly. If the site is yours, add 'wasm-unsafe-eval' to the script-src of its Content-Security-Policy; else enable WebAssembly in the browser. (${error.message})`);
  }
}

async function readManifest() {
  const response = await fetchOk("manifest.json", { cache: "no-cache" });
  try {
    return await response.json();
  } catch {
    throw bootError("manifest.json is not JSON: the site was built or uploaded incompletely.");
  }
}

// Report what is fetched at the start, in bytes: `count(path, bytes)` after a part of a file. `done` resolves with the last.
function counter(manifest, progress) {
  const files = Object.entries(manifest.files).filter(([path]) => BOOT_FILE.test(path));
  const total = files.reduce((sum, [, size]) => sum + size, 0);
  const loaded = new Map(files.map(([path]) => [path, 0]));
  const { promise: done, resolve } = Promise.withResolvers();
  progress({ step: "download", loaded: 0, total, file: "manifest.json" });
  const count = (path, bytes) => {
    if (!loaded.has(path)) return; // for a start without the snapshot
    loaded.set(path, Math.min(bytes, manifest.files[path])); // a server may send another encoding
    const sum = [...loaded.values()].reduce((before, each) => before + each);
    progress({ step: "download", loaded: sum, total, file: path });
    if (sum === total) resolve();
  };
  return { count, done };
}

// WebAssembly is passed on as it came, because the browser keeps what it compiled from such a response. Everything else comes
// by XMLHttpRequest, which has the progress and the bytes without a step of JavaScript for each part.
function reader(count) {
  return async (path) => {
    if (path.endsWith(".wasm")) {
      const response = await fetchOk(path);
      count(path, Infinity);
      return response;
    }
    const request = new XMLHttpRequest();
    request.open("GET", url(path));
    request.responseType = "arraybuffer";
    request.onprogress = ({ loaded }) => count(path, loaded);
    await new Promise((settle) => {
      request.onloadend = settle;
      request.send();
    });
    if (!request.response || request.status >= 300) {
      await (await fetchOk(path)).arrayBuffer().catch(() => {}); // which has the reason, if it lasts
      throw bootError(`The download of ${path} ended too early. Check the connection and retry.`);
    }
    count(path, Infinity);
    return new Response(request.response);
  };
}

// The package's JavaScript, by URL: from the wheel it would have to be evaluated, which the policy forbids.
async function importBridge(manifest) {
  const names = Object.keys(manifest.files).flatMap((path) => /^bridge\/(\w+)\.js$/.exec(path)?.[1] ?? []);
  const modules = await Promise.all(names.map((name) => import(url(`bridge/${name}.js`))));
  return Object.fromEntries(names.map((name, i) => [name, modules[i]]));
}

async function boot(options) {
  const begun = performance.now();
  requireWebAssembly();
  const progress = throttled((event) => {
    lastBoot = event;
    for (const port of pages.values()) port.postMessage({ boot: event });
  });
  const manifest = await readManifest();
  const { count, done } = counter(manifest, progress);
  let downloaded = begun;
  done.then(() => {
    downloaded = performance.now();
    progress({ step: "python" });
  });
  const [started, bridge] = await Promise.all([startPython(manifest, url, reader(count)), importBridge(manifest)]).catch(async (error) => {
    for (const path of Object.keys(manifest.files)) if (/\.m?js$/.test(path)) await fetchOk(path); // a failed import has no reason
    throw error;
  });
  pyodide = started.pyodide;
  pyodide.registerJsModule("tensorcommons_js", bridge);
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
  const name = `page-${++pageCount}`;
  pages.set(name, port);
  const leave = () => {
    if (pages.delete(name)) runtime?.leave(name);
  };
  port.onmessage = async ({ data }) => {
    if (data.text) {
      if (!pages.has(name)) return; // it was sent before the tab ended, and arrives after its end
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
