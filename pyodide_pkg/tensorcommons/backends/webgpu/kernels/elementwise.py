"""Elementwise ops, casts, copies and concatenation: ``elementwise.wgsl`` with one expression filled in."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from ....shapes import Layout
from ...base import Operand, Step
from ..shader import Buffer, Dispatch, source
from .common import Adapter, Kernel, merge_axes, require_4_bytes, spread, vectors

UNARY = ("negative", "abs", "exp", "log", "log1p", "sqrt", "tanh", "sigmoid", "relu", "gelu")
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


def elementwise(inputs: Sequence[Operand], output: Operand, expression: str, adapter: Adapter) -> list[Dispatch]:
    """One dispatch that writes ``expression`` of ``$load_a`` and ``$load_b`` to every element of ``output``."""
    size = output.layout.size
    if size == 0:
        return []
    operands = [output, *inputs]
    layouts = merge_axes([output.layout, *(operand.layout.broadcast_to(output.shape) for operand in inputs)])
    names = ("y", "a", "b")[: len(operands)]
    variables = {"workgroup": str(adapter.workgroup), "functions": source("elementwise/functions")}
    for number, (name, layout) in enumerate(zip(names, layouts, strict=True)):
        dense = layout == Layout.contiguous(layout.shape)
        variables[f"index_{name}"] = "i" if dense else f"index_of({number}u, i)"
    for name in names[1:]:
        variables[f"load_{name}"] = f"${name}[$index_{name}]"
    params = struct.pack("<4I", size, len(layouts[0].shape), 0, 0)
    params += vectors([layout.offset for layout in layouts], 1, "I") + vectors(layouts[0].shape, 2, "I")
    params += b"".join(vectors(layout.strides, 2, "i") for layout in layouts) + bytes(32 * (3 - len(layouts)))
    buffers = [Buffer(n, str(o.dtype.wgsl), o) for n, o in zip(names, operands, strict=True)]
    buffers = [*buffers[1:], replace(buffers[0], written=True)]
    return [
        Dispatch(
            "elementwise/elementwise",
            {**variables, "expression": expression},
            params,
            tuple(buffers),
            spread(size, adapter.workgroup),
        )
    ]


def _function(step: Step, adapter: Adapter) -> list[Dispatch]:
    arguments = ", ".join(f"$load_{name}" for name in "ab"[: len(step.inputs)])
    return elementwise(step.inputs, step.output, f"op_{step.op.name}({arguments})", adapter)


def _cast(step: Step, adapter: Adapter) -> list[Dispatch]:
    require_4_bytes(step)
    return elementwise(step.inputs, step.output, f"{step.output.dtype.wgsl}($load_a)", adapter)


def _copy(step: Step, adapter: Adapter) -> list[Dispatch]:
    require_4_bytes(step)
    return elementwise(step.inputs, step.output, "$load_a", adapter)


def _concat(step: Step, adapter: Adapter) -> list[Dispatch]:
    """A copy an input, each into its own range of the output."""
    require_4_bytes(step)
    axis, start = step.attrs["axis"], 0
    assert isinstance(axis, int)
    dispatches = []
    for operand in step.inputs:
        stop = start + operand.shape[axis]
        part = replace(step.output, layout=step.output.layout.slice(axis, start, stop))
        dispatches += elementwise([operand], part, "$load_a", adapter)
        start = stop
    return dispatches


def _any_layout(position: int, layout: Layout) -> bool:
    return True


KERNELS = [
    *(Kernel(name, _function, _any_layout) for name in (*UNARY, *BINARY)),
    Kernel("cast", _cast, _any_layout),
    Kernel("copy", _copy, _any_layout),
    Kernel("concat", _concat, _any_layout),
]
