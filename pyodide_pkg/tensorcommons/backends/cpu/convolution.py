"""Records of convolutions of images, as products of weights and patches.

A convolution with ``up - 1`` zeros between the elements of its input (a transposed one) is computed as several without
zeros: one for each remainder of the results' indices modulo ``up``, over the taps of the kernel that reach an element.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from ..base import Step
from .record import CONVOLUTION, NUMBERS, PACK, SCRATCH, Record, Word, address, are_float32, by_rows

POSITIONS = 64  # as in wasm/convolution.h
PACKED = 8  # multiply-adds of a product that take the time of copying a weight


def conv2d(step: Step) -> Iterator[Record] | None:
    """Convolve images, with any stride, dilation, groups, and layouts of all operands."""
    if not are_float32(*step.inputs, step.output):
        return None
    up: Any = step.attrs["up"]
    return (record for phase in product(range(up[0]), range(up[1])) for record in _phase(step, up, phase))


def _phase(step: Step, up: tuple[int, int], phase: tuple[int, int]) -> Iterator[Record]:
    """Compute the results whose indices modulo ``up`` are ``phase``."""
    x, weight, *bias = step.inputs
    out, attrs = step.output, step.attrs
    groups: Any = attrs["groups"]
    outputs, channels, *kernel = out.shape[1] // groups, *weight.shape[1:]
    stride: Any = attrs["stride"]
    sizes = [-(-(out.shape[2 + axis] - phase[axis]) // up[axis]) for axis in range(2)]
    reached = [_reached(step, axis, up[axis], phase[axis], kernel[axis]) for axis in range(2)]
    strides = weight.layout.strides
    taps = [(row, column, i * strides[2] + j * strides[3]) for (row, i), (column, j) in product(*reached)]
    depth = channels * len(taps)
    at, scratch = address(weight), POSITIONS * (depth + outputs)
    if up != (1, 1) or not weight.layout.is_contiguous:
        at, rows = SCRATCH.plus(NUMBERS + scratch), groups * outputs
        scratch += rows * depth
        packed: tuple[Word, ...] = (
            channels,
            at,
            address(weight),
            *strides[:2],
            len(taps),
            *(offset for *_, offset in taps),
        )
        yield from by_rows(PACK, rows, PACKED * depth, packed, scratch)
    start = sum(phase[axis] * out.layout.strides[2 + axis] for axis in range(2))
    words: list[Word] = [groups, outputs, channels, *sizes, address(x), *x.layout.strides, *x.shape[2:], *stride]
    words += [address(out).plus(start), *out.layout.strides[:2]]
    words += [out.layout.strides[2 + axis] * up[axis] for axis in range(2)]
    words += [at, *((address(bias[0]), bias[0].layout.strides[0]) if bias else (0, 0))]
    words += [SCRATCH, len(taps), *(place for *places, _ in taps for place in places)]
    count = out.shape[0] * groups * -(-sizes[0] * sizes[1] // POSITIONS)
    yield from by_rows(CONVOLUTION, count, POSITIONS * outputs * max(depth, 1), tuple(words), scratch)


def _reached(step: Step, axis: int, up: int, phase: int, kernel: int) -> list[tuple[int, int]]:
    """Return the taps along an axis that reach elements, each with the index of the element for the first result."""
    attrs: Any = step.attrs
    places = [
        phase * attrs["stride"][axis] + tap * attrs["dilation"][axis] - attrs["padding"][axis] for tap in range(kernel)
    ]
    return [(place // up, tap) for tap, place in enumerate(places) if place % up == 0]
