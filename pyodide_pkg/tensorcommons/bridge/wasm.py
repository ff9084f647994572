"""WebAssembly modules that compute on Pyodide's own memory: an address there is an address of a NumPy array."""

from __future__ import annotations

from collections.abc import Sequence
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


def _memory() -> Any:
    """Return Pyodide's WebAssembly.Memory: a private attribute, under another name in some versions."""
    import js
    import pyodide_js

    for name in ("memory", "wasmMemory"):
        memory = getattr(getattr(pyodide_js, "_module", None), name, None)
        if memory is not None and getattr(memory, "constructor", None) == js.WebAssembly.Memory:
            return memory
    raise DeviceUnavailable("wasm", f"Pyodide {pyodide_js.version} gives no access to its memory")
