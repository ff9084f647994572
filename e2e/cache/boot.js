// Boots Python with the built wheel, in a worker or in a page; gives a function that runs Python.
import { loadPyodide } from "/vendor/pyodide/pyodide.mjs";

export async function boot() {
  const pyodide = await loadPyodide({ indexURL: "/vendor/pyodide/", packages: ["numpy", "micropip"] });
  const { wheel } = await (await fetch("/manifest.json")).json();
  await pyodide.pyimport("micropip").install(new URL(wheel, location.origin + "/").href);
  return async (source) => {
    try {
      return { value: await pyodide.runPythonAsync(source) };
    } catch (error) {
      return { error: String(error.message) };
    }
  };
}
