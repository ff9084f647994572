"""Elements chosen by number: ``take.wgsl`` and ``scatter.wgsl``."""

from __future__ import annotations

import struct

from ....shapes import Layout
from ...base import Step
from ..elements import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, merge_axes, offsets, spread, vectors
from .layout import copy

NAN = 0x7FC00000
FOUR = """let place = place_of(word);
  var four = vec4<$type_y>($nothing);
  if (place >= 0) { four = load4_x(u32(place) / 4u); }
  store4_y(word, four);"""


def _any_layout(position: int, layout: Layout) -> bool:
    return True


def _without(layout: Layout, axis: int) -> Layout:
    return Layout(
        layout.shape[:axis] + layout.shape[axis + 1 :],
        layout.strides[:axis] + layout.strides[axis + 1 :],
        layout.offset,
    )


def _in_vectors(rows: Layout, chosen: Layout, stride: int) -> bool:
    """Whether four neighbours of the result are four neighbours of x that begin at a multiple of four."""
    if not rows.shape or rows.shape[-1] % 4 or rows.strides[-1] != 1 or chosen.strides[-1] != 0:
        return False
    return not any(number % 4 for number in (*rows.strides[:-1], rows.offset, stride))


def _take(step: Step, adapter: Adapter) -> list[Dispatch]:
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
    if _in_vectors(others, chosen, x.layout.strides[axis]):
        lanes, write = 1, FOUR
        reads = writes = "vectors"
        size //= 4
        others, chosen = (
            Layout((*each.shape[:-1], each.shape[-1] // 4), (*each.strides[:-1], 4 * each.strides[-1]), each.offset)
            for each in (others, chosen)
        )
    params = struct.pack(
        "<2I4iI4x",
        *(size, bool(wrap), x.shape[axis], x.layout.strides[axis], others.offset, chosen.offset),
        NAN if is_float else 0,
    )
    params += vectors(others.shape, 2, "I") + vectors(others.strides, 2, "i") + vectors(chosen.strides, 2, "i")
    buffers = (Buffer("x", x, reads), Buffer("ids", ids), Buffer("y", step.output, writes, written=True))
    nothing = "bitcast<f32>(p.nothing)" if is_float else "$type_y()"
    variables = {
        "workgroup": str(adapter.workgroup),
        "nothing": nothing,
        "offsets": offsets(len(others.shape), 2),
        "lanes": f"{lanes}u",
        "write": write,
    }
    groups = spread(-(-size // lanes), adapter.workgroup)
    return [Dispatch("indexing/take", variables, params, buffers, groups)]


def _scatter(step: Step, adapter: Adapter) -> list[Dispatch]:
    """A copy of what stays, then the updates into it."""
    x, ids, updates = step.inputs
    axis = step.attrs["axis"]
    assert isinstance(axis, int)
    copied = copy(x, step.output, adapter)
    if ids.layout.size == 0 or not copied:
        return copied
    part = step.output.layout
    for other, size in enumerate(ids.shape):
        if other != axis:
            part = part.slice(other, 0, size)
    layouts = [ids.layout, updates.layout, part]
    adds = step.attrs["reduction"] == "add"
    fibres = merge_axes([_without(layout, axis) for layout in layouts])
    steps = [layout.strides[axis] for layout in layouts]
    ends = vectors(fibres[0].shape, 2, "I") + b"".join(vectors(layout.strides, 2, "i") for layout in fibres)
    variables = {
        "workgroup": str(adapter.workgroup),
        "store": "store_y(slot, load_y(slot) + value);" if adds else "store_y(slot, value);",
    }
    buffers = (Buffer("ids", ids), Buffer("updates", updates), Buffer("y", step.output, written=True))
    groups = spread(fibres[0].size, adapter.workgroup)
    most = min(adapter.loops - 16, ids.shape[axis])  # indices of one dispatch; the next one continues where it ends
    for first in range(0, ids.shape[axis], most):
        count = min(most, ids.shape[axis] - first)
        begins = [layout.offset + first * step for layout, step in zip(fibres[:2], steps[:2], strict=True)]
        params = struct.pack("<3Ii", fibres[0].size, len(fibres[0].shape), count, x.shape[axis])
        params += vectors([*begins, fibres[2].offset], 1, "i") + vectors(steps, 1, "i") + ends
        copied.append(Dispatch("indexing/scatter", variables, params, buffers, groups, count + 16))
    return copied


KERNELS = [Kernel("take_along_axis", _take, _any_layout), Kernel("scatter", _scatter, _any_layout)]
