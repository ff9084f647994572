"""Opening devices in time: a browser that never answers costs seconds, not the page.

``requestDevice`` and ``createContext`` are promises of the browser's GPU process, which may hang with a driver. They
cannot be cancelled: a device that arrives after it was given up is closed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import DeviceUnavailable

T = TypeVar("T")
OPEN_SECONDS = 10.0  # a cold GPU process of a busy machine takes two

_given_up: set[asyncio.Task[Any]] = set()  # the event loop itself holds tasks weakly


async def in_time(
    kind: str, opening: Coroutine[Any, Any, T], seconds: float = OPEN_SECONDS, undo: Callable[[T], object] | None = None
) -> T:
    """Return the result of ``opening``, which is given up after ``seconds``, or when this is cancelled.

    ``undo`` gets a result that comes too late. Raises DeviceUnavailable for a device that did not answer.
    """
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            _given_up.add(task)
            task.add_done_callback(lambda late: _came_late(late, undo))
    if not task.done():
        raise DeviceUnavailable(kind, f"the browser did not answer within {seconds:g} s")
    failure = task.exception()
    if isinstance(failure, DeviceUnavailable):  # anew: a task keeps its own, with all frames above
        raise DeviceUnavailable(failure.kind, failure.reason)
    return task.result()


def _came_late(task: asyncio.Task[T], undo: Callable[[T], object] | None) -> None:
    _given_up.discard(task)
    if not task.cancelled() and task.exception() is None and undo is not None:
        undo(task.result())
