// The start of Python: from the site's snapshot of its memory, in which NumPy and the package are imported already. Where
// the snapshot does not work, Python starts without it and imports them from files, and the page shows why.
// scripts/snapshot.mjs makes both, with the functions of this file.

const PYODIDE_FILES = ["python_stdlib.zip", "pyodide-lock.json", "pyodide.asm.wasm"]; // that Pyodide fetches itself
// A copy of the environment is in memory before NumPy's libraries, so its size is a part of their addresses.
export const ENVIRONMENT = { LANG: "C.UTF-8", _: "python" };
export const SITE_PACKAGES = "/lib/python3.14/site-packages";

/**
 * Give `{ pyodide, without }`: Python with NumPy and the package, and the reasons for what it started without.
 * `fetchOk` fetches a path of the site or throws; all files are requested at once.
 */
export async function startPython(manifest, url, fetchOk) {
  const without = [];
  // The snapshot was made where JavaScript can suspend Python: elsewhere its table of functions differs.
  const fits = "Suspending" in WebAssembly;
  if (!fits) without.push("the snapshot (this browser cannot suspend WebAssembly)");
  const pyodideFiles = PYODIDE_FILES.map((name) => `vendor/pyodide/${name}`);
  const early = new Map(pyodideFiles.map((path) => [url(path), fetchOk(path)]));
  const packages = unpacked(fetchOk(manifest.packages));
  const memory = fits ? unpacked(fetchOk(manifest.snapshot)).then(expanded) : null;
  memory?.catch(() => {}); // awaited below
  const failed = new Promise((_, reject) => {
    for (const each of [...early.values(), packages]) each.catch(reject);
  });
  const [{ loadPyodide }, { default: create }] = await Promise.all(
    ["pyodide.mjs", "pyodide.asm.mjs"].map((name) => import(url(`vendor/pyodide/${name}`))));
  const options = { indexURL: url("vendor/pyodide/") };
  const pyodide = fits && await attempt(without, "the snapshot", () =>
    Promise.race([failed, handedOver(early, () => restored(loadPyodide, create, options, packages, memory))]))
    || await Promise.race([failed, handedOver(early, async () => {
      const started = await plain(loadPyodide, options, packages);
      await attempt(without, "compiled modules", async () => writeFiles(started.FS, await unpacked(fetchOk(manifest.compiled))));
      return started;
    })]);
  pyodide.loadedPackages.numpy = "default channel";
  return { pyodide, without };
}

async function plain(loadPyodide, options, packages) {
  const pyodide = await loadPyodide(options);
  writeFiles(pyodide.FS, await packages);
  pyodide.runPython("import importlib; importlib.invalidate_caches()");
  return pyodide;
}

/** Restore the snapshot where NumPy's libraries are at the addresses that they had when it was made. */
async function restored(loadPyodide, create, options, packages, memory) {
  const createPyodideModule = async (settings) => {
    let failure = null;
    let header = null;
    let bytes = null;
    let files = null;
    settings.preRun.push(async (module) => {
      module.addRunDependency("snapshot");
      try {
        ({ header, bytes } = await memory);
        files = await packages;
      } catch (error) {
        failure = error;
      }
      module.removeRunDependency("snapshot");
    });
    settings.onRuntimeInitialized = () => {
      if (failure) return;
      try {
        settings.growMemory(header.memory);
        writeFiles(settings.FS, files);
        const layout = openLibraries(settings, header.layout.map(({ path }) => path));
        if (JSON.stringify(layout) !== JSON.stringify(header.layout)) throw new Error("Snapshot layout mismatch");
        while (settings.wasmTable.length < header.table) settings.freeTableIndexes.push(settings.wasmTable.grow(1));
      } catch (error) {
        failure = error;
      }
    };
    const module = await create(settings);
    if (failure) throw failure;
    const restore = module.API.restoreSnapshot;
    module.API.restoreSnapshot = () => {
      const state = restore(bytes);
      discard(bytes.buffer); // Python has a copy of it
      return state;
    };
    return module;
  };
  // Pyodide waits for this option before anything else, so it gets a stand-in for the bytes.
  const pyodide = await loadPyodide({ ...options, env: ENVIRONMENT, _loadSnapshot: new Uint8Array(), createPyodideModule });
  pyodide.runPython("import random; random.seed()"); // what it was when the snapshot was made
  return pyodide;
}

/** Open dynamic libraries in this order; gives where each of them is. */
export function openLibraries(module, paths) {
  return paths.map((path) => {
    const before = module.wasmTable.length;
    const stack = module.stackSave();
    const handle = module._dlopen(module.stringToUTF8OnStack(path), 2); // RTLD_NOW, as Python's import
    module.stackRestore(stack);
    if (!handle) throw new Error(`${path} could not be opened`);
    return { path, handle, memory: module.HEAPU32[(handle + 12) / 4], before, after: module.wasmTable.length };
  });
}

/** Write the files of a bundle into Python's file system. */
function writeFiles(FS, { header: { files }, bytes }) {
  let offset = 0;
  const folders = new Set();
  for (const [name, size] of files) {
    const path = `${SITE_PACKAGES}/${name}`;
    const folder = path.slice(0, path.lastIndexOf("/"));
    if (!folders.has(folder)) FS.mkdirTree(folder);
    folders.add(folder);
    FS.writeFile(path, bytes.subarray(offset, offset + size), { canOwn: true });
    offset += size;
  }
}

/** Run `work` where fetches of Pyodide get the responses that came early, each once. */
async function handedOver(early, work) {
  const { fetch } = globalThis;
  const { instantiateStreaming } = WebAssembly;
  globalThis.fetch = (request, ...more) => {
    const response = early.get(String(request));
    early.delete(String(request));
    return response ?? fetch(request, ...more);
  };
  try {
    return await new Promise((resolve, reject) => {
      // Pyodide reports a failure of this only to the console.
      WebAssembly.instantiateStreaming = (...given) => instantiateStreaming.apply(WebAssembly, given).catch(reject);
      work().then(resolve, reject);
    });
  } finally {
    globalThis.fetch = fetch;
    WebAssembly.instantiateStreaming = instantiateStreaming;
  }
}

async function attempt(without, name, work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "BootError") throw error;
    const lines = error.message.trim().split("\n");
    const reason = lines.at(error.name === "PythonError" ? -1 : 0); // a traceback ends with what happened
    without.push(`${name} (${reason})`);
    console.warn(`Python starts without ${name}: ${reason}`);
    return null;
  }
}

/** Read a bundle: `{ header, bytes }`. It is compressed with gzip, but not in the cache of the service worker. */
async function unpacked(arriving) {
  let packed = new Uint8Array(await (await arriving).arrayBuffer());
  if (packed[0] === 0x1f && packed[1] === 0x8b) {
    const { readable, writable } = new DecompressionStream("gzip");
    const writer = writable.getWriter();
    const written = writer.write(packed).then(() => writer.close());
    packed = new Uint8Array((await Promise.all([new Response(readable).arrayBuffer(), written]))[0]);
  }
  const [length] = new Uint32Array(packed.buffer, 0, 1);
  const header = JSON.parse(new TextDecoder().decode(packed.subarray(4, 4 + length)));
  return { header, bytes: packed.subarray(header.start) };
}

/** Put the zeros between the parts of a snapshot. */
function expanded({ header, bytes }) {
  const whole = new Uint8Array(header.size);
  let offset = 0;
  for (const [start, end] of header.runs) {
    whole.set(bytes.subarray(offset, offset += end - start), start);
  }
  discard(bytes.buffer);
  return { header, bytes: whole };
}

// Free a buffer at once: a message that nobody can receive takes its bytes along.
function discard(buffer) {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  port1.postMessage(null, [buffer]);
  port1.close();
}
