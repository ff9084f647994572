"""Values larger than a device binds, or makes a buffer of, at once: seen through windows.

A value of more than ``maxBufferSize`` bytes lies in several GPUBuffers, and a shader sees at most
``maxStorageBufferBindingSize`` bytes through one binding. So a value is bound as windows: as few as there can be, each
in one buffer. Nearly all values have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..base import Operand, Place

ALIGNMENT = 256  # of a window's start, the most that minStorageBufferOffsetAlignment asks for
MOST = 2**31 - ALIGNMENT  # elements that a shader counts, and bytes that one binding therefore has
WHOLE = 8  # elements: narrowed operands begin at a multiple, so that what was read in vectors still is


@dataclass(frozen=True)
class Windows:
    """The bytes of the largest binding and of the largest buffer, and how many storage buffers a dispatch binds."""

    binding: int
    buffer: int
    count: int

    @classmethod
    def of_limits(cls, limits: Mapping[str, int]) -> Windows:
        """The windows of a device with these limits."""
        buffer = limits["maxBufferSize"] // ALIGNMENT * ALIGNMENT
        binding = limits["maxStorageBufferBindingSize"] // ALIGNMENT * ALIGNMENT
        return cls(min(binding, buffer, MOST), buffer, limits["maxStorageBuffersPerShaderStage"])

    def of(self, place: Place) -> Iterator[tuple[int, int]]:
        """(offset, bytes) of the windows over ``place``; the first may begin before it."""
        at, end = place.offset // ALIGNMENT * ALIGNMENT, place.offset + max(place.nbytes, 1)
        while at < end:
            stop = min(end, at + self.binding, (at // self.buffer + 1) * self.buffer)
            yield at, -(-(stop - at) // 16) * 16
            at = stop

    def number(self, place: Place) -> int:
        """Number of windows that ``place`` has."""
        return sum(1 for _ in self.of(place))


UNLIMITED = Windows(2**62, 2**62, 2**62)


def narrowed(operands: Sequence[Operand], ranges: Sequence[tuple[int, int, int] | None]) -> list[Operand]:
    """``operands`` as they show only (axis, start, stop) of each, or all of it, over no more bytes than that takes.

    Operands that are one value stay one place in a buffer that is written, the last operand's: a dispatch may not bind
    that twice.
    """
    written = operands[-1].place.kind, operands[-1].place.index
    layouts = [
        operand.layout if part is None else operand.layout.slice(*part)
        for operand, part in zip(operands, ranges, strict=True)
    ]
    low: dict[Place | int, int] = {}
    high: dict[Place | int, int] = {}
    keys = [
        operand.place if (operand.place.kind, operand.place.index) == written else number
        for number, operand in enumerate(operands)
    ]
    for key, layout in zip(keys, layouts, strict=True):
        first, end = layout.extent
        low[key] = min(low.get(key, first), first)
        high[key] = max(high.get(key, end), end)
    result = []
    for key, operand, layout in zip(keys, operands, layouts, strict=True):
        place, size = operand.place, operand.dtype.itemsize
        first, end = low[key] // WHOLE * WHOLE, high[key]
        own = replace(place, offset=place.offset + first * size, nbytes=(end - first) * size)
        result.append(Operand(own, replace(layout, offset=layout.offset - first), operand.dtype))
    return result
