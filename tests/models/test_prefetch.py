"""Prefetching: results in order, within a memory budget, and all jobs ended when one fails."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tensorcommons.models.prefetch import in_order


class Work:
    """Jobs of given sizes that end when the test opens their gates."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.freed: list[int] = []
        self.gates = [asyncio.Event() for _ in sizes]
        self.lock = asyncio.Lock()
        self.locked: list[int] = []

    def jobs(self, faulty: int | None = None):
        return [(size, lambda i=i: self._run(i, i == faulty)) for i, size in enumerate(self.sizes)]

    async def _run(self, i: int, faulty: bool) -> int:
        self.begun.append(i)
        try:
            async with self.lock:  # like the single connection of a file
                self.locked.append(i)
                if faulty:
                    raise OSError("broken")
            await self.gates[i].wait()
        finally:
            self.ended.append(i)
        return i


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_results_are_in_order_and_jobs_begin_while_the_budget_lasts():
    work = Work(3, 3, 3, 20, 1)
    results = []

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(), 7, work.freed.append)) as arriving:
            async for each in arriving:
                results.append(each)

    task = asyncio.ensure_future(collect())
    await settle()
    assert work.begun == [0, 1]
    work.gates[1].set()
    await settle()
    assert (work.begun, results) == ([0, 1], []), "a finished job keeps its bytes until its turn"
    work.gates[0].set()
    await settle()
    assert (work.begun, results) == ([0, 1, 2], [0, 1])
    work.gates[2].set()
    await settle()
    assert work.begun == [0, 1, 2, 3], "a job larger than the budget runs alone"
    work.gates[3].set()
    work.gates[4].set()
    await task
    assert results == [0, 1, 2, 3, 4]


async def test_a_failure_ends_the_later_jobs():
    work = Work(1, 1, 1, 1)
    work.gates[0].set()
    results = []

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(faulty=1), 10, work.freed.append)) as arriving:
            async for each in arriving:
                results.append(each)

    with pytest.raises(OSError, match="broken"):
        await collect()
    assert results == [0]
    assert work.locked == [0, 1], "a later job used the broken connection"
    assert sorted(work.ended) == sorted(work.begun)


async def test_leaving_the_iteration_ends_all_jobs():
    work = Work(1, 1, 1)
    for gate in work.gates[:2]:
        gate.set()
    before = len(asyncio.all_tasks())
    async with aclosing(in_order(work.jobs(), 10, work.freed.append)) as arriving:
        async for _ in arriving:
            await settle()
            break
    assert work.freed == [1], "a result that nobody received was dropped"
    assert len(asyncio.all_tasks()) == before
    assert sorted(work.ended) == [0, 1, 2]


async def test_cancelling_ends_all_jobs():
    work = Work(1, 1)

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(), 10, work.freed.append)) as arriving:
            async for _ in arriving:
                pass

    task = asyncio.ensure_future(collect())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(work.ended) == [0, 1]
    assert len(asyncio.all_tasks()) == 1
