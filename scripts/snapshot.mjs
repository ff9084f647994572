// Makes the files from which a page starts Python (web/python.js), with the site's Pyodide:
//   snapshot.mjs PYODIDE PACKAGES OUT
// PYODIDE is the folder of Pyodide, PACKAGES one that has NumPy, jinja2 and the package as installed. OUT gets
//   memory.bin     Python's memory, in which NumPy and the package are imported
//   packages.bin   the files of PACKAGES, but those for compilers and type checkers
//   compiled.bin   the modules that are imported, compiled, for a start without the snapshot
// Each is a bundle: the length of a header as uint32, the header in JSON, and from its `start` on the bytes; with gzip.
//
// A library such as NumPy's has functions in a table outside of the memory. So it is opened before Python starts, here
// and in the page: this gives it the same places in memory and table, which the header has, and the page compares.
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { ENVIRONMENT, SITE_PACKAGES, openLibraries } from "../web/python.js";

// Whether JavaScript can suspend Python (JSPI) is found out at the start and kept in memory, and browsers can.
if (!WebAssembly.Suspending) throw new Error(`Node ${process.version} cannot suspend WebAssembly (JSPI)`);

const [folder, packages, out] = process.argv.slice(2);
const indexURL = `${resolve(folder)}/`;
const { loadPyodide } = await import(pathToFileURL(`${indexURL}pyodide.mjs`).href);
const { default: create } = await import(pathToFileURL(`${indexURL}pyodide.asm.mjs`).href);

// The libraries that `import numpy` opens, in this order.
const LIBRARIES = ["_core/_multiarray_umath", "linalg/lapack_lite", "linalg/_umath_linalg"]
  .map((name) => `${SITE_PACKAGES}/numpy/${name}.cpython-314-wasm32-emscripten.so`);

// Everything that a page may use soon, of the standard library too.
const PREPARE = `
def prepare():
    import array, datetime, email.utils, gc, hashlib, importlib.resources, ipaddress, numbers, pickle, platform, secrets
    import importlib, pkgutil, sys, unicodedata, urllib.parse
    import tensorcommons

    for module in pkgutil.walk_packages(tensorcommons.__path__, "tensorcommons."):
        if not module.name.startswith("tensorcommons.samples"):
            importlib.import_module(module.name)
    if "numpy.random" in sys.modules:
        raise ImportError("numpy.random is in the snapshot, so that all pages would have the same random numbers")
    sys.path.remove("")  # the start from the snapshot adds it again
    gc.collect()

prepare()
del prepare
`;

// Compile what is imported: a start without the snapshot imports it. The files are of one build, so nothing checks them.
const COMPILE = `
import importlib.util, py_compile, sys

for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.startswith("${SITE_PACKAGES}/") and source.endswith(".py"):
        path = importlib.util.cache_from_source(source)
        py_compile.compile(source, path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`;

let layout = null;
const pyodide = await loadPyodide({
  indexURL,
  env: ENVIRONMENT,
  _makeSnapshot: true,
  createPyodideModule: (settings) => {
    settings.onRuntimeInitialized = () => {
      for (const path of LIBRARIES) install(relative(SITE_PACKAGES, path), settings);
      layout = openLibraries(settings, LIBRARIES);
    };
    return create(settings);
  },
});
const { FS, LDSO, freeTableIndexes, wasmTable } = pyodide._module;
for (const path of readdirSync(packages, { recursive: true })) {
  if (statSync(join(packages, path)).isFile()) install(path, pyodide);
}
pyodide.runPython(PREPARE);
const opened = Object.keys(LDSO.loadedLibsByName).filter((name) => name !== "__main__");
if (`${opened}` !== `${LIBRARIES}`) throw new Error(`the package opens other libraries: ${opened}`);
const added = wasmTable.length - layout.at(-1).after;
if (freeTableIndexes.length !== added) throw new Error(`${added - freeTableIndexes.length} functions were added to the table`);
const snapshot = pyodide.makeMemorySnapshot();
const runs = withContent(snapshot);
write("memory.bin", { layout, memory: pyodide._module.HEAP8.length, table: wasmTable.length, size: snapshot.length, runs },
  runs.map(([start, end]) => snapshot.subarray(start, end)));
pyodide.runPython(COMPILE);
const files = [...walk(SITE_PACKAGES)].sort();
writeFiles("packages.bin", files.filter((path) => !/\.(pyc|pyi|pxd|pyx|h|c|a)$/.test(path)));
writeFiles("compiled.bin", files.filter((path) => path.endsWith(".pyc")));

function install(path, module) {
  const target = `${SITE_PACKAGES}/${path.replaceAll("\\", "/")}`;
  module.FS.mkdirTree(target.slice(0, target.lastIndexOf("/")));
  module.FS.writeFile(target, readFileSync(join(packages, path)));
}

function* walk(path) {
  for (const name of FS.readdir(path)) {
    const inner = `${path}/${name}`;
    if (name === "." || name === "..") continue;
    if (FS.isDir(FS.stat(inner).mode)) yield* walk(inner);
    else yield inner;
  }
}

function writeFiles(name, paths) {
  const contents = paths.map((path) => FS.readFile(path));
  write(name, { files: paths.map((path, i) => [path.slice(SITE_PACKAGES.length + 1), contents[i].length]) }, contents);
}

// The parts of the memory that are not zeros, in steps of a page: [start, end] of each.
function withContent(bytes) {
  const found = [];
  for (let start = 0; start < bytes.length; start += 4096) {
    const end = Math.min(start + 4096, bytes.length);
    if (bytes.subarray(start, end).every((byte) => byte === 0)) continue;
    if (found.at(-1)?.[1] === start) found.at(-1)[1] = end;
    else found.push([start, end]);
  }
  return found;
}

function write(name, header, parts) {
  const text = (start) => JSON.stringify({ start, ...header });
  const start = Math.ceil((4 + text(2 ** 31).length) / 16) * 16; // the snapshot is read as words
  const head = new Uint8Array(start).fill(32);
  new Uint32Array(head.buffer, 0, 1)[0] = start - 4;
  new TextEncoder().encodeInto(text(start), head.subarray(4));
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, name), gzipSync(Buffer.concat([head, ...parts])));
}
