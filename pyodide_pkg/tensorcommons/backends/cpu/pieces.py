"""Pieces of the steps that NumPy computes: a run yields to the event loop, and can be cancelled, between two of them.

In a browser NumPy takes half a minute to sort 20 million numbers, and multiplies matrices at a billion operations a
second. A step is cut along an axis of its result, by the rules for steps that exceed a GPU's limits, so the depth of a
sum is never cut. Elsewhere NumPy is faster, and the bits of a product depend on the number of its rows, so nothing is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...bridge.runtime import IN_BROWSER
from ...dtypes import int8
from ...shapes import size_of
from ..base import Step, Work
from ..webgpu.kernels import KERNELS

FLOPS, ELEMENTS = 2**25, 2**18  # of a piece: 1 to 50 ms in a browser, 100 ms for GELU of float16


def pieces_of(step: Step) -> Iterator[Step]:
    """Yield steps that compute ``step`` one after another, or the step itself where it is small or cannot be cut."""
    if not IN_BROWSER or step.op.in_place:
        yield step
        return
    count = max(-(-_elements(step) // ELEMENTS), -(-Work.of_step(step).flops // FLOPS))
    kernel = KERNELS.get(step.op.name)
    if count > 1 and kernel is not None:
        shape = step.output.shape
        moves = [kernel.moved(step, axis, 1) != step.attrs for axis in range(len(shape))]
        takes_parts = step.op.name == "quantized_linear"  # whose reference computes some columns
        # First along a quantised weight: all parts along another axis would widen it whole.
        for axis in sorted(range(len(shape)), key=lambda axis: not moves[axis]):
            size = shape[axis]
            axes = kernel.cut(step, axis) if size > 1 else None
            if axes is None or (moves[axis] and not takes_parts):
                continue
            operands = (*step.inputs, step.output)
            length = -(-size // count)
            for first in range(0, size, length):
                end = min(first + length, size)
                *inputs, output = (
                    each if own is None else replace(each, layout=each.layout.slice(own, first, end))
                    for each, own in zip(operands, (*axes, axis), strict=True)
                )
                attrs = {**kernel.moved(step, axis, first), "count": end - first} if moves[axis] else step.attrs
                yield from pieces_of(replace(step, inputs=tuple(inputs), output=output, attrs=attrs))
            return
    yield step


def _elements(step: Step) -> int:
    """Return the size of the largest operand, or of the part of a quantised weight that is widened."""
    shape: Any = step.attrs.get("weight_shape")
    operands = (*step.inputs, step.output)
    if shape is None:
        return max(size_of(operand.shape) for operand in operands)
    widened: int = step.output.shape[-1] * shape[1] if step.op.name == "quantized_linear" else 0
    return max(widened, *(size_of(operand.shape) for operand in operands if operand.dtype is not int8))
