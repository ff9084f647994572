"""Scaled dot-product attention in one pass over the keys: ``attention.wgsl``, and for hardware ``tiled.wgsl``.

A few queries on hardware take the kernel of few_queries.py.
"""

from __future__ import annotations

import math
import struct

from ....shapes import Layout
from ...base import Attributes, Step
from ..accessors import Access, Buffer
from ..shader import Dispatch, source
from . import few_queries
from .common import Adapter, Kernel, float32, is_aligned, spread
from .few_queries import ADDED

# The mask of four keys: one row for all queries, or one for each.
MASK_ROW = """let m = vec4<u32>(p.mask_offset + at.x * p.mask.x + at.y * p.mask.y + keys * p.mask.w);
  let row = vec4<f32>({x}, {y}, {z}, {w});
  scores += mat4x4<f32>(row, row, row, row);"""
MASK_ROWS = """for (var i = 0; i < 4; i++) {{
    let m = vec4<u32>(p.mask_offset + at.x * p.mask.x + at.y * p.mask.y + rows[i] * p.mask.z + keys * p.mask.w);
    scores[i] += vec4<f32>({x}, {y}, {z}, {w});
  }}"""
# Keys that the mask hides from all queries of a tile are left out, as most of a cache is for the tokens of a prompt.
SKIP = """var any = false;
    let these = vec4<u32>(min(vec4<u32>(j + x * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.keys - 1u)));
    for (var i = 0; i < 4; i++) {
      let row = p.mask_offset + at.x * p.mask.x + at.y * p.mask.y + rows[i] * p.mask.z;
      let m = vec4<u32>(row + vec4<i32>(these) * p.mask.w);
      any |= load_mask(m.x) || load_mask(m.y) || load_mask(m.z) || load_mask(m.w);
    }
    if (any) { atomicStore(&seen_by_some, 1u); }
    workgroupBarrier();
    if (lane == 0u) { is_seen = atomicExchange(&seen_by_some, 0u); }
    if (workgroupUniformLoad(&is_seen) == 0u) { continue; }"""
SKIP_MEMORY = """var<workgroup> seen_by_some: atomic<u32>;
var<workgroup> is_seen: u32;"""
AHEAD = 8  # values that tiled.wgsl has under way
VALUE = "let v{n} = {load};"
# A value beyond the keys may be infinite, and its weight of 0 would make it NaN.
ADD_VALUE = "sums += outer_product((*weight)[{n}], select(vec4<f32>(), v{n}, j + i + {n}u < end));"
STORE = {
    "vectors": "store4_y(row >> 2u, sums[i]);",
    "elements": "for (var j = 0u; j < 4u; j++) { if (d + j < p.value_dim) { store_y(row + j, sums[i][j]); } }",
}


def _load(name: str, aligned: bool, checked: bool) -> tuple[Access, str]:
    """Access and body for four neighbours of a row: one vector where rows are aligned, else elements.

    Past the end of a row are zeros; not ``checked``, vectors there are anything.
    """
    width = "p.value_dim" if name == "value" else "p.head_dim"
    if aligned:
        vector = f"load4_{name}((u32(row) + d) >> 2u)"
        return "vectors", f"return {f'select(vec4<f32>(), {vector}, d < {width})' if checked else vector};"
    lanes = (f"select(0f, load_{name}(u32(row) + d + {i}u), d + {i}u < {width})" for i in range(4))
    return "elements", f"return vec4<f32>({', '.join(lanes)});"


def _add_values(aligned: bool) -> str:
    """Weighted values of sixteen keys, as text: what a function loads is waited for at its return."""
    lines: list[str] = []
    for first in range(0, 16, AHEAD):
        group = range(first, first + AHEAD)
        for n in group:
            row = f"value_start + i32(min(j + i + {n}u, end - 1u)) * p.v.z"
            load = f"load4_value((u32({row}) + side) >> 2u)" if aligned else f"value_at({row}, side)"
            lines.append(VALUE.format(n=n, load=load))
        lines += [ADD_VALUE.format(n=n) for n in group]
    return "\n        ".join(lines)


def _covering(size: int, choices: tuple[int, ...]) -> int:
    """The smallest of the choices that holds ``size``, or the largest."""
    return next((choice for choice in choices if size <= choice), choices[-1])


def _attention(step: Step, adapter: Adapter) -> list[Dispatch]:
    q, k, v, *mask = step.inputs
    if step.output.layout.size and few_queries.suits(step, adapter):
        return [few_queries.attention(step, (), adapter)]
    batch, heads, queries, head_dim = q.shape
    value_dim = v.shape[3]
    scale = step.attrs["scale"]
    assert isinstance(scale, float)
    if step.output.layout.size == 0:
        return []
    params = struct.pack("<4I", queries, k.shape[2], head_dim, batch)
    for layout in (q.layout, k.layout, v.layout, step.output.layout):
        params += struct.pack("<4i", *layout.strides[:3], layout.offset)
    mask_layout = mask[0].layout if mask else Layout((), (0, 0, 0, 0))
    params += struct.pack("<4i", *mask_layout.strides)
    first = step.attrs.get("first", 0)
    assert isinstance(first, int)
    sharing, causal = heads // k.shape[1], first + 1 if step.attrs["causal"] else 0
    params += struct.pack(
        "<i2fIiI2I", mask_layout.offset, float32(scale), -math.inf, heads, sharing, causal, value_dim, 0
    )
    variables = {
        "common": source("attention/common"),
        "workgroup": str(adapter.workgroup),
        "mask": "",
        "skip": "",
        "skip_memory": "",
    }
    variables["add_values"] = _add_values(is_aligned(v))
    variables["wide"] = str(_covering(value_dim, (16, 32, 64)) // 4)
    # Iterations of attention.wgsl over four keys, and of tiled.wgsl over 64, with the loops inside.
    each_query = 5 if mask and mask_layout.strides[2] else 0
    loops = -(-k.shape[2] // 4) * (7 + -(-head_dim // 4) + each_query)
    alone = adapter.fallback and loops <= adapter.loops
    if adapter.fallback and not alone:
        loops = -(-k.shape[2] // 64) * (31 + -(-head_dim // 16) * 25 + each_query)
    buffers = []
    for name, operand in (("query", q), ("key", k), ("value", v)):
        access, variables[name] = _load(name, is_aligned(operand), not alone)
        buffers.append(Buffer(name, operand, access))
    if mask:
        buffers.append(Buffer("mask", mask[0]))
        text = MASK_ROWS if mask_layout.strides[2] else MASK_ROW
        if mask[0].dtype.kind == "bool" and mask_layout.strides[2]:
            variables["skip"], variables["skip_memory"] = SKIP, SKIP_MEMORY
        variables["mask"] = text.format(**{each: ADDED[mask[0].dtype.kind].format(each) for each in "xyzw"})
    writing: Access = "vectors" if is_aligned(step.output) else "elements"
    variables["store"] = STORE[writing]
    buffers.append(Buffer("y", step.output, writing, written=True))
    shader, rows, dimensions = ("attention", 4 * adapter.workgroup, 32) if alone else ("tiled", 32, 64)
    items = spread(heads * batch * -(-value_dim // dimensions), 1)
    groups = (-(-queries // rows), *items[:2])
    return [Dispatch(f"attention/{shader}", variables, params, tuple(buffers), groups, loops)]


def _accepts(position: int, layout: Layout) -> bool:
    """Any mask; of query, key and value those with the head dimension contiguous."""
    return position == 3 or layout.strides[3] == 1


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the batch, heads that have keys of their own, and queries."""
    q, k, _, *mask = step.inputs
    if axis > 2 or (axis == 1 and q.shape[1] != k.shape[1]):
        return None
    keys = axis if axis < 2 and k.shape[axis] > 1 else None
    return [axis, keys, keys, *(axis if each.shape[axis] > 1 else None for each in mask)]


def _moved(step: Step, axis: int, first: int) -> Attributes:
    """The attributes of a part that begins at ``first`` along ``axis``."""
    before = step.attrs.get("first", 0)
    assert isinstance(before, int)
    return {**step.attrs, "first": before + first} if axis == 2 else step.attrs


KERNELS = [
    Kernel("scaled_dot_product_attention", _attention, _accepts, _cut, True, moved=_moved),
]
