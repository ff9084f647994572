"""Concurrency of loading: the next tensors are read while earlier ones are hashed and uploaded."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

from ..bridge.runtime import retrieve

Result = TypeVar("Result")
Job: TypeAlias = tuple[int, Callable[[], Awaitable[Result]]]

AT_ONCE = 16  # concurrent jobs


async def in_order(jobs: Iterable[Job[Result]], room: int, free: Callable[[Result], None]) -> AsyncGenerator[Result]:
    """Run jobs concurrently and yield their results in order.

    A job is (bytes needed, function). It starts as soon as its bytes fit into ``room``; one that needs more runs alone.
    A job that fails cancels the later ones; so does closing the iterator (``contextlib.aclosing``). Results that are
    not yielded then are passed to ``free``.
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
                result = await under_way[0][1]
                taken -= under_way.popleft()[0]
                yield result
            under_way.append((size, _begun(run(work))))
            taken += size
        while under_way:
            result = await under_way[0][1]
            under_way.popleft()
            yield result
    finally:
        tasks = [task for _, task in under_way]
        for task in tasks:
            task.cancel()
        for each in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(each, BaseException):
                free(each)


@asynccontextmanager
async def beside(work: Awaitable[Result]) -> AsyncIterator[asyncio.Future[Result]]:
    """Run ``work`` concurrently with the block, and await it at the block's end. A block that fails cancels it."""
    future = asyncio.ensure_future(work)
    future.add_done_callback(retrieve)
    try:
        yield future
        await asyncio.wait([future])
        future.result()
    finally:
        future.cancel()
        await asyncio.gather(future, return_exceptions=True)


def _begun(work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
    """Start ``work`` as a task. From Python 3.12 on, it runs to its first wait at once.

    Most tensors of a model are so small that they never wait, and a turn of a browser's event loop takes 0.2 ms.
    """
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.ensure_future(work)
