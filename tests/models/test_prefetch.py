"""Work begun ahead of its turn: in order, within its room, and over when one fails."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tensorcommons.models.prefetch import in_order


class Work:
    """Jobs of given sizes that end when they are told to."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.gates = [asyncio.Event() for _ in sizes]
        self.lock = asyncio.Lock()
        self.locked: list[int] = []

    def jobs(self, faulty: int | None = None):
        return [(size, lambda i=i: self._run(i, i == faulty)) for i, size in enumerate(self.sizes)]

    async def _run(self, i: int, faulty: bool) -> int:
        self.begun.append(i)
        try:
            async with self.lock:  # as the one connection of a file
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


async def test_results_keep_their_order_and_begin_as_far_as_there_is_room():
    work = Work(3, 3, 3, 20, 1)
    results = []

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(), 7)) as arriving:
            async for each in arriving:
                results.append(each)

    task = asyncio.ensure_future(collect())
    await settle()
    assert work.begun == [0, 1]
    work.gates[1].set()
    await settle()
    assert (work.begun, results) == ([0, 1], []), "the second waits for its turn, and takes its room until then"
    work.gates[0].set()
    await settle()
    assert (work.begun, results) == ([0, 1, 2], [0, 1])
    work.gates[2].set()
    await settle()
    assert work.begun == [0, 1, 2, 3], "what is larger than the room runs, but alone"
    work.gates[3].set()
    work.gates[4].set()
    await task
    assert results == [0, 1, 2, 3, 4]


async def test_what_fails_ends_what_is_behind_before_it_goes_on():
    work = Work(1, 1, 1, 1)
    work.gates[0].set()
    results = []

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(faulty=1), 10)) as arriving:
            async for each in arriving:
                results.append(each)

    with pytest.raises(OSError, match="broken"):
        await collect()
    assert results == [0]
    assert work.locked == [0, 1], "nothing behind asks the broken connection again"
    assert sorted(work.ended) == sorted(work.begun)


async def test_who_stops_listening_leaves_nothing_running():
    work = Work(1, 1, 1)
    work.gates[0].set()
    before = len(asyncio.all_tasks())
    async with aclosing(in_order(work.jobs(), 10)) as arriving:
        async for _ in arriving:
            break
    assert len(asyncio.all_tasks()) == before
    assert sorted(work.ended) == [0, 1, 2]


async def test_a_cancel_ends_all_jobs():
    work = Work(1, 1)

    async def collect() -> None:
        async with aclosing(in_order(work.jobs(), 10)) as arriving:
            async for _ in arriving:
                pass

    task = asyncio.ensure_future(collect())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(work.ended) == [0, 1]
    assert len(asyncio.all_tasks()) == 1
