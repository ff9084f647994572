// The start of Python: from the site's snapshot of its memory, with modules that are compiled already. Where one of the
// two does not work, Python starts without it, and the page shows why.

/** Give `{ pyodide, without }`: Python with NumPy, and the reasons for what it started without. */
export async function startPython(manifest, url, fetchOk) {
  const { loadPyodide } = await import(url("vendor/pyodide/pyodide.mjs"));
  const options = { indexURL: url("vendor/pyodide/") };
  const without = [];
  // The snapshot was made where JavaScript can suspend Python: elsewhere its table of functions differs.
  const fits = "Suspending" in WebAssembly;
  if (!fits) without.push("the snapshot (this browser cannot suspend WebAssembly)");
  const pyodide = fits && await attempt(without, "the snapshot", async () => {
    const _loadSnapshot = await decompressed(await fetchOk(manifest.snapshot));
    const started = await loadPyodide({ ...options, _loadSnapshot });
    discard(_loadSnapshot.buffer); // Pyodide keeps its options, and Python has a copy of the memory
    started.runPython("import random; random.seed()"); // what it was when the snapshot was made
    return started;
  }) || await loadPyodide(options);
  await pyodide.loadPackage("numpy");
  return { pyodide, without };
}

/** Install the package from its wheel, with its compiled modules. */
export async function installPackage({ pyodide, without }, manifest, fetchOk, wheels = [manifest.wheel]) {
  const extractDir = pyodide.runPython("import site; site.getsitepackages()[0]");
  const unpack = async (path, format) =>
    pyodide.unpackArchive(await (await fetchOk(path)).arrayBuffer(), format, { extractDir });
  for (const wheel of wheels) await unpack(wheel, "wheel");
  await attempt(without, "compiled modules", () => unpack(manifest.bytecode, "zip"));
}

async function attempt(without, name, work) {
  try {
    return await work();
  } catch (error) {
    const lines = error.message.trim().split("\n");
    const reason = lines.at(error.name === "PythonError" ? -1 : 0); // a traceback ends with what happened
    without.push(`${name} (${reason})`);
    console.warn(`Python starts without ${name}: ${reason}`);
    return null;
  }
}

async function decompressed(response) {
  const stream = response.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Free a buffer at once: a message that nobody can receive takes its bytes along.
function discard(buffer) {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  port1.postMessage(null, [buffer]);
  port1.close();
}
