"""Pieces of the steps that NumPy computes: a run yields to the event loop, and can be cancelled, between two of them.

In a browser NumPy takes half a minute to sort 20 million numbers, and multiplies matrices at a billion operations a
second. A step is cut along an axis of its result, by the rules for steps that exceed a GPU's limits, so the depth of a
sum is never cut. Elsewhere NumPy is faster, and the bits of a product depend on the number of its rows, so nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...bridge.runtime import IN_BROWSER
from ...shapes import size_of
from ..base import Step, Work
from ..webgpu.kernels import KERNELS

FLOPS, ELEMENTS = 2**25, 2**18  # of a piece: 1 to 50 ms in a browser, 100 ms for GELU of float16


def pieces_of(step: Step) -> Iterator[Step]:
    """Yield steps that compute ``step`` one after another, or the step itself where it is small or cannot be cut."""
    if not IN_BROWSER or step.op.in_place:
        yield step
        return
    elements = max(size_of(operand.shape) for operand in (*step.inputs, step.output))
    count = max(-(-elements // ELEMENTS), -(-Work.of_step(step).flops // FLOPS))
    kernel = KERNELS.get(step.op.name)
    if count > 1 and kernel is not None:
        for axis, size in enumerate(step.output.shape):
            axes = kernel.cut(step, axis) if size > 1 else None
            if axes is None or kernel.moved(step, axis, 1) != step.attrs:
                continue
            operands = (*step.inputs, step.output)
            length = -(-size // count)
            for first in range(0, size, length):
                end = min(first + length, size)
                *inputs, output = (
                    each if own is None else replace(each, layout=each.layout.slice(own, first, end))
                    for each, own in zip(operands, (*axes, axis), strict=True)
                )
                yield from pieces_of(replace(step, inputs=tuple(inputs), output=output))
            return
    yield step
