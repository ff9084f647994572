// The worker: boots Python, installs the wheel and hands each call to demo.py. All logic is there; here is only what
// the browser wants in JavaScript. The page calls these functions through Comlink.
import * as Comlink from "./vendor/comlink.min.mjs";
import { installPackage, startPython } from "./python.js";

const HERE = new URL("./", import.meta.url);
const url = (path) => new URL(path, HERE).href;
const BOOT_FILE = /^(vendor\/pyodide\/(.*\.(mjs|wasm|zip|json)|numpy-.*\.whl)|start\/.*|bridge\/.*\.js|wheel\/tensorcommons-.*\.whl)$/;

let demo = null;

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

// Pyodide fetches its own files and tells nobody how far it is. Streaming each into the HTTP cache first makes the
// progress true; Pyodide's own fetches are then answered from the cache, and its compiled WebAssembly stays cacheable.
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
  const modules = {};
  for (const path of Object.keys(manifest.files)) {
    const name = /^bridge\/(\w+)\.js$/.exec(path)?.[1];
    if (name) modules[name] = await import(url(path));
  }
  return modules;
}

// demo.py answers in JSON: {"value"} or {"error": {"type", "message"}} or {"cancelled": true}.
function unwrap(reply) {
  const { value, error, cancelled } = JSON.parse(reply);
  if (error) throw Object.assign(new Error(error.message), { name: error.type });
  return cancelled ? { cancelled: true } : value;
}

const sendJson = (callback) => (text) => { callback(JSON.parse(text)); };

Comlink.expose({
  async boot(onProgress, onReport) {
    const begun = performance.now();
    const progress = throttled(onProgress);
    const manifest = await readManifest();
    await download(Object.entries(manifest.files).filter(([path]) => BOOT_FILE.test(path)), progress);
    const downloaded = performance.now();
    progress({ step: "python" });
    const started = await startPython(manifest, url, fetchOk);
    const { pyodide, without } = started;
    progress({ step: "install" });
    pyodide.registerJsModule("tensorcommons_js", await importBridge(manifest));
    await installPackage(started, manifest, fetchOk);
    progress({ step: "devices" });
    pyodide.runPython(await (await fetchOk("demo.py")).text(), { filename: "demo.py" });
    demo = pyodide.globals.get("Demo")(url("models/"), sendJson(onReport));
    unwrap(await demo.start());
    const timings = { download: downloaded - begun, total: performance.now() - begun };
    return { version: manifest.version, models: manifest.models, timings, without };
  },
  load: async (id, onProgress) => unwrap(await demo.load(id, sendJson(onProgress))),
  move: async (id, kind, onProgress) => unwrap(await demo.move(id, kind, sendJson(onProgress))),
  pin: async (kind) => unwrap(await demo.pin(kind)),
  limits: async () => unwrap(await demo.limits()),
  unload: async (id) => unwrap(await demo.unload(id)),
  run: async (panel, request, onPart) => unwrap(await demo.run(panel, JSON.stringify(request), sendJson(onPart))),
  cancel: (key) => { demo.cancel(key); },
});

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
