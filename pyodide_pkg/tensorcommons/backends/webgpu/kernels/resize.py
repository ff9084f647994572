"""Weighted neighbours along one axis: ``resample.wgsl``."""

from __future__ import annotations

import struct

from ....shapes import size_of
from ...base import Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, is_leading, spread


def _resample(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, starts, weights = step.inputs
    axis = step.attrs["axis"]
    assert isinstance(axis, int)
    count = step.output.layout.size
    if count == 0:
        return []
    after = size_of(x.shape[axis + 1 :])
    taps = weights.shape[1]
    most = max(min((adapter.loops - 16) // step.output.dtype.lanes, taps), 1)  # of one dispatch; the next adds its own
    buffers = (
        *(Buffer("x", x), Buffer("starts", starts), Buffer("weights", weights)),
        Buffer("y", step.output, "words", written=True),
    )
    groups = spread(-(-count // step.output.dtype.lanes), adapter.workgroup)
    dispatches = []
    for first in range(0, max(taps, 1), most):
        end = min(first + most, taps)
        params = struct.pack("<7I4x", count, starts.shape[0], x.shape[axis], after, taps, first, end)
        before = "load_y(i)" if first else "0f"
        variables = {"workgroup": str(adapter.workgroup), "before": before}
        loops = (end - first) * step.output.dtype.lanes
        dispatches.append(Dispatch("resize/resample", variables, params, buffers, groups, loops))
    return dispatches


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Along the axis that is resampled each place has its own start and weights."""
    if not is_leading(step, axis):
        return None
    return [None, 0, 0] if axis == step.attrs["axis"] else [axis, None, None]


KERNELS = [Kernel("resample", _resample, cut=_cut)]
