"""Windows of an image: ``pool2d.wgsl``."""

from __future__ import annotations

import struct
from typing import Any, cast

from ...base import Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, float32, is_leading, spread


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
    words, workgroup, shader = -(-count // step.output.dtype.lanes), adapter.workgroup, "pooling/pool2d"
    rows, columns = _largest_window(step)
    loops = step.output.dtype.lanes * rows * (2 + columns)
    if loops > adapter.loops:  # a workgroup a word
        lanes = min(adapter.invocations, 1024)
        shader, loops = "pooling/pool2d_wide", step.output.dtype.lanes * (-(-rows * columns // (2 * lanes)) + 16)
        return [Dispatch(shader, {"workgroup": str(lanes)}, params, buffers, spread(words, 1), loops)]
    return [Dispatch(shader, {"workgroup": str(workgroup)}, params, buffers, spread(words, workgroup), loops)]


def _largest_window(step: Step) -> tuple[int, int]:
    """Rows and columns of the image that a result sees at most."""
    size, out = step.inputs[0].shape[2:], step.output.shape[2:]
    kernel = cast(Any, step.attrs["kernel"])
    if step.attrs["adaptive"]:
        sides = [min(-(-image // number) + 1, image) for image, number in zip(size, out, strict=True)]
    else:
        sides = [min(taps, image) for taps, image in zip(kernel, size, strict=True)]
    return sides[0], sides[1]


def _cut(step: Step, axis: int) -> list[int | None] | None:
    """Images and channels are independent."""
    return [axis] if axis < 2 and is_leading(step, axis) else None


KERNELS = [Kernel("pool2d", _pool2d, lambda position, layout: True, _cut)]
