"""Elements chosen by number: ``take.wgsl`` and ``scatter.wgsl``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from ....shapes import Layout
from ...base import COPY, Attributes, Operand, Step
from ..accessors import Access, Buffer
from ..shader import Dispatch
from ..windows import narrowed
from .common import Adapter, Kernel, is_leading, merge_axes, offsets, spread, vectors
from .layout import copy
from .matmul import quantized

NAN = 0x7FC00000
FOUR = """let place = place_of(word);
  if (place == -2) { return; }
  var four = vec4<$type_y>($nothing);
  if (place >= 0) { four = load4_x(u32(place) / 4u); }
  store4_y(word, four);"""
ONE = "if (place_of(word) != -2) { store_y(word, value_of_y(word)); }"


def _any_layout(position: int, layout: Layout) -> bool:
    return True


def _without(layout: Layout, axis: int) -> Layout:
    return Layout(
        layout.shape[:axis] + layout.shape[axis + 1 :],
        layout.strides[:axis] + layout.strides[axis + 1 :],
        layout.offset,
    )


def _in_vectors(rows: Layout, chosen: Layout, stride: int) -> bool:
    """Return whether four neighbours of the result are four neighbours of x that begin at a multiple of four."""
    if not rows.shape or rows.shape[-1] % 4 or rows.strides[-1] != 1 or chosen.strides[-1] != 0:
        return False
    return not any(number % 4 for number in (*rows.strides[:-1], rows.offset, stride))


def _take(step: Step, adapter: Adapter, packing: str = "", blocks: int = 0) -> list[Dispatch]:
    """Take from x, which may be a table of the block format ``packing``, of ``blocks`` blocks."""
    x, ids = step.inputs
    axis, wrap = step.attrs["axis"], step.attrs["wrap"]
    assert isinstance(axis, int)
    size = step.output.layout.size
    if size == 0:
        return []
    strides = list(x.layout.strides)
    strides[axis] = 0
    fixed = Layout(ids.shape, tuple(strides), x.layout.offset)
    _, others, chosen = merge_axes([step.output.layout, fixed, ids.layout])
    is_float = step.output.dtype.wgsl == "f32"
    lanes, write = step.output.dtype.lanes, "write_y(word);"
    reads: Access = "elements"
    writes: Access = "words"
    parts = [(0, x)] if packing else list(_parts(step, adapter))
    if len(parts) > 1:
        lanes, write, writes = 1, ONE, "elements"
    if _in_vectors(others, chosen, x.layout.strides[axis]):
        lanes, write = 1, FOUR
        reads = writes = "vectors"
        size //= 4
        others, chosen = (
            Layout((*each.shape[:-1], each.shape[-1] // 4), (*each.strides[:-1], 4 * each.strides[-1]), each.offset)
            for each in (others, chosen)
        )
    params = vectors(others.shape, 2, "I") + vectors(others.strides, 2, "i") + vectors(chosen.strides, 2, "i")
    nothing = "bitcast<f32>(p.nothing)" if is_float else "$type_y()"
    variables = {
        "workgroup": str(adapter.workgroup),
        "nothing": nothing,
        "offsets": offsets(len(others.shape), 2),
        "lanes": f"{lanes}u",
        "write": write,
    }
    groups = spread(-(-size // lanes), adapter.workgroup)
    dispatches = []
    for first, part in parts:
        buffers = (
            Buffer("x", part, reads, packing=packing),
            Buffer("ids", ids),
            Buffer("y", step.output, writes, written=True),
        )
        numbers = (size, bool(wrap), x.shape[axis], x.layout.strides[axis], part.layout.offset, chosen.offset)
        head = struct.pack("<2I4iI2iI8x", *numbers, NAN if is_float else 0, first, part.shape[axis], blocks)
        dispatches.append(Dispatch("indexing/take", variables, head + params, buffers, groups))
    return dispatches


def _quantized_rows(step: Step, adapter: Adapter) -> list[Dispatch]:
    """Rows of a quantised table: each id chooses for all columns."""
    words, ids = step.inputs
    table, blocks = quantized(step, words)
    rows, columns = ids.layout.size, table.shape[1]
    wide = Layout((rows, columns), (1, 0), ids.layout.offset)
    taken = replace(
        step,
        attrs={"axis": 0, "wrap": False},
        inputs=(table, replace(ids, layout=wide)),
        output=replace(
            step.output, layout=replace(Layout.contiguous((rows, columns)), offset=step.output.layout.offset)
        ),
    )
    return _take(taken, adapter, str(step.attrs["block_format"]), blocks)


def _cut_rows(step: Step, axis: int) -> list[int | None] | None:
    """Along the ids."""
    return [None, axis] if axis < len(step.output.shape) - 1 and is_leading(step, axis) else None


def _parts(step: Step, adapter: Adapter) -> Iterator[tuple[int, Operand]]:
    """Yield the table of a step in parts of one window each, where there can be: number of the first row, and part."""
    x, _ = step.inputs
    axis, windows = step.attrs["axis"], adapter.windows
    assert isinstance(axis, int)
    size = x.shape[axis]

    def part(first: int, end: int) -> Operand:
        return narrowed([x], [(axis, first, end)])[0]

    if windows.number(x.place) == 1 or size < 2 or windows.number(part(0, 1).place) > 1:
        yield 0, x
        return
    most = next(n for n in _falling(size) if windows.number(part(0, n).place) == 1)
    first = 0
    while first < size:
        count = min(most, size - first)
        while count > 1 and windows.number(part(first, first + count).place) > 1:
            count = count * 3 // 4
        yield first, part(first, first + count)
        first += count


def _falling(count: int) -> Iterator[int]:
    """Numbers down to 1, each a sixteenth smaller."""
    while count > 1:
        yield count
        count = count * 15 // 16
    yield 1


def _cut_take(step: Step, axis: int) -> list[int | None] | None:
    """Along what is chosen, and along the other axes."""
    if not is_leading(step, axis):
        return None
    return [None if axis == step.attrs["axis"] else axis, axis]


def _scatter(step: Step, adapter: Adapter) -> list[Dispatch]:
    """A copy of what stays, then the updates into it."""
    copied = copy(step.inputs[0], step.output, adapter)
    return [*copied, *_update(_updates(step), adapter)]


def _updates(step: Step) -> Step:
    """The second part of a scatter: into as much of the result as the indices show of the other axes."""
    x, ids, updates = step.inputs
    axis, part = step.attrs["axis"], step.output.layout
    assert isinstance(axis, int)
    for other, size in enumerate(ids.shape):
        if other != axis:
            part = part.slice(other, 0, size)
    attrs = {**step.attrs, "size": x.shape[axis], "first": 0}
    return replace(
        step,
        op=replace(step.op, name="scatter_into"),
        attrs=attrs,
        inputs=(ids, updates),
        output=replace(step.output, layout=part),
        whole=step,
    )


def _parts_of_scatter(step: Step) -> list[Step]:
    return [replace(step, op=COPY, attrs={}, inputs=step.inputs[:1]), _updates(step)]


def _cut_update(step: Step, axis: int) -> list[int | None]:
    """Along the rows that are written, each part with all indices, and along the other axes."""
    return [None, None] if axis == step.attrs["axis"] else [axis, axis]


def _moved_update(step: Step, axis: int, first: int) -> Attributes:
    """The attributes of a part that begins at ``first`` along ``axis``."""
    before = step.attrs["first"]
    assert isinstance(before, int)
    return {**step.attrs, "first": before + first} if axis == step.attrs["axis"] else step.attrs


# WGSL of what an update leaves, of ints and of floats.
STORED = {
    "assign": ("value", "value"),
    "add": ("load_y(slot) + value", "load_y(slot) + value"),
    "mul": ("load_y(slot) * value", "load_y(slot) * value"),
    "max": ("max(load_y(slot), value)", "op_maximum(load_y(slot), value)"),
    "min": ("min(load_y(slot), value)", "op_minimum(load_y(slot), value)"),
}


def _update(step: Step, adapter: Adapter) -> list[Dispatch]:
    """The updates into what is there already."""
    ids, updates = step.inputs
    axis, size, first_row = (step.attrs[name] for name in ("axis", "size", "first"))
    assert isinstance(axis, int) and isinstance(size, int) and isinstance(first_row, int)
    if ids.layout.size == 0 or step.output.layout.size == 0:
        return []
    layouts = [ids.layout, updates.layout, step.output.layout]
    dispatches = []
    combined = STORED[str(step.attrs["reduction"])][step.output.dtype.wgsl == "f32"]
    fibres = merge_axes([_without(layout, axis) for layout in layouts])
    steps = [layout.strides[axis] for layout in layouts]
    ends = vectors(fibres[0].shape, 2, "I") + b"".join(vectors(layout.strides, 2, "i") for layout in fibres)
    variables = {
        "workgroup": str(adapter.workgroup),
        "store": f"store_y(slot, {combined});",
    }
    buffers = (Buffer("ids", ids), Buffer("updates", updates), Buffer("y", step.output, written=True))
    groups = spread(fibres[0].size, adapter.workgroup)
    most = min(adapter.loops - 16, ids.shape[axis])  # indices of one dispatch; the next one continues where it ends
    for first in range(0, ids.shape[axis], most):
        count = min(most, ids.shape[axis] - first)
        begins = [layout.offset + first * step for layout, step in zip(fibres[:2], steps[:2], strict=True)]
        params = struct.pack("<3Ii", fibres[0].size, len(fibres[0].shape), count, size)
        params += struct.pack("<8i", *begins, fibres[2].offset, first_row, *steps, step.output.shape[axis]) + ends
        dispatches.append(Dispatch("indexing/scatter", variables, params, buffers, groups, count + 16))
    return dispatches


KERNELS = [
    Kernel("take_along_axis", _take, _any_layout, _cut_take),
    Kernel("quantized_rows", _quantized_rows, cut=_cut_rows),
    Kernel("scatter", _scatter, _any_layout, parts=_parts_of_scatter),
    Kernel("scatter_into", _update, _any_layout, _cut_update, True, moved=_moved_update),
]
