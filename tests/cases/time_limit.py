"""Time limit of a case, equal under CPython and in a browser, and a description of pending awaits."""

from __future__ import annotations

import asyncio
import gc
import traceback
import types
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar

SECONDS = 180  # per case; a fault ends in a report instead of a hanging run
LONG_SECONDS = 900  # per case that only `make long` runs
CLEANUP_SECONDS = 5  # for a cancelled case to release its resources

T = TypeVar("T")


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``, which is cancelled after that time.

    Raises:
        TimeoutError: the work took longer; the message has the stacks of all pending tasks.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return await task
        others = asyncio.all_tasks() - {asyncio.current_task(), task}
        stacks = pending_stacks([task, *others])
    finally:
        task.cancel()
    await asyncio.wait({task}, timeout=CLEANUP_SECONDS)
    raise TimeoutError(f"not done after {seconds:g} s. Pending tasks, outermost call first:\n{stacks}")


def pending_stacks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Describe the stack of each task down to what its innermost coroutine awaits."""
    return "\n".join(f"{task.get_name()}:\n{_stack(task.get_coro())}" for task in tasks)


def _stack(coroutine: Any) -> str:
    frames = [frame for each in _chain(coroutine) if (frame := _of(each, "frame")) is not None]
    return "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())


def _chain(awaitable: Any) -> Iterator[Any]:
    """Yield a coroutine, the object that it awaits, and so on."""
    while awaitable is not None:
        yield awaitable
        following = _of(awaitable, "await", "yieldfrom")
        if following is None and _of(awaitable, "frame") is None:
            # `anext()` and `__await__()` do not name what they drive.
            driven = (types.AsyncGeneratorType, types.CoroutineType)
            following = next((each for each in gc.get_referents(awaitable) if isinstance(each, driven)), None)
        awaitable = following


def _of(awaitable: Any, *names: str) -> Any:
    """Get an attribute whose prefix differs between coroutines, generators and async generators."""
    found = (getattr(awaitable, f"{prefix}_{name}", None) for prefix in ("cr", "gi", "ag") for name in names)
    return next((each for each in found if each is not None), None)
