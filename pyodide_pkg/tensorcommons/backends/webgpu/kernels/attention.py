"""Scaled dot-product attention in one pass over the keys: ``attention.wgsl``."""

from __future__ import annotations

import math
import struct

from ....errors import UnsupportedOp
from ....shapes import Layout
from ...base import Step
from ..shader import Buffer, Dispatch
from .common import Adapter, Kernel

MAX_HEAD_DIM = 256  # two arrays of this many floats in registers and spill space an invocation


def _attention(step: Step, adapter: Adapter) -> list[Dispatch]:
    q, k, v, *mask = step.inputs
    batch, heads, queries, head_dim = q.shape
    keys, scale = k.shape[2], step.attrs["scale"]
    assert isinstance(scale, float)
    if step.output.layout.size == 0:
        return []
    if head_dim > MAX_HEAD_DIM:
        raise UnsupportedOp(step.op.name, "webgpu", f"head_dim {head_dim} is over {MAX_HEAD_DIM}")
    params = struct.pack("<2I2f", queries, keys, scale, -math.inf)
    for layout in (q.layout, k.layout, v.layout, step.output.layout):
        params += struct.pack("<4i", *layout.strides[:3], layout.offset)
    mask_layout = mask[0].layout if mask else None
    params += struct.pack("<4i", *(mask_layout.strides if mask_layout else (0, 0, 0, 0)))
    params += struct.pack("<4i", mask_layout.offset if mask_layout else 0, 0, 0, 0)
    names = ("query", "key", "value", "mask")
    buffers = [Buffer(name, "f32", operand) for name, operand in zip(names, step.inputs, strict=False)]
    buffers.append(Buffer("y", "f32", step.output, written=True))
    variables = {
        "workgroup": str(adapter.workgroup),
        "head_dim": str(head_dim),
        "mask_term": "$mask[mask_at + j * p.mask.w]" if mask else "0f",
    }
    groups = (-(-queries // adapter.workgroup), heads, batch)
    return [Dispatch("attention/attention", variables, params, tuple(buffers), groups)]


def _accepts(position: int, layout: Layout) -> bool:
    """Any mask; of query, key and value those with the head dimension contiguous."""
    return position == 3 or layout.strides[3] == 1


KERNELS = [Kernel("scaled_dot_product_attention", _attention, _accepts)]
