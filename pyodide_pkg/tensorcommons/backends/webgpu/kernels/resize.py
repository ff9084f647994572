"""Weighted neighbours along one axis: ``resample.wgsl``."""

from __future__ import annotations

import struct

from ....shapes import size_of
from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, spread


def _resample(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, starts, weights = step.inputs
    axis = step.attrs["axis"]
    assert isinstance(axis, int)
    count = step.output.layout.size
    if count == 0:
        return []
    after = size_of(x.shape[axis + 1 :])
    params = struct.pack("<5I12x", count, starts.shape[0], x.shape[axis], after, weights.shape[1])
    buffers = (
        *(Buffer("x", x), Buffer("starts", starts), Buffer("weights", weights)),
        Buffer("y", step.output, "words", written=True),
    )
    groups = spread(-(-count // step.output.dtype.lanes), adapter.workgroup)
    return [Dispatch("resize/resample", {"workgroup": str(adapter.workgroup)}, params, buffers, groups)]


KERNELS = [Kernel("resample", _resample)]
