"""The arena: an offset for every value that lives in scratch memory, and for how long.

Two values may share bytes when their lives do not overlap. Largest first, each at the lowest offset that is free for
its whole life: on the models here that stays within a few percent of the lower bound, the largest set alive at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

ALIGNMENT = 256  # the largest minStorageBufferOffsetAlignment that WebGPU allows


def align(nbytes: int) -> int:
    """``nbytes`` rounded up to what a binding may start at. An empty value still gets a place of its own."""
    return max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT


@dataclass
class Life:
    """A value's bytes and the steps between which they must not be touched (both inclusive)."""

    nbytes: int
    first: int
    last: int
    offset: int = 0


class _Placed:
    """Lives that have an offset, found by the steps that they span: a tree over steps, and the lives by first step."""

    def __init__(self, steps: int) -> None:
        self._size = steps
        self._around: list[list[Life]] = [[] for _ in range(2 * steps)]
        self._from: list[list[Life]] = [[] for _ in range(steps)]

    def add(self, life: Life) -> None:
        self._from[life.first].append(life)
        low, high = life.first + self._size, life.last + self._size + 1
        while low < high:
            if low & 1:
                self._around[low].append(life)
                low += 1
            if high & 1:
                high -= 1
                self._around[high].append(life)
            low, high = low >> 1, high >> 1

    def beside(self, life: Life) -> Iterator[Life]:
        """List the values that live together with ``life``: at its first step, or from a later one on."""
        place = life.first + self._size
        while place:
            yield from self._around[place]
            place >>= 1
        for step in range(life.first + 1, life.last + 1):
            yield from self._from[step]


def pack(lives: Sequence[Life], reserved: int = 0, buffer_bytes: int = 2**62) -> int:
    """Give every life an offset at or above ``reserved``; the result is the end of the last one.

    A life lies in one of the arena's buffers of ``buffer_bytes`` bytes, unless it is larger than one.
    """
    placed = _Placed(max((life.last for life in lives), default=-1) + 1)
    end = reserved
    for life in sorted(lives, key=lambda life: (-life.nbytes, life.first)):
        offset = _within(reserved, life.nbytes, buffer_bytes)
        for other in sorted(placed.beside(life), key=attrgetter("offset")):
            if other.offset < offset + life.nbytes:
                offset = _within(max(offset, other.offset + other.nbytes), life.nbytes, buffer_bytes)
        life.offset = offset
        placed.add(life)
        end = max(end, offset + life.nbytes)
    return end


def _within(offset: int, nbytes: int, buffer_bytes: int) -> int:
    """The first offset from ``offset`` on where ``nbytes`` lie in one buffer, if they fit in one."""
    room = buffer_bytes - offset % buffer_bytes
    return offset if nbytes <= room or nbytes > buffer_bytes else offset + room


def lower_bound(lives: Sequence[Life]) -> int:
    """Bytes of the largest set of values alive at one step: no plan can be smaller."""
    changes = [0] * (max((life.last for life in lives), default=-1) + 2)
    for life in lives:
        changes[life.first] += life.nbytes
        changes[life.last + 1] -= life.nbytes
    return max(accumulate(changes))
