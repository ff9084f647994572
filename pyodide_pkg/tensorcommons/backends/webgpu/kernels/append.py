"""New keys and values, written into a cache: ``append.wgsl``, and ``rotated_append.wgsl`` for keys with positions."""

from __future__ import annotations

import math
import struct

from ...base import Step
from ..accessors import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, is_aligned, is_leading, spread
from .rotary import rotation


def _append(step: Step, adapter: Adapter) -> list[Dispatch]:
    """Only the new rows: the plan sees to it that ``y`` holds the cache already."""
    _, update, position, *turns = step.inputs
    _, heads, rows, width = update.shape
    if update.layout.size == 0:
        return []
    aligned = is_aligned(update) and update.layout.strides[3] == 1 and not turns
    lanes = 4 if aligned else 1
    items = update.layout.size // lanes
    layout = update.layout
    strides = (*layout.strides[:3], layout.strides[3] * lanes)
    params = struct.pack("<4I4i", items, heads, rows, width // lanes, step.output.shape[2], layout.offset,
                         position.layout.offset, position.layout.strides[0]) + struct.pack("<4i", *strides)  # fmt: skip
    access: Access = "vectors" if aligned else "elements"
    variables = {
        "workgroup": str(adapter.workgroup),
        "write": "store4_y(slot, load4_update(source / 4u));" if aligned else "store_y(slot, load_update(source));",
    }
    buffers = [Buffer("update", update, access), Buffer("position", position)]
    name = "append"
    if turns:
        name, places = "rotated_append", turns[2].layout
        params += struct.pack("<4iIif4x", *places.strides, places.offset, *turns[0].shape[::-1], math.nan)
        load = "load_update(u32(start + i32(other) * p.strides.w))"
        place = "load_positions(u32(dot(vec4<i32>(vec3<i32>(at.xyz), 1), p.places)))"
        variables["rotate"] = rotation(step.attrs, load, place)
        buffers += [Buffer(each, operand) for each, operand in zip(("cos", "sin", "positions"), turns, strict=True)]
    buffers.append(Buffer("y", step.output, access, written=True))
    return [Dispatch(f"attention/{name}", variables, params, tuple(buffers), spread(items, adapter.workgroup))]


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the batch and the heads of the cache."""
    return [axis, axis, None] if axis < 2 and is_leading(step, axis) else None


KERNELS = [
    Kernel("kv_cache_append", _append, lambda position, layout: position > 0, _cut),
    Kernel("rotated_append", _append, lambda position, layout: position in (1, 2, 5)),
]
