"""What the Python runtime itself can do: whether it runs in a browser, and whether it can wait without ``await``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
IN_BROWSER = sys.platform == "emscripten"


def can_suspend() -> bool:
    """Whether running Python can be suspended until a JavaScript promise is done (JSPI, or a blocking loop)."""
    if IN_BROWSER:
        from pyodide.ffi import can_run_sync

        return bool(can_run_sync())
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def suspend(work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` to its end and give its result, without ``await``. Only where :func:`can_suspend`."""
    if IN_BROWSER:
        from pyodide.ffi import run_sync

        return run_sync(work)
    return asyncio.run(work)


class WouldWaitError(Exception):
    """A coroutine that was run with :func:`run_now` had to wait."""


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait, as those of the NumPy device do not.

    Raises WouldWaitError if it does; it is closed then, as if it had been cancelled there.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise WouldWaitError


def webnn_present() -> bool:
    """Whether the browser offers ``navigator.ml``."""
    if not IN_BROWSER:
        return False
    import js

    return bool(getattr(js.navigator, "ml", None))
