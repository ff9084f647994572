// Boots Python with the built wheel, in a worker or in a page; gives a function that runs Python.
import { loadPyodide } from "/vendor/pyodide/pyodide.mjs";

const RUNNER = `
import asyncio, json, time
import numpy as np
import tensorcommons as tc
from pyodide.code import eval_code_async

async def run(source):
    return json.dumps(await asyncio.wait_for(eval_code_async(source, globals()), 120))  # a hang fails with a traceback

run`;

/** The function takes Python source and gives {value: its last expression as JSON} or {error: a traceback}. */
export async function boot() {
  const pyodide = await loadPyodide({ indexURL: "/vendor/pyodide/", packages: ["numpy", "micropip"] });
  const { wheel } = await (await fetch("/manifest.json")).json();
  await pyodide.pyimport("micropip").install(new URL(wheel, location.origin + "/").href);
  const run = pyodide.runPython(RUNNER);
  return async (source) => {
    try {
      return { value: await run(source) };
    } catch (error) {
      return { error: error.message };
    }
  };
}
