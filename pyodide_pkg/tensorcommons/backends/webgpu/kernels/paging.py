"""Keys and values in pages: ``paging/rows.wgsl`` reads them in order, ``paging/mask.wgsl`` makes their mask.

append.py writes them, and few_queries.py attends to them where they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from ....shapes import Layout
from ...base import Operand, Step
from ..accessors import Access, Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, is_aligned, spread

PAGES = 2  # first column of a table that has pages, see ops/paging.py
VALUE = "fn value_of_y(i: u32) -> $type_y { return found(i); }"


def room_of(table: Operand, size: int) -> int:
    """Count the tokens that the pages of a row of ``table``, of ``size`` tokens each, have room for."""
    return (table.shape[1] - PAGES) * size


def place_of(table: Operand) -> bytes:
    """Pack the strides of the rows and columns of ``table``, and its offset."""
    return struct.pack("<3i", *table.layout.strides, table.layout.offset)


def _rows(step: Step, adapter: Adapter) -> list[Dispatch]:
    pool, table = step.inputs
    if step.output.layout.size == 0:
        return []
    pages, heads, size, width = pool.shape
    vectors = is_aligned(step.output)
    lanes = 4 if vectors else step.output.dtype.lanes
    count = -(-step.output.layout.size // lanes)
    params = struct.pack("<4I", count, heads, room_of(table, size), width // 4 if vectors else width)
    params += place_of(table) + struct.pack("<iI", pages, size)
    variables = {
        "workgroup": str(adapter.workgroup),
        "type": "vec4<$type_y>" if vectors else "$type_y",
        "load": "load4_x" if vectors else "load_x",
        "value": "" if vectors else VALUE,
        "store": "store4_y(item, found(item));" if vectors else "write_y(item);",
    }
    reading: Access = "vectors" if vectors else "elements"
    writing: Access = "vectors" if vectors else "words"
    buffers = Buffer("x", pool, reading), Buffer("table", table), Buffer("y", step.output, writing, written=True)
    return [Dispatch("paging/rows", variables, params, buffers, spread(count, adapter.workgroup))]


def _mask(step: Step, adapter: Adapter) -> list[Dispatch]:
    (table,), (_, _, queries, room) = step.inputs, step.output.shape
    count = step.output.layout.size
    window = step.attrs["window"]
    assert isinstance(window, int)
    if count == 0:
        return []
    params = struct.pack("<3Ii", count, queries, room, window) + place_of(table)
    variables = {"workgroup": str(adapter.workgroup)}
    buffers = Buffer("table", table), Buffer("y", step.output, "words", written=True)
    groups = spread(-(-count // step.output.dtype.lanes), adapter.workgroup)
    return [Dispatch("paging/mask", variables, params, buffers, groups)]


def _cut_rows(step: Step, axis: int) -> Sequence[int | None] | None:
    """Along the rows of the table."""
    return [None, 0] if axis == 0 else None


def _cut_mask(step: Step, axis: int) -> Sequence[int | None] | None:
    return [0] if axis == 0 else None


def _accepts_table(position: int, layout: Layout) -> bool:
    return len(layout.shape) == 2


KERNELS = [
    Kernel("paged_rows", _rows, _accepts_table, _cut_rows),
    Kernel("paged_mask", _mask, _accepts_table, _cut_mask),
]
