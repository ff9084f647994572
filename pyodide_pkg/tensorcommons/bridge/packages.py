"""Loading of packages when they are first needed: from Pyodide's distribution, or from addresses that the page names.

A page without that distribution registers the addresses of wheels beside the bridge (loader.py)::

    pyodide.registerJsModule("tensorcommons_js", {packages: {jinja2: [url, url]}, ...})
"""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress
from typing import Any

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
            await pyodide_js.loadPackage(_wheels(package), messageCallback=_ignore, errorCallback=_ignore)
        importlib.invalidate_caches()
    return importlib.util.find_spec(name) is not None


def _wheels(package: str) -> Any:
    """Return the registered addresses of a package's wheels, or its name."""
    try:
        from tensorcommons_js import packages
    except ImportError:
        return package
    return getattr(packages, package, package)


def _ignore(*_: object) -> None:
    """Discard a line for the console: the caller reports a missing package."""
