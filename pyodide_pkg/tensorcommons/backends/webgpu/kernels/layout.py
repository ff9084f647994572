"""Copies, concatenation, padding and ranges: expressions of ``elementwise.wgsl`` written to a whole value or a part."""

from __future__ import annotations

from dataclasses import replace
from typing import cast as as_type

from .... import dtypes
from ....shapes import Layout
from ...base import Operand, Step
from ..shader import Dispatch
from .common import Adapter, Kernel, merge_axes
from .elementwise import Expression, any_layout, elementwise


def _copy(step: Step, adapter: Adapter) -> list[Dispatch]:
    return copy(step.inputs[0], step.output, adapter)


def copy(source: Operand, target: Operand, adapter: Adapter, *, partial: bool = False) -> list[Dispatch]:
    """``source`` to ``target``, element by element; word by word where both are made of whole words."""
    if target.dtype.lanes > 1:
        source, target = as_words(source, target)
    return elementwise([source], target, "a", adapter, partial=partial)


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
        part = replace(step.output, layout=step.output.layout.slice(axis, start, stop))
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


def _arange(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    kind = step.output.dtype.wgsl
    exact = "float32" if kind == "f32" else step.output.dtype.name
    start, each = (made.call("full", {"value": step.attrs[name], "dtype": exact}, (), ()) for name in ("start", "step"))
    text = f"({start} + {each} * {kind}(index))"
    return elementwise((), step.output, text, adapter, constants=made.constants)


KERNELS = [
    Kernel("copy", _copy, any_layout),
    Kernel("concat", _concat, any_layout),
    Kernel("pad", _pad, any_layout),
    Kernel("arange", _arange),
]
