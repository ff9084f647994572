"""WebAssembly modules that compute on Pyodide's own memory: an address there is an address of a NumPy array."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import DeviceUnavailable
from .runtime import IN_BROWSER


def instantiate(modules: Sequence[bytes]) -> tuple[int, Any]:
    """Return the number of the first of ``modules`` that the engine compiles, and a proxy of its exports.

    Raises ``DeviceUnavailable`` where no module can be compiled, or where Pyodide's memory is out of reach.
    """
    if not IN_BROWSER:
        raise DeviceUnavailable("wasm", "CPython has no WebAssembly")
    import js
    from pyodide.ffi import JsException, to_js

    memory = _memory()
    refused = "the package was built without kernels"
    for number, module in enumerate(modules):
        try:
            compiled = js.WebAssembly.Module.new(to_js(module))
            imports = to_js({"env": {"memory": memory}}, dict_converter=js.Object.fromEntries)
            return number, js.WebAssembly.Instance.new(compiled, imports).exports
        except JsException as error:
            refused = str(error.message)
    raise DeviceUnavailable("wasm", refused)


# Pyodide 0.27 and 0.28 keep their memory in a closure, and import it to each library that they load: an empty one shows
# it. Its bytes are WebAssembly's header and a section "dylink.0" that claims no memory and no table.
LOAD_EMPTY_LIBRARY = """
(pyodide) => {
  const library = [0, 97, 115, 109, 1, 0, 0, 0, 0, 15, 8, ...new TextEncoder().encode("dylink.0"), 1, 4, 0, 0, 0, 0];
  const { Instance } = WebAssembly;
  let memory;
  WebAssembly.Instance = function (module, imports) {
    memory = imports.env.memory;
    return new Instance(module, imports);
  };
  try {
    pyodide.loadWebAssemblyModule(new Uint8Array(library), { loadAsync: false, nodelete: true }, "tensorcommons", {});
  } finally {
    WebAssembly.Instance = Instance;
  }
  return memory;
}
"""


def _memory() -> Any:
    """Return Pyodide's WebAssembly.Memory: a private attribute, under another name in some versions."""
    import js
    import pyodide_js
    from pyodide.code import run_js
    from pyodide.ffi import JsException

    private = getattr(pyodide_js, "_module", None)
    found = [getattr(private, name, None) for name in ("memory", "wasmMemory")]
    if not any(found) and hasattr(private, "loadWebAssemblyModule"):
        with suppress(JsException):  # a Content-Security-Policy that forbids code from text, or another loader
            found.append(run_js(LOAD_EMPTY_LIBRARY)(private))
    for memory in found:
        if memory is not None and getattr(memory, "constructor", None) == js.WebAssembly.Memory:
            return memory
    raise DeviceUnavailable("wasm", f"Pyodide {pyodide_js.version} gives no access to its memory")
