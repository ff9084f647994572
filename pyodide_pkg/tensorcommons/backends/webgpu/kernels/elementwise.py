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
from ..accessors import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, float32, merge_axes, spread, vectors
from .elementwise_wgsl import FORMULAS, cast

NAMES = "abcdefghijk"  # of the operands in an expression
SOFTWARE_WORKGROUP = 64  # with vectors of four, smaller ones cost more than they spread
WORKGROUP = 256  # of an H200: float16 comes 13 % faster than with 128, float32 as fast


class Expression:
    """A WGSL expression under construction. Its numbers are uniforms, so other numbers reuse the pipeline."""

    def __init__(self) -> None:
        self.constants: list[bytes] = []

    def constant(self, value: float, type: str) -> str:  # noqa: A002 - WGSL's word for it
        """``value`` as a register of ``type``."""
        at = len(self.constants)
        number = float32(value) if type == "f32" else value
        self.constants.append(struct.pack({"f32": "<f", "i32": "<i"}.get(type, "<I"), number))
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
        """A chain of ops (graph/elementwise_fusion.py). Intermediates round as in memory, so fused equals unfused."""
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
    names = NAMES[: len(inputs)]
    access: Access = "words"
    lanes = output.dtype.lanes
    by_fours = _by_fours(layouts, partial=partial)
    if by_fours is not None:
        access, lanes, layouts = "vectors", 4, by_fours
    elif partial or layouts[0] != Layout.contiguous(layouts[0].shape):
        access, lanes = "elements", 1
    dense = [layout == Layout.contiguous(layout.shape) for layout in layouts]
    vector = [access == "vectors" and layout.strides[-1] == 1 for layout in layouts]
    coordinates, indices = _indices(layouts)
    values = ["i" if flat else index for flat, index in zip(dense, indices, strict=True)]
    buffers = [
        Buffer(name, operand, "vectors" if by_four else "elements")
        for name, operand, by_four in zip(names, inputs, vector[1:], strict=True)
    ]
    buffers.append(Buffer("y", output, access, written=True))
    if access == "vectors":
        lets = [f"let {n} = load{'4' * vector[k]}_{n}({values[k]});" for k, n in enumerate(names, 1)]
        parts = [
            ", ".join([f"4u * i + {j}u", *(f"{n}.{'xyzw'[j]}" if vector[k] else n for k, n in enumerate(names, 1))])
            for j in range(4)
        ]
        results = ", ".join(f"formula({part})" for part in parts)
        first = "" if all(dense) else coordinates
        write = f"{first}{' '.join(lets)}\n  store4_y({values[0]}, vec4<$type_y>({results}));"
    elif access == "elements":
        write = "store_y(i, value_of_y(i));" if dense[0] else f"{coordinates}store_y({values[0]}, value_of_y(i));"
    else:
        write = "write_y(i);"
    items = -(-size // lanes)
    workgroup = SOFTWARE_WORKGROUP if adapter.fallback else WORKGROUP
    params = struct.pack("<2I8x", items, len(layouts[0].shape)) + vectors(layouts[0].shape, 2, "I")
    for layout in layouts:
        params += vectors(layout.strides, 2, "i") + struct.pack("<i12x", layout.offset)
    numbers = max(-(-len(constants) // 4), 1)
    params += b"".join(constants).ljust(16 * numbers, b"\0")
    variables = {
        "workgroup": str(workgroup),
        "operands": str(len(layouts)),
        "numbers": str(numbers),
        "parameters": ", ".join(["index: u32", *(f"{name}: $type_{name}" for name in names)]),
        "expression": expression,
        "values": ", ".join(["i", *(f"load_{name}({value})" for name, value in zip(names, values[1:], strict=True))]),
        "coordinates": "" if all(dense[1:]) else coordinates,
        "write": write,
    }
    return [Dispatch("elementwise/elementwise", variables, params, tuple(buffers), spread(items, workgroup))]


def _by_fours(layouts: Sequence[Layout], *, partial: bool) -> list[Layout] | None:
    """The layouts of y and its operands over vectors of four neighbours, if each of them has four neighbours of memory
    that begin at a multiple of four, or (an operand) one number for all four; None elsewhere.

    A dense result of any length ends with its last vector, which nothing shares, unless it is ``partial``.
    """
    shape = layouts[0].shape or (1,)
    if shape[-1] % 4 and (partial or len(shape) > 1):
        return None
    fours = (*shape[:-1], -(-shape[-1] // 4))
    found = []
    for number, layout in enumerate(layouts):
        strides = layout.strides or (int(number == 0),)  # of one element
        if strides[-1] == 0 and number:
            found.append(Layout(fours, strides, layout.offset))
        elif strides[-1] == 1 and not any(n % 4 for n in (*strides[:-1], layout.offset)):
            found.append(Layout(fours, (*(n // 4 for n in strides[:-1]), 1), layout.offset // 4))
        else:
            return None
    return found


def _indices(layouts: Sequence[Layout]) -> tuple[str, list[str]]:
    """WGSL for the coordinates of element ``i``, and from them its index in each operand.

    They are written out for the rank: a loop that indexes the uniforms takes a software adapter three times as long.
    """
    axes = [f"[{axis // 4}].{'xyzw'[axis % 4]}" for axis in range(len(layouts[0].shape))]
    lines = [f"let r{len(axes)} = i;"]
    for axis in range(len(axes) - 1, -1, -1):
        outer = f"r{axis + 1} / p.shape{axes[axis]}" if axis else "0u"
        lines.append(f"let r{axis} = {outer};")
        lines.append(f"let c{axis} = i32(r{axis + 1} - r{axis} * p.shape{axes[axis]});")
    indices = []
    for number, layout in enumerate(layouts):
        terms = [f"c{axis} * p.places[{number}].strides{at}" for axis, at in enumerate(axes) if layout.strides[axis]]
        indices.append(f"u32({' + '.join([f'p.places[{number}].offset', *terms])})")
    return "".join(f"{line}\n  " for line in lines), indices


def _function(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    text = made.call(step.op.name, step.attrs, [operand.dtype for operand in step.inputs], NAMES)
    return elementwise(step.inputs, step.output, text, adapter, partial=is_part(step), constants=made.constants)


def _chain(step: Step, adapter: Adapter) -> list[Dispatch]:
    made = Expression()
    text = made.chain(step.attrs["formula"], NAMES)
    return elementwise(step.inputs, step.output, text, adapter, partial=is_part(step), constants=made.constants)


def is_part(step: Step) -> bool:
    """Return whether the result is a part of something whose other elements must stay as they are."""
    return step.whole is not None


def aligned(step: Step, axis: int) -> Sequence[int | None]:
    """Every axis may be cut, and with it those that are broadcast to it."""
    axes = [axis - len(step.output.shape) + len(x.shape) for x in step.inputs]
    return [a if a >= 0 and x.shape[a] > 1 else None for a, x in zip(axes, step.inputs, strict=True)]


def any_layout(position: int, layout: Layout) -> bool:
    """Elementwise kernels read every operand in place."""
    return True


KERNELS = [Kernel(name, _function, any_layout, aligned, True) for name in (*FORMULAS, "cast", "full")]
KERNELS.append(Kernel("chain", _chain, any_layout, aligned, True))
