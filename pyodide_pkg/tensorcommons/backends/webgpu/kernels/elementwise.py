"""Elementwise ops and chains of them: ``elementwise.wgsl`` with one expression filled in."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from .... import dtypes
from ....dtypes import DType
from ....shapes import Layout
from ...base import Attributes, Operand, Step
from ..elements import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, merge_axes, spread, vectors
from .formulas import FORMULAS, cast

NAMES = "abcdefghijk"  # of the operands in an expression


class Expression:
    """An expression of WGSL under construction. Numbers in it are uniforms, so that another one is no new pipeline."""

    def __init__(self) -> None:
        self.constants: list[bytes] = []

    def constant(self, value: float, type: str) -> str:  # noqa: A002 - WGSL's word for it
        """``value`` as a register of ``type``."""
        at = len(self.constants)
        self.constants.append(struct.pack({"f32": "<f", "i32": "<i"}.get(type, "<I"), value))
        word = f"p.constants[{at // 4}].{'xyzw'[at % 4]}"
        return {"u32": word, "bool": f"({word} != 0u)"}.get(type, f"bitcast<{type}>({word})")

    def call(self, op: str, attrs: Attributes, kinds: Sequence[DType], arguments: Sequence[str]) -> str:
        """``op`` of ``arguments``, which are of the dtypes ``kinds``."""
        if op == "full":
            value, dtype = attrs["value"], dtypes.as_dtype(attrs["dtype"])
            assert isinstance(value, (int, float)) and dtype.wgsl is not None
            return self.constant(float(np.asarray(value, dtype.numpy)) if dtype.kind == "float" else value, dtype.wgsl)
        if op == "cast":
            return cast(kinds[0], dtypes.as_dtype(attrs["dtype"])).format(*arguments)
        named = {name: self.constant(value, "f32") for name, value in attrs.items() if isinstance(value, float)}
        return FORMULAS[op][str(kinds[-1].wgsl)].format(*arguments, **named)

    def chain(self, term: Any, names: Sequence[str], *, is_root: bool = True) -> str:
        """A chain of ops (graph/chains.py). What lies between rounds as it would in memory: fused equals unfused."""
        if term[0] == "input":
            return str(names[term[1]])
        op, attrs, kinds, result, *arguments = term
        texts = [self.chain(argument, names, is_root=False) for argument in arguments]
        text = self.call(op, dict(attrs), [dtypes.as_dtype(kind) for kind in kinds], texts)
        if is_root or op == "full":
            return text
        if result == "float32" and op in ("multiply", "square"):
            return f"rounded({text})"
        return f"rounded_to_half({text})" if result == "float16" else text


def elementwise(
    inputs: Sequence[Operand],
    output: Operand,
    expression: str,
    adapter: Adapter,
    *,
    partial: bool = False,
    constants: Sequence[bytes] = (),
) -> list[Dispatch]:
    """One dispatch that writes ``expression`` of ``a``, ``b``, ... (``inputs``) to every element of ``output``.

    ``index`` in the expression is the element's number in row-major order. ``partial``: the output is a part of
    something whose other elements must stay as they are.
    """
    size = output.layout.size
    if size == 0:
        return []
    layouts = merge_axes([output.layout, *(operand.layout.broadcast_to(output.shape) for operand in inputs)])
    dense = [layout == Layout.contiguous(layout.shape) for layout in layouts]
    constant = [not any(layout.strides) for layout in layouts]
    names = NAMES[: len(inputs)]
    access: Access = "words"
    lanes = output.dtype.lanes
    if partial or not dense[0]:
        access, lanes = "elements", 1
    elif not adapter.fallback and all(d or c for d, c in zip(dense, constant, strict=True)):
        access, lanes = "vectors", 4
    values = []
    buffers = []
    for number, (name, operand) in enumerate(zip(names, inputs, strict=True), 1):
        vector = access == "vectors" and dense[number]
        index = f"u32(p.places[{number}].offset)" if constant[number] else f"index_of({number}u, i)"
        values.append(f"load_{name}({'i' if dense[number] else index})")
        buffers.append(Buffer(name, operand, "vectors" if vector else "elements"))
    buffers.append(Buffer("y", output, access, written=True))
    if access == "vectors":
        lets = [
            f"let {name} = {f'load4_{name}(i)' if dense[number] else values[number - 1]};"
            for number, name in enumerate(names, 1)
        ]
        parts = [
            ", ".join([f"4u * i + {j}u", *(f"{n}.{'xyzw'[j]}" if dense[k] else n for k, n in enumerate(names, 1))])
            for j in range(4)
        ]
        write = f"{' '.join(lets)}\n  store4_y(i, vec4<$type_y>({', '.join(f'formula({part})' for part in parts)}));"
    elif access == "elements":
        write = f"store_y({'i' if dense[0] else 'index_of(0u, i)'}, value_of_y(i));"
    else:
        write = "write_y(i);"
    items = -(-size // lanes)
    params = struct.pack("<2I8x", items, len(layouts[0].shape)) + vectors(layouts[0].shape, 2, "I")
    for layout in layouts:
        params += vectors(layout.strides, 2, "i") + struct.pack("<i12x", layout.offset)
    numbers = max(-(-len(constants) // 4), 1)
    params += b"".join(constants).ljust(16 * numbers, b"\0")
    variables = {
        "workgroup": str(adapter.workgroup),
        "operands": str(len(layouts)),
        "numbers": str(numbers),
        "parameters": ", ".join(["index: u32", *(f"{name}: $type_{name}" for name in names)]),
        "expression": expression,
        "values": ", ".join(["i", *values]),
        "write": write,
    }
    return [Dispatch("elementwise/elementwise", variables, params, tuple(buffers), spread(items, adapter.workgroup))]


def _function(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    text = made.call(step.op.name, step.attrs, [operand.dtype for operand in step.inputs], NAMES)
    return elementwise(step.inputs, step.output, text, adapter, constants=made.constants)


def _chain(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    text = made.chain(step.attrs["formula"], NAMES)
    return elementwise(step.inputs, step.output, text, adapter, constants=made.constants)


def any_layout(position: int, layout: Layout) -> bool:
    """Elementwise kernels read every operand in place."""
    return True


KERNELS = [Kernel(name, _function, any_layout) for name in (*FORMULAS, "cast", "full")]
KERNELS.append(Kernel("chain", _chain, any_layout))
