"""Steps that pass a device's limits, cut into steps that do not.

A step is cut in two along an axis of its result, and each half again, until every operand is seen through one window,
or as few as there can be: the accessors of several windows take time to run, and to compile. It is cut as well where
its workgroups pass the limit. The depth of a sum is never cut, and a part is computed as it would be in the whole, so
it has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..base import Operand, Step
from .kernels import KERNELS, Adapter, Kernel
from .shader import Dispatch, bindings_of
from .windows import ALIGNMENT, MOST, WHOLE, Windows, narrowed


class TooLarge(Exception):
    """A step that cannot be cut any more, and does not fit."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def lowered(
    step: Step, kernel: Kernel, adapter: Adapter, most_groups: int
) -> Iterator[tuple[Step, Sequence[Dispatch]]]:
    """``step``, or the parts of it, with the dispatches of each, all within the limits. Raises TooLarge."""
    shape: Any = step.attrs.get("weight_shape", ())  # in blocks, of less than a byte a number
    if (count := math.prod(shape)) > MOST:
        raise TooLarge(step, f"its weight has {count:,} numbers, and a shader counts to {MOST:,}")
    dispatches = kernel.lower(step, adapter)
    reason = next(filter(None, (excess(each, adapter.windows, most_groups) for each in dispatches)), "")
    windows = _windows_of(step, adapter.windows)
    if not reason and windows == len(step.inputs) + 1:
        yield step, dispatches
        return
    if kernel.parts is not None:
        for part in kernel.parts(step):
            yield from lowered(part, KERNELS[part.op.name], adapter, most_groups)
        return
    fewest, halves = min(
        ((max(_windows_of(half, adapter.windows) for half in halves), halves) for halves in _halves(step, kernel)),
        key=lambda each: each[0],
        default=(windows, None),
    )
    if halves is None or (not reason and fewest >= windows):
        if reason:
            raise TooLarge(step, reason)
        yield step, dispatches
        return
    for half in halves:
        yield from lowered(half, kernel, adapter, most_groups)


def excess(dispatch: Dispatch, windows: Windows, most_groups: int) -> str:
    """Describe how ``dispatch`` exceeds the limits; empty if it does not."""
    bindings, _ = bindings_of(dispatch, windows)
    count = sum(len(binding.windows) for binding in bindings)
    longest = max(binding.place.nbytes * binding.elements.lanes // 4 for binding in bindings)
    if longest > MOST:
        return f"an operand has {longest:,} elements, and a shader counts to {MOST:,}"
    if count > windows.count:
        nbytes = max(binding.place.nbytes for binding in bindings)
        return (
            f"its operands, the largest of {nbytes:,} bytes, take {count} bindings of at most {windows.binding:,} "
            f"bytes, and the device allows {windows.count}"
        )
    if max(dispatch.groups) > most_groups:
        return f"it takes {dispatch.groups} workgroups, and the device allows {most_groups:,} along an axis"
    return ""


def _halves(step: Step, kernel: Kernel) -> Iterator[tuple[Step, Step]]:
    """The two halves of ``step`` for each axis along which it can be cut."""
    whole = step.whole or step
    for axis, size in enumerate(step.output.shape):
        axes = kernel.cut(step, axis) if size > 1 else None
        if axes is None:
            continue
        operands = (*step.inputs, step.output)
        cut = (*axes, axis)
        dense = [
            operand.layout.strides[own]
            for position, (operand, own) in enumerate(zip(operands, cut, strict=True))
            if own is not None and not _takes_any(kernel, position, operand, step)
        ]
        middle = _middle(size, dense)
        if middle >= size:
            continue
        parts = []
        for first, end in ((0, middle), (middle, size)):
            ranges = [None if own is None else (own, first, end) for own in cut]
            *inputs, output = shown = narrowed(operands, ranges)
            if any(
                own.layout.offset and position >= kernel.offsets and not _takes_any(kernel, position, operand, step)
                for position, (operand, own) in enumerate(zip(operands, shown, strict=True))
            ):
                break  # it shares a place with another operand, which begins earlier
            attrs = kernel.moved(step, axis, first)
            parts.append(replace(step, attrs=attrs, inputs=tuple(inputs), output=output, whole=whole))
        else:
            yield parts[0], parts[1]


def _takes_any(kernel: Kernel, position: int, operand: Operand, step: Step) -> bool:
    """Return whether ``operand`` may begin at any element."""
    return kernel.writes_any if operand is step.output else kernel.accepts(position, operand.layout)


def _middle(size: int, strides: Sequence[int]) -> int:
    """Choose where to cut an axis of these strides in the dense operands: at the start of a binding if possible."""
    for begin in (ALIGNMENT, WHOLE):
        unit = max((begin // math.gcd(begin, stride) for stride in strides), default=1)
        if unit < size:
            return max(size // 2 // unit, 1) * unit
    return size


def _windows_of(step: Step, windows: Windows) -> int:
    """Count the windows of the operands of ``step``."""
    return sum(windows.number(each.place) for each in (*step.inputs, step.output))
