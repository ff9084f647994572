"""Loading of packages of Pyodide's distribution when they are first needed."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress

from .runtime import IN_BROWSER


async def provide(package: str, module: str | None = None) -> bool:
    """Load ``package`` unless its ``module`` (default: of the same name) is installed; return whether it is.

    Under CPython it must be installed.
    """
    name = module or package
    if importlib.util.find_spec(name) is None and IN_BROWSER:
        import pyodide_js
        from pyodide.ffi import JsException

        with suppress(JsException):  # no such package, or no network
            await pyodide_js.loadPackage(package, messageCallback=_ignore, errorCallback=_ignore)
        importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def _ignore(*_: object) -> None:
    """Discard a line for the console: the caller reports a missing package."""
