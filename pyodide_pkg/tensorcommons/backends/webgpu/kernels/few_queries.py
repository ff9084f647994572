"""Attention of a few queries over many keys, as a decoder's step has it, for hardware: ``few_queries.wgsl``.

The queries may be rotated by their positions first (graph/rotary_fusion.py).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from ....shapes import Layout
from ...base import Operand, Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, float32, is_aligned, spread
from .rotary import rotation

MOST = 8  # queries
LANES = 256  # of a workgroup
AHEAD = 8  # values that a lane has under way
REDUCTION = """fn {name}_over_lanes(v: f32, lane: u32) -> f32 {{
  partial[lane] = v;
  workgroupBarrier();
  for (var half = lanes / 2u; half > 0u; half /= 2u) {{
    if (lane < half) {{ partial[lane] = {both}; }}
    workgroupBarrier();
  }}
  let result = partial[0];
  workgroupBarrier();
  return result;
}}"""
SUBGROUP_REDUCTION = """fn {name}_over_lanes(v: f32, lane: u32, team: vec2<u32>) -> f32 {{
  let own = {subgroup}(v);
  if (team.x == 0u) {{ partial[team.y] = own; }}
  workgroupBarrier();
  let result = {subgroup}(partial[team.x % (lanes / 32u)]{scale});
  workgroupBarrier();
  return result;
}}"""
WEIGHED = """let i{n} = min(i + {n}u * shares, count - 1u);
        let v{n} = load4_value(u32(value_start + i32(j + i{n}) * p.v.z) / 4u + lane % wide);"""
ADD_WEIGHED = "sum += select(vec4<f32>(), weights[i{n}] * v{n}, i + {n}u * shares < count);"
ADDED = {"float": "load_mask(m.{0})", "bool": "select(p.minus_infinity, 0f, load_mask(m.{0}))"}


def attention(step: Step, turns: Sequence[Operand], adapter: Adapter) -> Dispatch:
    """The dispatch of the attention; ``turns`` are cos, sin and the positions of queries that are rotated."""
    q, k, v, *mask = step.inputs[: len(step.inputs) - len(turns)]
    batch, heads, queries, dims = q.shape
    params = struct.pack("<4I", queries, k.shape[2], heads, batch)
    for layout in (q.layout, k.layout, v.layout, step.output.layout):
        params += struct.pack("<4i", *layout.strides[:3], layout.offset)
    mask_layout = mask[0].layout if mask else Layout((), (0, 0, 0, 0))
    places = turns[2].layout if turns else Layout((), (0, 0, 0))
    params += struct.pack("<4i", *mask_layout.strides) + struct.pack("<4i", *places.strides, places.offset)
    scale, first = step.attrs["scale"], step.attrs.get("first", 0)
    assert isinstance(scale, float) and isinstance(first, int)
    params += struct.pack(
        "<i2fi2Iif", mask_layout.offset, float32(scale), -math.inf, heads // k.shape[1],
        first + 1 if step.attrs["causal"] else 0, *(turns[0].shape[::-1] if turns else (0, 0)), math.nan,
    )  # fmt: skip
    variables = {"lanes": str(LANES), "dims": str(dims), "wide": str(v.shape[3] // 4), "rotate": "return value;"}
    variables["masked"] = "let added = 0f;"
    fast = adapter.subgroups == (32, 32) and {"subgroups", "subgroup_id"} <= adapter.features
    variables["head"] = "enable subgroups;" if fast else ""
    builtins = ", @builtin(subgroup_invocation_id) own: u32, @builtin(subgroup_id) number: u32"
    variables["builtins"], variables["team"] = (builtins, ", vec2<u32>(own, number)") if fast else ("", "")
    if fast:
        texts = [
            SUBGROUP_REDUCTION.format(name="largest", subgroup="subgroupMax", scale=""),
            SUBGROUP_REDUCTION.format(name="sum", subgroup="subgroupAdd", scale=" / 4f"),
        ]
    else:
        texts = [
            REDUCTION.format(name="largest", both="max(partial[lane], partial[lane + half])"),
            REDUCTION.format(name="sum", both="partial[lane] + partial[lane + half]"),
        ]
    variables["reductions"] = "\n".join(texts)
    variables["ahead"] = str(AHEAD)
    lines = [WEIGHED.format(n=n) for n in range(AHEAD)] + [ADD_WEIGHED.format(n=n) for n in range(AHEAD)]
    variables["add_values"] = "\n        ".join(lines)
    buffers = [Buffer("query", q), Buffer("key", k, "vectors"), Buffer("value", v, "vectors")]
    if mask:
        buffers.append(Buffer("mask", mask[0]))
        place = "u32(p.mask_offset + dot(at.xyz, p.mask.xyz) + i32(key) * p.mask.w)"
        added = ADDED[mask[0].dtype.kind].replace("m.{0}", place)
        variables["masked"] = f"let added = {added};"
    if turns:
        load, place = "load_query(u32(start + i32(other)))", "load_positions(u32(dot(at, p.places)))"
        variables["rotate"] = rotation(step.attrs, load, place)
        buffers += [Buffer(name, operand) for name, operand in zip(("cos", "sin", "positions"), turns, strict=True)]
    buffers.append(Buffer("y", step.output, "vectors", written=True))
    return Dispatch("attention/few_queries", variables, params, tuple(buffers), spread(batch * heads * queries, 1))


def suits(step: Step, adapter: Adapter) -> bool:
    """Return whether the attention of ``step`` is one of few queries."""
    q, k, v = (step.whole or step).inputs[:3]
    output = (step.whole or step).output
    aligned = all(map(is_aligned, (k, v, output))) and q.layout.strides[3] == 1
    fits = q.shape[3] % 4 == 0 and q.shape[3] <= 4 * LANES and v.shape[3] <= 4 * LANES
    return not adapter.fallback and q.shape[2] <= MOST and aligned and fits


def _rotated_attention(step: Step, adapter: Adapter) -> list[Dispatch]:
    return [attention(step, step.inputs[-3:], adapter)] if step.output.layout.size else []


def _accepts(position: int, layout: Layout) -> bool:
    """Any mask and positions, a query with the head dimension contiguous, and keys and values in whole vectors."""
    if len(layout.shape) != 4 or position == 3:
        return len(layout.shape) > 2
    vectors = all(number % 4 == 0 for number in (*layout.strides[:3], layout.offset)) or position == 0
    return layout.strides[3] == 1 and vectors


KERNELS = [Kernel("rotated_attention", _rotated_attention, _accepts, writes_any=True)]
