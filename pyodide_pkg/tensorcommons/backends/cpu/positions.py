"""Records of rotary position embedding, and of appends to a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator

from ...shapes import size_of
from ..base import Step
from .record import APPEND, ROTARY, Record, Word, address, are_float32, by_rows, has_rows


def rotary(step: Step) -> Iterator[Record] | None:
    """Rotate pairs of the elements of rows by angles of their positions."""
    x, cos, sin, *positions = step.inputs
    out = step.output
    if not are_float32(x, cos, sin, out) or not all(has_rows(each.layout) for each in (x, out)):
        return None
    if not cos.layout.is_contiguous or not sin.layout.is_contiguous:
        return None
    sizes = tuple(reversed(out.shape[:-1]))
    layouts = [each.layout.strides[:-1] for each in (x, out)]
    layouts.append(positions[0].layout.strides if positions else (0,) * len(sizes))
    words: list[Word] = [out.shape[-1], cos.shape[1], int(bool(step.attrs["interleaved"])), cos.shape[0], address(out)]
    words += [address(x), address(cos), address(sin), address(positions[0]) if positions else 0, len(sizes), *sizes]
    words += [stride for strides in layouts for stride in reversed(strides)]
    return by_rows(ROTARY, size_of(sizes), 2 * out.shape[-1], tuple(words))


def append(step: Step) -> Iterator[Record] | None:
    """Write the rows of an update into the cache, whose bytes the result has."""
    cache, update, positions = step.inputs
    out = step.output
    if cache.place != out.place or cache.layout != out.layout or out.dtype.itemsize != 4:
        return None
    if not has_rows(out.layout) or not has_rows(update.layout):
        return None
    batch, heads, length, n = update.shape
    words: list[Word] = [n, heads, length, out.shape[2], address(out), *out.layout.strides[:3]]
    words += [address(update), *update.layout.strides[:3], address(positions), positions.layout.strides[0]]
    return by_rows(APPEND, batch * heads * length, n, tuple(words))
