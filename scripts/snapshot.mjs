// Makes the files from which a page starts Python faster, with the site's Pyodide:
//   snapshot.mjs memory PYODIDE PACKAGES OUT                    Python's memory after its start, compressed with gzip
//   snapshot.mjs bytecode PYODIDE PACKAGES OUT SNAPSHOT WHEEL   a zip of the modules that the package imports, compiled
// PYODIDE is the folder of Pyodide, PACKAGES that of NumPy's wheel. `bytecode` starts Python from the snapshot, as a
// page does.
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";

// Whether JavaScript can suspend Python (JSPI) is found out at the start and kept in memory, and browsers can.
if (!WebAssembly.Suspending) throw new Error(`Node ${process.version} cannot suspend WebAssembly (JSPI)`);

const [what, folder, packages, out, ...given] = process.argv.slice(2);
const options = { indexURL: `${resolve(folder)}/`, packageCacheDir: resolve(packages) };
const { loadPyodide } = await import(pathToFileURL(`${options.indexURL}pyodide.mjs`).href);

// What NumPy and the package import of the standard library. Not ctypes: its callbacks are entries of WebAssembly's
// table of functions, which is not a part of the memory.
const PREPARE = `
def prepare():
    import array, datetime, email.utils, gc, hashlib, importlib.resources, ipaddress, numbers, pickle, platform, secrets
    import sys, unicodedata, urllib.parse

    sys.path.remove("")  # the start from the snapshot adds it again
    gc.collect()

prepare()
del prepare
`;

async function memory() {
  const pyodide = await loadPyodide({ ...options, _makeSnapshot: true });
  pyodide.runPython(PREPARE);
  return gzipSync(pyodide.makeMemorySnapshot());
}

// Each module is checked by the hash of its source when it is imported: one of another source is compiled again.
const COMPILE = `
import importlib.util, io, py_compile, sys, zipfile
from pathlib import Path
import tensorcommons

root = Path(tensorcommons.__file__).parent.parent
names = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
buffer = io.BytesIO()
with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    for source in sorted(name for name in names if name.startswith(f"{root}/") and name.endswith(".py")):
        path = Path(importlib.util.cache_from_source(source))
        py_compile.compile(source, path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        archive.writestr(zipfile.ZipInfo(str(path.relative_to(root))), path.read_bytes(), zipfile.ZIP_DEFLATED)
buffer.getvalue()
`;

async function bytecode() {
  const [snapshot, wheel] = given.map((path) => new Uint8Array(readFileSync(path)));
  const pyodide = await loadPyodide({ ...options, _loadSnapshot: new Uint8Array(gunzipSync(snapshot)) });
  await pyodide.loadPackage("numpy", { messageCallback() {} });
  const extractDir = pyodide.runPython("import site; site.getsitepackages()[0]");
  pyodide.unpackArchive(wheel, "wheel", { extractDir });
  return pyodide.runPython(COMPILE).toJs();
}

writeFileSync(out, await { memory, bytecode }[what]());
