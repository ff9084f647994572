"""Work begun ahead of its turn: the next tensors arrive while the last are hashed and kept."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")
Job: TypeAlias = tuple[int, Callable[[], Awaitable[Result]]]

AT_ONCE = 16  # jobs under way


async def in_order(jobs: Iterable[Job[Result]], room: int) -> AsyncGenerator[Result]:
    """The jobs' results in their order. A job that needs so many bytes begins as soon as they fit into ``room``.

    One that needs more runs alone. A job that fails ends those behind it before they do anything more; so does closing
    the iterator (``contextlib.aclosing``).
    """
    under_way: deque[tuple[int, asyncio.Task[Result]]] = deque()
    taken = 0

    async def run(work: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await work()
        except BaseException:
            for _, task in under_way:
                if task is not asyncio.current_task():
                    task.cancel()
            raise

    try:
        for size, work in jobs:
            while under_way and (taken + size > room or len(under_way) == AT_ONCE):
                yield await under_way[0][1]
                taken -= under_way.popleft()[0]
            under_way.append((size, _begun(run(work))))
            taken += size
        while under_way:
            yield await under_way[0][1]
            under_way.popleft()
    finally:
        tasks = [task for _, task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def beside(work: Awaitable[Result]) -> AsyncIterator[asyncio.Future[Result]]:
    """Run ``work`` beside the block, and wait for it at the block's end. A block that fails ends the work."""
    future = asyncio.ensure_future(work)
    future.add_done_callback(retrieve)
    try:
        yield future
        await asyncio.wait([future])
        future.result()
    finally:
        future.cancel()
        await asyncio.gather(future, return_exceptions=True)


def retrieve(future: asyncio.Future[Any]) -> None:
    """Mark a failure as retrieved. Pyodide's loop reports the failure of a task that nobody awaits at that moment."""
    if not future.cancelled():
        future.exception()


def _begun(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """``work`` as a task. From Python 3.12 on its first steps are done at once: most of a model's tensors are so small
    that these are all, and a turn of the loop for each costs a browser 0.2 ms."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(work)
