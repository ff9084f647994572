"""Attention of a few queries over many keys, as a decoder's step has it, for hardware: ``few_queries.wgsl``.

The queries may be rotated by their positions first (graph/rotary_fusion.py). Keys and values may be in pages
(graph/paged_attention.py), and cut into parts, which ``combine.wgsl`` adds up.
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
from .paging import place_of, room_of
from .rotary import rotation

MOST = 8  # queries
LANES = 256  # of a workgroup, and keys at a time
AHEAD = 8  # values that a lane has under way
LOADED = 16  # vectors of keys that a lane has under way
ROUND = LANES // 4  # keys that the lanes read together, four lanes each
WHOLE = 512  # keys in pages that a workgroup attends to, rather than parts of them: two dispatches take longer
PARTS = 64  # most parts
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
REDUCTIONS = {
    "largest": ("max(partial[lane], partial[lane + half])", "subgroupMax", ""),
    "sum": ("partial[lane] + partial[lane + half]", "subgroupAdd", " / 4f"),
}
# The keys that a query attends to, as far as they are a range, and one of them: in order, or in pages.
RANGE = "return vec2<i32>(0, select(p.keys, min(p.keys, at.z + p.causal), p.causal > 0));"
SEEN = "added = 0f; rows[lane] = key;"
SEEN_BY_MASK = """added = {added};
      if (added > p.minus_infinity || is_nan(added)) {{ rows[lane] = key; }}"""
PAGED_RANGE = """let place = p.mask.z + at.x * p.mask.x;
  let before = load_table(u32(place));
  let own = before + at.z;
  let end = min(min(own + 1, before + load_table(u32(place + p.mask.y))), p.keys);
  return vec2<i32>(select(0, max(own + 1 - p.window, 0), p.window > 0), end);"""
PAGED_SEEN = """added = 0f;
      let page = load_table(u32(p.mask.z + at.x * p.mask.x + (2 + key / p.size) * p.mask.y));
      if (page >= 0 && page < p.pages) {
        rows[lane] = (page * (i32(p.heads) / p.sharing) + shared_at.y) * p.size + key % p.size;
      }"""
ADDED = {"float": "load_mask(m.{0})", "bool": "select(p.minus_infinity, 0f, load_mask(m.{0}))"}
MASKED = "u32(p.mask_offset + dot(at.xyz, p.mask.xyz) + key * p.mask.w)"
WEIGHED = """let i{n} = min(i + {n}u * shares, count - 1u);
        let v{n} = load4_value(u32(value_start + max(rows[i{n}], 0) * p.v.z) / 4u + lane % wide);"""
ADD_WEIGHED = "sum += select(vec4<f32>(), weights[i{n}] * v{n}, i + {n}u * shares < count && rows[i{n}] >= 0);"
STORE = """result = select(result / total, vec4<f32>(), total == 0f);
  store4_y(u32(dot(at, p.y)) / 4u + lane, result);"""
STORE_PART = """let slot = item * (wide + 1u);
  store4_y(slot + lane, result);
  if (lane == 0u) { store4_y(slot + wide, vec4<f32>(largest, total, 0f, 0f)); }"""
EMPTY_PART = """if (first >= end) {
    if (lane == 0u) { store4_y(item * (wide + 1u) + wide, vec4<f32>(lowest, 0f, 0f, 0f)); }
    return;
  }"""


def keys_of_part(keys: int) -> int:
    """Return how many of ``keys`` in pages a workgroup attends to."""
    return keys if keys <= WHOLE else LANES * -(-keys // (LANES * PARTS))


def attention(step: Step, turns: Sequence[Operand], adapter: Adapter) -> Dispatch:
    """The dispatch of the attention; ``turns`` are cos, sin and the positions of queries that are rotated."""
    q, k, v, *more = step.inputs[: len(step.inputs) - len(turns)]
    batch, heads, queries, dims = q.shape
    paged, span = "window" in step.attrs, step.attrs.get("span")
    window, scale, first = step.attrs.get("window", 0), step.attrs["scale"], step.attrs.get("first", 0)
    assert isinstance(scale, float) and isinstance(first, int) and isinstance(window, int)
    width = v.shape[3]
    pages, _, size, _ = k.shape
    keys = room_of(more[0], size) if paged else size
    span = span if isinstance(span, int) else keys
    parts = -(-keys // span)
    items = batch * heads * queries * parts
    variables = {"empty": "", "store": STORE, "rotate": "return value;", "range": RANGE, "seen": SEEN}
    buffers = [Buffer("query", q), Buffer("key", k, "vectors"), Buffer("value", v, "vectors")]
    strides = [(*each.layout.strides[:3], each.layout.offset) for each in (q, k, v)]
    mask, mask_offset = bytes(16), 0
    if paged:
        strides[1:] = (0, 0, dims, 0), (0, 0, width, 0)  # of rows, counted over all
        mask = place_of(more[0]) + bytes(4)
        buffers.append(Buffer("table", more[0]))
        variables["range"], variables["seen"] = PAGED_RANGE, PAGED_SEEN
    elif more:
        mask, mask_offset = struct.pack("<4i", *more[0].layout.strides), more[0].layout.offset
        buffers.append(Buffer("mask", more[0]))
        variables["seen"] = SEEN_BY_MASK.format(added=ADDED[more[0].dtype.kind].replace("m.{0}", MASKED))
    if "span" in step.attrs:
        variables["empty"], variables["store"] = EMPTY_PART, STORE_PART
        strides.append((0, 0, 0, 0))  # in the order of the workgroups
    else:
        strides.append((*step.output.layout.strides[:3], step.output.layout.offset))
    places = turns[2].layout if turns else Layout((), (0, 0, 0))
    params = struct.pack("<4I", queries, heads, items, parts) + b"".join(struct.pack("<4i", *each) for each in strides)
    params += mask + struct.pack("<4i", *places.strides, places.offset)
    causal = 0 if paged or not step.attrs["causal"] else first + 1
    tables = turns[0].shape[::-1] if turns else (0, 0)
    params += struct.pack(
        "<i2f4iIif3i12x", mask_offset, float32(scale), -math.inf, heads // k.shape[1], keys, span, causal, *tables,
        math.nan, window, pages, size,
    )  # fmt: skip
    lines = [WEIGHED.format(n=n) for n in range(AHEAD)] + [ADD_WEIGHED.format(n=n) for n in range(AHEAD)]
    variables |= {
        "dims": str(dims), "ahead": str(AHEAD), "add_values": "\n        ".join(lines),
        "turned": "\n  ".join(_turned(dims // 4)), "score": "\n    ".join(_scores(dims // 4)),
        **_over_lanes(width, adapter, *REDUCTIONS),
    }  # fmt: skip
    if turns:
        load, place = "load_query(u32(start + i32(other)))", "load_positions(u32(dot(at, p.places)))"
        variables["rotate"] = rotation(step.attrs, load, place)
        buffers += [Buffer(name, operand) for name, operand in zip(("cos", "sin", "positions"), turns, strict=True)]
    buffers.append(Buffer("y", step.output, "vectors", written=True))
    return Dispatch("attention/few_queries", variables, params, tuple(buffers), spread(items, 1))


def _turned(fours: int) -> list[str]:
    """Compose the loads of a lane's dimensions of the query: every fourth vector."""
    lines = []
    for u in range(-(-fours // 4)):
        lines.append(f"let d{u} = {_clamped(u, fours)};")
        at = ", ".join(f"turned[4u * d{u} + {i}u]" for i in range(4))
        lines.append(f"let t{u} = vec4<f32>({at});")
    return lines


def _clamped(u: int, fours: int) -> str:
    place = f"quarter + {4 * u}u"
    return place if 4 * u + 3 < fours else f"min({place}, fours - 1u)"


def _scores(fours: int) -> list[str]:
    """Compose the products of a lane's dimensions with those of keys, :data:`LOADED` vectors at a time."""
    per = -(-fours // 4)
    together = max(min(LOADED // per, LANES // ROUND), 1)
    lines = []
    for start in range(0, LANES // ROUND, together):
        rounds = range(start, start + together)
        lines.append(f"if (j + {start * ROUND} < end) {{")
        for i in rounds:
            lines.append(f"  let r{i} = rows[{i * ROUND}u + lane / 4u];")
            lines.append(f"  let b{i} = u32(key_start + max(r{i}, 0) * p.k.z) / 4u;")
        lines += [f"  let k{i}_{u} = load4_key(b{i} + d{u});" for i in rounds for u in range(per)]
        for i in rounds:
            products = [
                f"dot(t{u}, k{i}_{u})" if 4 * u + 3 < fours else
                f"select(0f, dot(t{u}, k{i}_{u}), quarter + {4 * u}u < fours)"
                for u in range(per)
            ]  # fmt: skip
            place = f"quarter * apart + {i * ROUND}u + lane / 4u"
            lines.append(f"  quarters[{place}] = select(0f, {' + '.join(products)}, r{i} >= 0);")
        lines.append("}")
    return lines


def _over_lanes(width: int, adapter: Adapter, *names: str) -> dict[str, str]:
    """Return the variables of a shader that reduces values over its lanes, by memory or by subgroups of 32."""
    fast = adapter.subgroups == (32, 32) and {"subgroups", "subgroup_id"} <= adapter.features
    texts = []
    for name in names:
        both, subgroup, scale = REDUCTIONS[name]
        text = SUBGROUP_REDUCTION if fast else REDUCTION
        texts.append(text.format(name=name, both=both, subgroup=subgroup, scale=scale))
    builtins = ", @builtin(subgroup_invocation_id) own: u32, @builtin(subgroup_id) number: u32"
    return {
        "lanes": str(LANES),
        "wide": str(width // 4),
        "head": "enable subgroups;" if fast else "",
        "builtins": builtins if fast else "",
        "team": ", vec2<u32>(own, number)" if fast else "",
        "reductions": "\n".join(texts),
    }


def _combined(step: Step, adapter: Adapter) -> list[Dispatch]:
    """The dispatch that adds up the parts of an attention."""
    (x,) = step.inputs
    batch, heads, queries, parts, _ = x.shape
    layout, items = step.output.layout, batch * heads * queries
    if items == 0:
        return []
    params = struct.pack("<4I4i", queries, heads, items, parts, *layout.strides[:3], layout.offset)
    buffers = Buffer("x", x, "vectors"), Buffer("y", step.output, "vectors", written=True)
    variables = _over_lanes(step.output.shape[3], adapter, "largest")
    return [Dispatch("attention/combine", variables, params, buffers, spread(items, 1))]


def suits(step: Step, adapter: Adapter) -> bool:
    """Return whether the attention of ``step`` is one of few queries."""
    q, k, v = (step.whole or step).inputs[:3]
    output = (step.whole or step).output
    aligned = all(map(is_aligned, (k, v, output))) and q.layout.strides[3] == 1
    return not adapter.fallback and fits(q.shape, v.shape) and aligned


def fits(query: Sequence[int], value: Sequence[int]) -> bool:
    """Return whether there are few queries, and lanes for the dimensions of queries and values, in whole vectors."""
    return query[2] <= MOST and all(size % 4 == 0 and size <= 4 * LANES for size in (query[3], value[3]))


def _paged_attention(step: Step, adapter: Adapter) -> list[Dispatch]:
    turns = step.inputs[-3:] if "interleaved" in step.attrs else ()
    return [attention(step, turns, adapter)] if step.output.layout.size else []


def _accepts(position: int, layout: Layout) -> bool:
    """Any table and positions, and a query with the head dimension contiguous."""
    return position in (3, 6) or (position == 0 and layout.strides[3] == 1)


KERNELS = [
    *(
        Kernel(name, _paged_attention, _accepts, writes_any=True)
        for name in ("paged_attention", "attention_parts", "rotated_paged_attention", "rotated_attention_parts")
    ),
    Kernel("combined_attention", _combined, writes_any=True),
]
