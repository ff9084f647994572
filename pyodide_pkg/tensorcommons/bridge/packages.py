"""Packages of Pyodide's distribution that are loaded when they are first needed."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress

from .runtime import IN_BROWSER


async def provide(package: str) -> bool:
    """Load ``package`` if it is not there; gives whether it is. Under CPython it must be installed."""
    if importlib.util.find_spec(package) is None and IN_BROWSER:
        import pyodide_js
        from pyodide.ffi import JsException

        with suppress(JsException):  # not there, or no network
            await pyodide_js.loadPackage(package, messageCallback=_ignore, errorCallback=_ignore)
        importlib.invalidate_caches()
    return importlib.util.find_spec(package) is not None


def _ignore(*_: object) -> None:
    """No line in the console: who needs the package says so."""
