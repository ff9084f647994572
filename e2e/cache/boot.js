// Start Python with the built wheel, in a worker or in a page, and return a function that runs Python.
import { startPython } from "/python.js";

const RUNNER = `
import asyncio, json, time
import numpy as np
import tensorcommons as tc
from pyodide.code import eval_code_async

async def run(source):
    return json.dumps(await asyncio.wait_for(eval_code_async(source, globals()), 120))  # a hang fails with a traceback

run`;

/** Return a function from Python source to {value: its last expression as JSON} or {error: a traceback}. */
export async function boot() {
  const url = (path) => new URL(path, `${location.origin}/`).href;
  const fetchFile = (path) => fetch(url(path));
  const manifest = await (await fetchFile("manifest.json")).json();
  const started = await startPython(manifest, url, fetchFile);
  const { pyodide, without } = started;
  if (without.length) throw new Error(`Python started without ${without}`);
  const run = pyodide.runPython(RUNNER);
  return async (source) => {
    try {
      return { value: await run(source) };
    } catch (error) {
      return { error: error.message };
    }
  };
}
