"""Copies, concatenation, padding and ranges: expressions of ``elementwise.wgsl`` written to a whole value or a part.

A copy that turns rows into columns goes through ``transpose.wgsl`` on hardware.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import cast as as_type

from .... import dtypes
from ....shapes import Layout, size_of
from ...base import COPY, Attributes, Operand, Step
from ..accessors import Buffer
from ..shader import Dispatch
from ..windows import narrowed
from .common import Adapter, Kernel, merge_axes, offsets, spread, vectors
from .elementwise import Expression, aligned, any_layout, elementwise, is_part

SIDE = 32  # of a tile of transpose.wgsl
FEW = 8  # rows or columns below which most of a tile would be empty


def _copy(step: Step, adapter: Adapter) -> list[Dispatch]:
    return copy(step.inputs[0], step.output, adapter, partial=is_part(step))


def copy(source: Operand, target: Operand, adapter: Adapter, *, partial: bool = False) -> list[Dispatch]:
    """``source`` to ``target``, element by element; word by word where both are made of whole words."""
    if target.dtype.lanes > 1:
        source, target = as_words(source, target)
    if not adapter.fallback and target.dtype.lanes == 1:
        turned = _transpose(source, target)
        if turned is not None:
            return [turned]
    return elementwise([source], target, "a", adapter, partial=partial)


def _transpose(source: Operand, target: Operand) -> Dispatch | None:
    """The copy in tiles, where neighbours of ``source`` and those of ``target`` lie along different axes."""
    to, fro = merge_axes([target.layout, source.layout.broadcast_to(target.shape)])
    if to.strides[-1:] != (1,) or 1 not in fro.strides[:-1]:
        return None
    last, row = len(to.shape) - 1, fro.strides.index(1)
    if min(to.shape[row], to.shape[last]) < FEW or fro.strides[last] == 0:
        return None
    others = [axis for axis in range(last) if axis != row]
    shape = [to.shape[axis] for axis in others]
    params = struct.pack("<2I4iI4x", to.shape[row], to.shape[last], fro.strides[last], to.strides[row], fro.offset,
                         to.offset, size_of(shape))  # fmt: skip
    params += vectors(shape, 2, "I")
    for layout in (to, fro):
        params += vectors([layout.strides[axis] for axis in others], 2, "i")
    variables = {"offsets": offsets(len(others), 2)}
    tiles = spread(-(-to.shape[row] // SIDE) * size_of(shape), 1)
    buffers = (Buffer("x", source), Buffer("y", target, written=True))
    return Dispatch("layout/transpose", variables, params, buffers, (-(-to.shape[last] // SIDE), *tiles[:2]))


def as_words(source: Operand, target: Operand) -> tuple[Operand, Operand]:
    """Two operands of one packed dtype as words of uint32, where all their rows begin and end at words."""
    lanes = target.dtype.lanes
    merged = merge_axes([target.layout, source.layout.broadcast_to(target.shape)])
    shape = merged[0].shape
    whole = bool(shape) and shape[-1] % lanes == 0
    for layout in merged:
        whole = (
            whole and layout.strides[-1:] == (1,) and not any(n % lanes for n in (*layout.strides[:-1], layout.offset))
        )
    if not whole:
        return source, target
    words = [
        Layout((*shape[:-1], shape[-1] // lanes), (*(n // lanes for n in m.strides[:-1]), 1), m.offset // lanes)
        for m in merged
    ]
    return Operand(source.place, words[1], dtypes.uint32), Operand(target.place, words[0], dtypes.uint32)


def _concat(step: Step, adapter: Adapter) -> list[Dispatch]:
    """A copy an input, each into its own range of the output."""
    axis, start = step.attrs["axis"], 0
    assert isinstance(axis, int)
    dispatches = []
    for operand in step.inputs:
        stop = start + operand.shape[axis]
        (part,) = narrowed([step.output], [(axis, start, stop)])
        dispatches += copy(operand, part, adapter, partial=True)
        start = stop
    return dispatches


def _pad(step: Step, adapter: Adapter) -> list[Dispatch]:
    """The value everywhere, then the operand into its place."""
    (x,) = step.inputs
    widths = as_type("tuple[tuple[int, int], ...]", step.attrs["widths"])
    part = step.output.layout
    for axis, (before, _) in enumerate(widths):
        part = part.slice(axis, before, before + x.shape[axis])
    made = Expression()
    value = made.call("full", {"value": step.attrs["value"], "dtype": x.dtype.name}, (), ())
    filled = elementwise((), step.output, value, adapter, constants=made.constants)
    return [*filled, *copy(x, replace(step.output, layout=part), adapter, partial=True)]


def _parts_of_pad(step: Step) -> list[Step]:
    """The same as a step that fills everything, and a copy."""
    (x,) = step.inputs
    widths = as_type("tuple[tuple[int, int], ...]", step.attrs["widths"])
    part = step.output
    for axis, (before, _) in enumerate(widths):
        (part,) = narrowed([part], [(axis, before, before + x.shape[axis])])
    filled = replace(
        step, op=replace(step.op, name="full"), attrs={"value": step.attrs["value"], "dtype": x.dtype.name}, inputs=()
    )
    return [filled, replace(step, op=COPY, attrs={}, output=part, whole=step)]


def _parts_of_concat(step: Step) -> list[Step]:
    """A copy an input."""
    axis, start = step.attrs["axis"], 0
    assert isinstance(axis, int)
    copies = []
    for operand in step.inputs:
        (part,) = narrowed([step.output], [(axis, start, start + operand.shape[axis])])
        copies.append(replace(step, op=COPY, attrs={}, inputs=(operand,), output=part, whole=step))
        start += operand.shape[axis]
    return copies


def _arange(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    first = step.attrs.get("first", 0)
    assert isinstance(first, int)
    kind = step.output.dtype.wgsl
    exact = "float32" if kind == "f32" else step.output.dtype.name
    start, each = (made.call("full", {"value": step.attrs[name], "dtype": exact}, (), ()) for name in ("start", "step"))
    text = f"({start} + {each} * {kind}(index + {made.constant(first, 'u32')}))"
    return elementwise((), step.output, text, adapter, partial=is_part(step), constants=made.constants)


def _moved_range(step: Step, axis: int, first: int) -> Attributes:
    """The attributes of a part that begins at element ``first``."""
    before = step.attrs.get("first", 0)
    assert isinstance(before, int)
    return {**step.attrs, "first": before + first}


KERNELS = [
    Kernel("copy", _copy, any_layout, aligned, True),
    Kernel("concat", _concat, any_layout, parts=_parts_of_concat),
    Kernel("pad", _pad, any_layout, parts=_parts_of_pad),
    Kernel("arange", _arange, any_layout, aligned, True, moved=_moved_range),
]
