"""Loading of the package's JavaScript: registered by the page, or imported from the files inside the package.

A strict Content-Security-Policy forbids imports from strings, so the worker of such a page imports the files by URL
and registers them before Python starts::

    pyodide.registerJsModule("tensorcommons_js", {tokenizer: <namespace>, webgpu: <namespace>})

Everywhere else (a notebook, plain Pyodide, Node) the packaged file is imported as a ``data:`` URL, which Chromium,
Firefox and Node all accept. Such a module has no address of its own, so its imports are embedded as such URLs.
"""

from __future__ import annotations

import base64
import re
import sys
from importlib import resources
from typing import Any

from ..errors import DeviceUnavailable

_loaded: dict[str, Any] = {}


async def load_js_module(name: str, packaged_path: str) -> Any:
    """Return the namespace of JavaScript module ``name`` (a proxy that lives as long as the program).

    ``packaged_path`` is the file's path in ``bridge/``, used if the page registered no module under that name.
    Raises ``DeviceUnavailable`` if there is no JavaScript, or if it may not be loaded.
    """
    if name not in _loaded:
        _loaded[name] = _registered(name) or await _packaged(name, packaged_path)
    return _loaded[name]


def _registered(name: str) -> Any:
    try:
        import tensorcommons_js
    except ImportError:
        return None
    return getattr(tensorcommons_js, name, None)


async def _packaged(name: str, path: str) -> Any:
    if sys.platform != "emscripten":
        raise DeviceUnavailable("javascript", f"{name} needs JavaScript, which CPython does not have: use Pyodide")
    from pyodide.code import run_js
    from pyodide.ffi import JsException

    try:
        url = _data_url(path, {})
    except FileNotFoundError:
        raise DeviceUnavailable("javascript", f"the package was built without bridge/{path}") from None
    try:
        load = run_js("(url) => import(url)")
        return await load(url)
    except JsException as error:
        raise DeviceUnavailable(
            "javascript",
            f"bridge/{path} was refused ({error.message}). Under a Content-Security-Policy, register it by URL: "
            f'pyodide.registerJsModule("tensorcommons_js", {{{name}: ...}})',
        ) from None


def _data_url(path: str, known: dict[str, str]) -> str:
    """Return a file of ``bridge/`` as a data URL, in which its imports are data URLs, too."""
    if path not in known:
        source = resources.files("tensorcommons.bridge").joinpath(path).read_text("utf-8")
        folder = path.rpartition("/")[0]

        def address(found: re.Match[str]) -> str:
            return f'"{_data_url(f"{folder}/{found[1]}".lstrip("/"), known)}"'

        source = re.sub(r'(?<= from )"\./([\w/.]+)"', address, source)
        known[path] = "data:text/javascript;base64," + base64.b64encode(source.encode()).decode()
    return known[path]
