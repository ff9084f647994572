"""Scaled dot-product attention in one pass over the keys: ``attention.wgsl``."""

from __future__ import annotations

import math
import struct

from ....shapes import Layout
from ...base import Operand, Step
from ..elements import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, spread

DIMENSIONS = 32  # of the head, an invocation
# What one step of four keys adds to the scores: a row of the mask for all queries, or one for each.
ADD_ROW = """{
      let m = p.mask_offset + at.x * p.mask.x + at.y * p.mask.y;
      let k = vec4<u32>(m + keys * p.mask.w);
      let row = vec4<f32>(load_mask(k.x), load_mask(k.y), load_mask(k.z), load_mask(k.w));
      scores += mat4x4<f32>(row, row, row, row);
    }"""
ADD_ROWS = """for (var i = 0; i < 4; i++) {
      let m = p.mask_offset + at.x * p.mask.x + at.y * p.mask.y + rows[i] * p.mask.z;
      let k = vec4<u32>(m + keys * p.mask.w);
      scores[i] += vec4<f32>(load_mask(k.x), load_mask(k.y), load_mask(k.z), load_mask(k.w));
    }"""


def _is_aligned(operand: Operand) -> bool:
    layout = operand.layout
    return operand.shape[3] % 4 == 0 and all(number % 4 == 0 for number in (*layout.strides[:3], layout.offset))


def _load(name: str, aligned: bool) -> tuple[Access, str]:
    """Access and expression for four neighbours of a row: one vector where rows are aligned, else elements."""
    if aligned:
        return "vectors", f"load4_{name}((u32(row) + d) >> 2u)"
    lanes = ", ".join(f"select(0f, load_{name}(u32(row) + d + {i}u), d + {i}u < p.head_dim)" for i in range(4))
    return "elements", f"vec4<f32>({lanes})"


def _attention(step: Step, adapter: Adapter) -> list[Dispatch]:
    q, k, v, *mask = step.inputs
    batch, heads, queries, head_dim = q.shape
    scale = step.attrs["scale"]
    assert isinstance(scale, float)
    if step.output.layout.size == 0:
        return []
    params = struct.pack("<4I", queries, k.shape[2], head_dim, batch)
    for layout in (q.layout, k.layout, v.layout, step.output.layout):
        params += struct.pack("<4i", *layout.strides[:3], layout.offset)
    mask_layout = mask[0].layout if mask else Layout((), (0, 0, 0, 0))
    params += struct.pack("<4i", *mask_layout.strides)
    params += struct.pack("<i2fI", mask_layout.offset, scale, -math.inf, heads)
    variables = {"workgroup": str(adapter.workgroup), "add_mask": ""}
    buffers = []
    for name, operand in (("query", q), ("key", k), ("value", v)):
        access, variables[name] = _load(name, _is_aligned(operand))
        buffers.append(Buffer(name, operand, access))
    if mask:
        buffers.append(Buffer("mask", mask[0]))
        variables["add_mask"] = ADD_ROWS if mask_layout.strides[2] else ADD_ROW
    buffers.append(Buffer("y", step.output, written=True))
    items = spread(heads * batch * -(-head_dim // DIMENSIONS), 1)
    groups = (-(-queries // (4 * adapter.workgroup)), *items[:2])
    return [Dispatch("attention/attention", variables, params, tuple(buffers), groups)]


def _accepts(position: int, layout: Layout) -> bool:
    """Any mask; of query, key and value those with the head dimension contiguous."""
    return position == 3 or layout.strides[3] == 1


KERNELS = [Kernel("scaled_dot_product_attention", _attention, _accepts)]
