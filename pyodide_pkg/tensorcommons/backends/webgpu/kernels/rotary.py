"""Rotary position embedding: ``rotary_embedding.wgsl``."""

from __future__ import annotations

import math
import struct

from ....shapes import Layout
from ...base import Attributes, Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, is_leading, merge_axes, offsets, spread, vectors

# The element d of a row, as rotary_embedding.wgsl rotates it.
ROTATE = """if (d >= 2u * p.half) {{ return value; }}
  let position = {place};
  if (position < 0 || position >= p.table_rows) {{ return p.nan; }}
  {pair}
  let row = u32(position) * p.half + k;
  let turned = {load} * load_sin(row);
  return value * load_cos(row) + select(-turned, turned, second);"""
HALVES = "let k = d % p.half; let second = d >= p.half; let other = select(d + p.half, k, second);"
INTERLEAVED = "let k = d / 2u; let second = d % 2u == 1u; let other = d ^ 1u;"


def rotation(attrs: Attributes, load: str, place: str) -> str:
    """Compose what rotates an element, from what loads the other element of its pair, and its position."""
    return ROTATE.format(load=load, place=place, pair=INTERLEAVED if attrs["interleaved"] else HALVES)


def _rotary(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, cos, sin, *positions = step.inputs
    count = step.output.layout.size
    if count == 0:
        return []
    lead = x.shape[:-1]
    index = Layout(lead, (*([0] * (len(lead) - 1)), 1))
    own = Layout(lead, x.layout.strides[:-1], x.layout.offset)
    _, rows, places = merge_axes([Layout.contiguous(lead), own, positions[0].layout if positions else index])
    params = struct.pack("<3Ii", count, x.shape[-1], cos.shape[1], cos.shape[0])
    places_at = (rows.offset, places.offset, x.layout.strides[-1])
    params += struct.pack("<I4x3if8x", bool(step.attrs["interleaved"]), *places_at, math.nan)
    params += vectors(rows.shape, 2, "I") + vectors(rows.strides, 2, "i") + vectors(places.strides, 2, "i")
    variables = {
        "workgroup": str(adapter.workgroup),
        "offsets": offsets(len(rows.shape), 2),
        "position": "load_positions(u32(at.y))" if positions else "at.y",
    }
    buffers = [Buffer("x", x), Buffer("cos", cos), Buffer("sin", sin)]
    buffers += [Buffer("positions", each) for each in positions]
    buffers.append(Buffer("y", step.output, "words", written=True))
    groups = spread(-(-count // step.output.dtype.lanes), adapter.workgroup)
    return [Dispatch("rotary/rotary_embedding", variables, params, tuple(buffers), groups)]


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the axes before the head dimension; without positions, not along that of the positions."""
    last = len(step.output.shape) - (1 if len(step.inputs) > 3 else 2)
    return [axis, None, None, axis][: len(step.inputs)] if axis < last and is_leading(step, axis) else None


KERNELS = [Kernel("rotary_embedding", _rotary, lambda position, layout: position in (0, 3), _cut)]
