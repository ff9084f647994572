"""Streaming: a program whose weights exceed the memory runs part by part, and weights are evicted in between.

A forward reads every weight once, in the same order each time, so the least recently used one is the next to be needed:
evicting that would move all weights each time. Instead as many as fit stay (:func:`pinned`), and the rest comes through
what is left of the memory: while one part computes, the weights of the next are on their way. Under a limit L a model
of W bytes moves about W - L bytes a forward, and what two parts take.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..backends.device import Device
from ..errors import TensorCommonsError
from ..sharing.lock import touch
from ..sharing.storage import Storage

PARTS = 16  # of the memory for weights: the most that one part has of it, where its nodes allow that
WORTH_WAITING = 0.8  # of the bytes that move where the next part is fetched ahead: fewer are worth fetching them late


@dataclass(frozen=True)
class Residents:
    """The weights that stay between runs, by number, and the bytes that each run moves.

    ``alone`` are the parts that leave no room for the next part's weights, which are fetched after them.
    """

    weights: frozenset[int]
    moved: int
    alone: frozenset[int]


def residents_of(reads: Sequence[Collection[int]], sizes: Mapping[int, int], rooms: Sequence[int]) -> Residents:
    """Choose what stays of the weights that each part ``reads``, so that few bytes move.

    ``rooms`` are the bytes for weights at each part. The weights of a part and of the one after it are there together,
    unless far fewer bytes move without that.
    """
    ahead = [set(part) | set(after) for part, after in zip(reads, [*reads[1:], ()], strict=True)]
    alone = [set(part) for part in reads]
    windows = [
        both if sum(sizes[number] for number in both) <= room else one
        for both, one, room in zip(ahead, alone, rooms, strict=True)
    ]
    arrivals = Counter(number for part in reads for number in part)
    best = _chosen(windows, sizes, rooms, arrivals)
    tight = _chosen(alone, sizes, rooms, arrivals)
    moved, moved_late = (_moved(arrivals, sizes, chosen) for chosen in (best, tight))
    if moved_late < WORTH_WAITING * moved:
        best, moved = tight, moved_late
    late = {
        index
        for index, (window, room) in enumerate(zip(ahead, rooms, strict=True))
        if sum(sizes[number] for number in window | best) > room
    }
    return Residents(frozenset(best), moved, frozenset(late))


def _moved(arrivals: Mapping[int, int], sizes: Mapping[int, int], stay: Collection[int]) -> int:
    return sum(count * sizes[number] for number, count in arrivals.items() if number not in stay)


def _chosen(
    windows: Sequence[set[int]], sizes: Mapping[int, int], rooms: Sequence[int], arrivals: Mapping[int, int]
) -> set[int]:
    """The better of two choices: those first that move most bytes, and those first that move fewest."""
    order = sorted(arrivals, key=lambda number: -arrivals[number] * sizes[number])
    choices = [_greedy(each, windows, sizes, rooms) for each in (order, order[::-1])]
    return min(choices, key=lambda chosen: _moved(arrivals, sizes, chosen))


def _greedy(
    order: Sequence[int], windows: Sequence[set[int]], sizes: Mapping[int, int], rooms: Sequence[int]
) -> set[int]:
    free = [room - sum(sizes[number] for number in window) for window, room in zip(windows, rooms, strict=True)]
    chosen = set()
    for number in order:
        others = [index for index, window in enumerate(windows) if number not in window]
        if all(free[index] >= sizes[number] for index in others):
            chosen.add(number)
            for index in others:
                free[index] -= sizes[number]
    return chosen


class Stream:
    """The weights of one run: ``reads`` are the storages that each part needs, ``stay`` those that are not given up."""

    def __init__(
        self,
        device: Device,
        reads: Sequence[Sequence[Storage]],
        stay: Collection[Storage],
        alone: Collection[int],
    ) -> None:
        self.moved = 0  # bytes brought to the device so far
        self._device = device
        self._reads = reads
        self._stay = stay
        self._alone = alone
        self._ahead: asyncio.Future[None] | None = None
        self._ends: list[asyncio.Future[None]] = []  # when the device has computed each part
        touch(list(stay))

    async def begin(self, index: int, extra: int) -> None:
        """Have the weights of part ``index`` there with room for ``extra`` bytes, and those of the next on their way.

        Raises MemoryBudgetError if they do not fit.
        """
        if self._ahead is not None:
            with suppress(TensorCommonsError):  # it is tried again below
                await self._ahead
            self._ahead = None
        else:
            await self._end_of(index - 1)
        self.moved += await self._device.budget.ensure(self._reads[index], extra)
        if index not in self._alone and index + 1 < len(self._reads):
            self._ahead = asyncio.ensure_future(self._bring(index + 1))

    async def _bring(self, index: int) -> None:
        await self._end_of(index - 2)  # the weights that leave for these have been read by then
        self.moved += await self._device.budget.ensure(self._reads[index])

    async def _end_of(self, index: int) -> None:
        if index >= 0:
            await asyncio.shield(self._ends[index])

    def ran(self, index: int) -> None:
        """Note that part ``index`` is queued: of its weights, those that are not needed soon are evicted first."""
        self._ends.append(asyncio.ensure_future(self._device.backend.wait()))
        soon = self._reads[index + 1] if index + 1 < len(self._reads) else ()
        for storage in self._reads[index]:
            if storage not in self._stay and storage not in soon:
                storage.expire()

    async def close(self) -> None:
        """End what is on its way."""
        waiting: list[asyncio.Future[Any]] = [*self._ends, *([self._ahead] if self._ahead is not None else [])]
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
