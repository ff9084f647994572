"""Windows of an image: ``pool2d.wgsl``."""

from __future__ import annotations

import struct
from typing import Any, cast

from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, float32, spread


def _pool2d(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    count = step.output.layout.size
    if count == 0:
        return []
    kernel, stride, padding, dilation = (
        cast(Any, step.attrs[name]) for name in ("kernel", "stride", "padding", "dilation")
    )
    params = struct.pack("<2I2i2i2i2i2i2i", count, x.shape[1], *step.output.shape[2:], *x.shape[2:], *kernel, *stride, *padding, *dilation)  # fmt: skip # noqa: E501
    flags = (step.attrs["adaptive"], step.attrs["kind"] == "avg", step.attrs["count_include_pad"])
    params += struct.pack("<3If", *(bool(flag) for flag in flags), float32(cast(float, step.attrs["divisor"])))
    params += struct.pack("<i4x4i", x.layout.offset, *x.layout.strides)
    buffers = (Buffer("x", x), Buffer("y", step.output, "words", written=True))
    groups = spread(-(-count // step.output.dtype.lanes), adapter.workgroup)
    return [Dispatch("pooling/pool2d", {"workgroup": str(adapter.workgroup)}, params, buffers, groups)]


KERNELS = [Kernel("pool2d", _pool2d, lambda position, layout: True)]
