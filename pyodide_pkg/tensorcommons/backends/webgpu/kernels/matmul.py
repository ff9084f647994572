"""Products: register tiles without workgroup memory (``linear.wgsl``), and any layout (``matmul.wgsl``)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ....errors import UnsupportedOp
from ....shapes import Layout, Shape, size_of
from ...base import Operand, Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, merge_axes, rows_and_columns, spread

ACTIVATIONS = (None, "relu", "gelu", "tanh", "sigmoid")  # by the numbers of `activate` in activation.wgsl


def _epilogue(step: Step, operands: Sequence[Operand]) -> tuple[dict[str, str], list[Buffer]]:
    bias = [Buffer("bias", operands[0])] if operands else []
    return {"bias_term": "load_bias(column + j)" if bias else "0f"}, bias


def _activation(step: Step) -> int:
    return ACTIVATIONS.index(step.attrs.get("activation"))


def _linear(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, weight = step.inputs[:2]
    rows, depth = rows_and_columns(x)
    columns = weight.shape[0]
    if rows == 0 or columns == 0:
        return []
    variables, bias = _epilogue(step, step.inputs[2:])
    output = Buffer("y", step.output, written=True)
    if depth % 4 or depth == 0:  # no vectors of four
        transposed = Layout(weight.layout.shape[::-1], weight.layout.strides[::-1], weight.layout.offset)
        flat = Layout.contiguous((rows, depth))
        return [_general(step, Operand(x.place, flat, x.dtype), Operand(weight.place, transposed, weight.dtype), ())]
    buffers = (Buffer("x", x, "vectors"), Buffer("weight", weight, "vectors"), *bias, output)
    params = struct.pack("<4I", rows, columns, depth // 4, _activation(step))
    groups = (-(-columns // 64), *spread(rows, 16)[:2])
    return [Dispatch("matmul/linear", variables, params, buffers, groups)]


def _matmul(step: Step, adapter: Adapter) -> list[Dispatch]:
    a, b = step.inputs
    return [_general(step, a, b, step.output.shape[:-2])] if step.output.layout.size else []


def _general(step: Step, a: Operand, b: Operand, batch: Shape) -> Dispatch:
    """``a @ b`` with the epilogue of ``step``; ``batch`` are the leading axes that both broadcast to."""
    variables, bias = _epilogue(step, step.inputs[2:])
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    lead = [Layout(o.layout.shape[:-2], o.layout.strides[:-2], o.layout.offset).broadcast_to(batch) for o in (a, b)]
    a_lead, b_lead = merge_axes(lead)
    if len(a_lead.shape) > 2:
        raise UnsupportedOp("matmul", "webgpu", f"{len(a_lead.shape)} batch axes do not merge to two")
    pad = (1,) * (2 - len(a_lead.shape))
    inner = (*pad, *a_lead.shape)[1]
    a_strides = (*([0] * len(pad)), *a_lead.strides, *a.layout.strides[-2:])
    b_strides = (*([0] * len(pad)), *b_lead.strides, *b.layout.strides[-2:])
    params = struct.pack("<4I4i4i", rows, columns, depth, inner, *a_strides, *b_strides)
    params += struct.pack("<2i2I", a.layout.offset, b.layout.offset, _activation(step), size_of(batch))
    buffers = (Buffer("a", a), Buffer("b", b), *bias, Buffer("y", step.output, written=True))
    groups = (-(-columns // 16), *spread(-(-rows // 16) * size_of(batch), 1)[:2])
    return Dispatch("matmul/matmul", variables, params, buffers, groups)


KERNELS = [Kernel("linear", _linear), Kernel("matmul", _matmul, lambda position, layout: True)]
