"""The Python runtime: whether it is in a browser, waiting without ``await``, and turns of the event loop."""

from __future__ import annotations

import asyncio
import platform
import sys
import time
from collections.abc import Callable, Coroutine, Generator
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
Slices: TypeAlias = Generator[None, None, T]  # work that can pause at each ``yield``: see :func:`in_slices`
IN_BROWSER = sys.platform == "emscripten"


def can_suspend() -> bool:
    """Return whether running Python can be suspended until a JavaScript promise is done (JSPI, or a blocking loop)."""
    if IN_BROWSER:
        from pyodide.ffi import can_run_sync

        return bool(can_run_sync())
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def suspend(work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` to its end and return its result, without ``await``. Requires :func:`can_suspend`."""
    if IN_BROWSER:
        from pyodide.ffi import run_sync

        return run_sync(work)
    return asyncio.run(work)


class WouldWaitError(Exception):
    """A coroutine that was run with :func:`run_now` had to wait."""


def run_now(work: Coroutine[Any, Any, T], *, turns: bool = False) -> T:
    """Run a coroutine that never has to wait, as those of the CPU device do not, and return its result.

    With ``turns`` it may give the event loop a turn (``asyncio.sleep(0)``), as a NumPy program does between two steps:
    it continues at once.

    Raises WouldWaitError if it waits; it is closed then, as if it had been cancelled there.
    """
    global _waits
    waits, _waits = _waits, False
    try:
        while work.send(None) is None and turns:
            pass
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        _waits = waits
    work.close()
    raise WouldWaitError


SLICE = 0.05  # seconds of work after which the event loop gets a turn
IDLE = 0.005  # seconds between two pieces of work that separate them
_turned = 0.0  # time of the last turn that was given
_began = _worked = 0.0  # times of the first and the last step since then
_waits = True  # False within run_now()


async def yield_to_loop() -> None:
    """Give the event loop a turn, so that messages and a cancel arrive, if the last one was SLICE or longer ago.

    Call it in each pass of a loop that may take long. In a browser ``asyncio.sleep(0)`` is not enough: Pyodide's turns
    are messages of a port, and as long as one follows another, Chromium runs neither timers nor other messages.
    """
    if time.monotonic() - _turned > SLICE:
        await _turn()


async def _turn() -> None:
    global _turned, _began
    if _waits:
        await (_timer() if IN_BROWSER else asyncio.sleep(0))
    _turned = _began = time.monotonic()


async def in_slices(steps: Slices[T]) -> T:
    """Run a generator to its end and return its result; after SLICE of work the event loop gets a turn.

    Work that takes less, as most steps over a small graph do, does not wait at all.
    """
    global _began, _worked
    now = time.monotonic()
    if now - _worked > IDLE:
        _began = now
    try:
        while True:
            next(steps)
            _worked = time.monotonic()
            if _worked - _began > SLICE:
                await _turn()
    except StopIteration as done:
        _worked = time.monotonic()
        result: T = done.value
        return result
    finally:
        steps.close()


def retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a failure as retrieved: Pyodide's loop reports the failure of a task that is not awaited at that moment."""
    if not future.cancelled():
        future.exception()


def at_once(steps: Slices[T]) -> T:
    """Run a generator to its end and return its result."""
    try:
        while True:
            next(steps)
    except StopIteration as done:
        result: T = done.value
        return result


class sliced(Generic[P, T]):  # noqa: N801 - a decorator
    """A function that is written as a generator: a call runs it at once, ``slices`` is the generator itself."""

    def __init__(self, steps: Callable[P, Slices[T]]) -> None:
        self.slices = steps
        update_wrapper(self, steps)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function to its end."""
        return at_once(self.slices(*args, **kwargs))


def _timer() -> Any:
    """Return a promise that a timer without delay resolves."""
    import js
    from pyodide.ffi import create_once_callable

    return js.Promise.new(create_once_callable(lambda resolve, reject: js.setTimeout(resolve, 0)))


def host() -> str:
    """Name the program that Python runs in: Pyodide's version and the name that its host states, or the system."""
    if not IN_BROWSER:
        return f"{platform.python_implementation()} on {platform.system()} {platform.machine()}"
    import js
    import pyodide

    agent = getattr(getattr(js, "navigator", None), "userAgent", None)  # "Node.js/24", "Deno/2.9.6" outside browsers
    return f"Pyodide {pyodide.__version__} in {agent or 'a runtime without a name'}"
