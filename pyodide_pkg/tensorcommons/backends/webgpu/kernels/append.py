"""New keys and values, written into caches or pages: ``append.wgsl``. Keys may be rotated by their positions first.

Appends to two values of a layer, one step after the other, are one dispatch (:func:`joined`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from ....dtypes import float16
from ...base import Attributes, Operand, Step
from ..accessors import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, is_aligned, is_leading, spread
from .paging import place_of, room_of
from .rotary import rotation

APPENDS = ("kv_cache_append", "paged_append", "rotated_paged_append")
NAMES = ("first", "second")  # of the updates, in append.wgsl
BUFFERS = 8  # storage buffers that a shader stage has everywhere
CACHE = """let row = load_table(u32(p.table.z + i32(at.x) * p.table.x)) + i32(at.z);
  return select(-1, i32(at.x * heads + at.y) * p.size + row, row >= 0 && row < p.size);"""
PAGES = """let row = p.table.z + i32(at.x) * p.table.x;
  let token = load_table(u32(row)) + i32(at.z);
  if (i32(at.z) >= load_table(u32(row + p.table.y)) || token < 0 || token >= p.room) { return -1; }
  let page = load_table(u32(row + (2 + token / p.size) * p.table.y)) - p.first_page;
  return select(-1, (page * i32(heads) + i32(at.y)) * p.size + token % p.size, page >= 0 && page < p.pages);"""
# A new row, written where y has such a row: in vectors of 4, or by elements.
APPEND = """fn append_{name}(item: u32) {{
  let update = p.{name};
  let row = item / update.width;
  let head = row / update.rows; // of all batches
  let at = vec4<u32>(head / update.heads, head % update.heads, row % update.rows, item % update.width);
  let target_at = target_row(at, update.heads);
  if (target_at < 0) {{ return; }}
  let places = vec4<i32>(at) * update.strides;
  let start = update.offset + places.x + places.y + places.z;
  let slot = u32(target_at) * update.width + at.w;
  {write}
}}"""
WRITE = {
    "vectors": ("store4_y_{name}", "load4_{name}(u32(start + places.w) / 4u)"),
    "elements": ("store_y_{name}", "load_{name}(u32(start + places.w))"),
}
HALF = {  # what float16 cannot hold becomes NaN
    "vectors": "select({0}, vec4<f32>(p.nan), abs({0}) >= vec4<f32>(65520f))",
    "elements": "select({0}, p.nan, abs({0}) >= 65520f)",
}
ROTATED = """fn rotated_{name}(at: vec4<u32>, start: i32) -> f32 {{
  let d = at.w;
  let value = load_{name}(u32(start + i32(d) * p.{name}.strides.w));
  {rotate}
}}"""


def _append(step: Step, adapter: Adapter) -> list[Dispatch]:
    """Only the new rows: the plan sees to it that ``y`` holds the earlier ones already."""
    return [_dispatch([step], adapter)] if step.inputs[1].layout.size else []


def joined(first: Step, second: Step, adapter: Adapter) -> Dispatch | None:
    """Return the dispatch of two appends to different values at the same places; None if they are not that."""
    if {first.op.name, second.op.name} - set(APPENDS) or not first.inputs[1].layout.size:
        return None
    read, written = (each.inputs[1:] for each in (first, second)), (first.output.place, second.output.place)
    values = [{(place.kind, place.index) for place in places} for places in (
        [operand.place for operands in read for operand in operands], written,
    )]  # fmt: skip
    turned = [step for step in (first, second) if len(step.inputs) > 3]
    alike = first.inputs[2] == second.inputs[2] and first.output.shape[:3] == second.output.shape[:3]
    if not alike or not second.inputs[1].layout.size or len(turned) > 1 or len(values[1]) < 2 or values[0] & values[1]:
        return None
    dispatch = _dispatch([first, second], adapter)
    return dispatch if len(dispatch.buffers) <= BUFFERS else None


def _dispatch(steps: Sequence[Step], adapter: Adapter) -> Dispatch:
    """The dispatch of one or two appends, of which one may rotate its update."""
    params, texts, buffers = b"", list[str](), list[Buffer]()
    table = steps[0].inputs[2]
    turns: Sequence[Operand] = ()
    count = 0
    for name, step in zip(NAMES, steps, strict=False):
        _, update, _, *own = step.inputs
        _, heads, rows, width = update.shape
        layout = update.layout
        access: Access = "vectors" if is_aligned(update) and layout.strides[3] == 1 and not own else "elements"
        lanes = 4 if access == "vectors" else 1
        items = layout.size // lanes
        params += struct.pack("<4Ii12x", items, heads, rows, width // lanes, layout.offset)
        params += struct.pack("<4i", *layout.strides[:3], layout.strides[3] * lanes)
        store, value = (text.format(name=name) for text in WRITE[access])
        if own:
            turns = own
            load = f"load_{name}(u32(start + i32(other) * p.{name}.strides.w))"
            place = "load_positions(u32(dot(vec4<i32>(vec3<i32>(at.xyz), 1), p.places)))"
            texts.append(ROTATED.format(name=name, rotate=rotation(step.attrs, load, place)))
            value = f"rotated_{name}(at, start)"
        narrows = step.output.dtype is float16 and update.dtype is not float16
        write = f"let value = {value};\n  {store}(slot, {HALF[access].format('value') if narrows else 'value'});"
        texts.append(APPEND.format(name=name, write=write))
        buffers += [Buffer(name, update, access), Buffer(f"y_{name}", step.output, access, written=True)]
        count += items
    buffers.append(Buffer("table", table))
    buffers += [Buffer(each, operand) for each, operand in zip(("cos", "sin", "positions"), turns, strict=False)]
    places, tables = (turns[2].layout, turns[0].shape) if turns else (None, (0, 0))
    params += struct.pack("<4i", *((*places.strides, places.offset) if places else (0, 0, 0, 0)))
    pages, _, size, _ = steps[0].output.shape
    paged = len(table.shape) == 2
    params += place_of(table) if paged else struct.pack("<3i", table.layout.strides[0], 0, table.layout.offset)
    room, first = room_of(table, size) if paged else 0, steps[0].attrs.get("first", 0)
    params += struct.pack("<3iIifi8x", pages, size, room, *tables[::-1], math.nan, first)
    variables = {
        "workgroup": str(adapter.workgroup),
        "updates": "\n  ".join(f"{name}: Update," for name, _ in zip(NAMES, steps, strict=False)),
        "target": PAGES if paged else CACHE,
        "appends": "\n".join(texts),
        "second": "else { append_second(item - p.first.items); }" if len(steps) > 1 else "",
    }
    return Dispatch("attention/append", variables, params, tuple(buffers), spread(count, adapter.workgroup))


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the batch and the heads of the cache."""
    return [axis, axis, None] if axis < 2 and is_leading(step, axis) else None


def _cut_pages(step: Step, axis: int) -> list[int | None] | None:
    """Along the pages of the pool."""
    return [0, *[None] * (len(step.inputs) - 1)] if axis == 0 else None


def _moved(step: Step, axis: int, first: int) -> Attributes:
    """The attributes of a part whose pages begin at ``first``."""
    before = step.attrs.get("first", 0)
    assert isinstance(before, int)
    return {**step.attrs, "first": before + first}


KERNELS = [
    Kernel("kv_cache_append", _append, lambda position, layout: position > 0, _cut),
    *(
        Kernel(name, _append, lambda position, layout: position in (1, 2, 5), _cut_pages, moved=_moved)
        for name in APPENDS[1:]
    ),
]
