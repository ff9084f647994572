"""Positions in order: ``leaders.wgsl``, ``merge_runs.wgsl`` and ``searchsorted.wgsl``."""

from __future__ import annotations

import struct

from ...base import Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, along_rows, is_leading, rows_and_columns, spread

NEIGHBOURS = 8  # results of one invocation of merge_runs.wgsl
KEYS = {"f32": "float_key(x)", "i32": "int_key(x)", "u32": "x", "bool": "u32(x)"}


def _flip(step: Step) -> int:
    return 0xFFFFFFFF if step.attrs["descending"] else 0


def _leaders(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, *candidates = step.inputs
    part, k, width = (step.attrs[name] for name in ("part", "k", "width"))
    assert isinstance(part, int) and isinstance(k, int) and isinstance(width, int)
    rows, columns = rows_and_columns(x)
    size = candidates[0].shape[-1] if candidates else columns
    if rows * size * width == 0:
        return []
    part = min(part, size)
    parts = -(-size // part)
    params = struct.pack("<8I", rows, columns, size, part, parts, k, width, _flip(step))
    variables = {
        "workgroup": str(adapter.workgroup),
        "candidate": "u32(load_ids(row * p.size + c))" if candidates else "c",
        "key": KEYS[str(x.dtype.wgsl)],
    }
    buffers = [Buffer("x", x), *(Buffer("ids", each) for each in candidates), Buffer("y", step.output, written=True)]
    groups = spread(rows * parts * -(-part // 4), adapter.workgroup)
    return [Dispatch("sorting/leaders", variables, params, tuple(buffers), groups)]


def _merge_runs(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, ids = step.inputs
    rows, columns = rows_and_columns(x)
    if rows * columns == 0:
        return []
    params = struct.pack("<4I", rows, columns, step.attrs["run"], _flip(step))
    variables = {"workgroup": str(adapter.workgroup), "key": KEYS[str(x.dtype.wgsl)]}
    buffers = (Buffer("x", x), Buffer("ids", ids), Buffer("y", step.output, written=True))
    groups = spread(rows * -(-columns // NEIGHBOURS), adapter.workgroup)
    return [Dispatch("sorting/merge_runs", variables, params, buffers, groups)]


def _searchsorted(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, values = step.inputs
    size = values.layout.size
    if size == 0:
        return []
    variables = {
        "workgroup": str(adapter.workgroup),
        "key": KEYS[str(x.dtype.wgsl)],
        "before": "<" if step.attrs["side"] == "left" else "<=",
    }
    params = struct.pack("<2I8x", size, x.layout.size)
    buffers = (Buffer("x", x), Buffer("values", values), Buffer("y", step.output, written=True))
    return [Dispatch("sorting/searchsorted", variables, params, buffers, spread(size, adapter.workgroup))]


def _along_values(step: Step, axis: int) -> list[int | None] | None:
    """Along the values, each part with the whole row."""
    return [None, axis] if is_leading(step, axis) else None


KERNELS = [
    Kernel("leaders", _leaders, cut=along_rows),
    Kernel("merge_runs", _merge_runs, cut=along_rows),
    Kernel("searchsorted", _searchsorted, cut=_along_values),
]
