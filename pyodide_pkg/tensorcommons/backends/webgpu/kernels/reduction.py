"""Reductions over any axes: ``reduction.wgsl``."""

from __future__ import annotations

import math
import struct

from ....shapes import Layout
from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, merge_axes, spread, vectors

START = {"sum": 0.0, "mean": 0.0, "max": -math.inf, "min": math.inf}
COMBINE = {"sum": "op_add", "mean": "op_add", "max": "op_maximum", "min": "op_minimum"}


def _reduce(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    axes = step.attrs["axes"]
    assert isinstance(axes, tuple)

    def part(chosen: list[int]) -> Layout:
        layout = Layout(tuple(x.shape[a] for a in chosen), tuple(x.layout.strides[a] for a in chosen))
        return merge_axes([layout])[0]

    kept = part([axis for axis in range(len(x.shape)) if axis not in axes])
    reduced = part([axis for axis in range(len(x.shape)) if axis in axes])
    if kept.size == 0:
        return []
    factor = 1.0 if step.op.name != "mean" else 1 / reduced.size if reduced.size else math.nan
    params = struct.pack(
        "<4Ii2fi",
        *(kept.size, reduced.size, len(kept.shape), len(reduced.shape)),
        *(x.layout.offset, START[step.op.name], factor, 0),
    )
    params += vectors(kept.shape, 2, "I") + vectors(reduced.shape, 2, "I")
    params += vectors(kept.strides, 2, "i") + vectors(reduced.strides, 2, "i")
    variables = {
        "workgroup": str(adapter.workgroup),
        "combine": COMBINE[step.op.name],
    }
    buffers = (Buffer("x", x), Buffer("y", step.output, written=True))
    return [Dispatch("reduction/reduction", variables, params, buffers, spread(kept.size, adapter.workgroup))]


KERNELS = [Kernel(name, _reduce, lambda position, layout: True) for name in START]
