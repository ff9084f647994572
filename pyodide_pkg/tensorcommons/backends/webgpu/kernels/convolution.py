"""Convolutions without unfolding: ``conv2d.wgsl``, and ``depthwise.wgsl`` where a group has one channel; and windows as
rows for a product, ``patches.wgsl``."""

from __future__ import annotations

import struct
from typing import Any, cast

from ...base import Step
from ..elements import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, spread

CHANNELS = 8  # of y an invocation of conv2d.wgsl


def _conv2d(step: Step, adapter: Adapter) -> list[Dispatch]:
    x, weight, *bias = step.inputs
    batch, out, rows, columns = step.output.shape
    if step.output.layout.size == 0:
        return []
    groups, stride, padding, dilation, up = (
        cast(Any, step.attrs[name]) for name in ("groups", "stride", "padding", "dilation", "up")
    )
    own = out // groups
    params = struct.pack("<6I", rows * columns, columns, own, groups, batch, weight.shape[1])
    params += struct.pack("<2I2i2i2i2i2i", *weight.shape[2:], *stride, *padding[:2], *dilation, *up, *x.shape[2:])
    params += struct.pack("<2i", x.layout.offset, weight.layout.offset)
    params += struct.pack("<4i4i", *x.layout.strides, *weight.layout.strides)
    variables = {"workgroup": str(adapter.workgroup), "bias": "load_bias(k)" if bias else "0f"}
    buffers = [Buffer("x", x), Buffer("weight", weight), *(Buffer("bias", each) for each in bias)]
    buffers.append(Buffer("y", step.output, written=True))
    tiles = 1 if own == 1 else -(-own // CHANNELS)
    items = -(-rows * columns // 4) * tiles * groups * batch
    name = "convolution/depthwise" if own == 1 else "convolution/conv2d"
    return [Dispatch(name, variables, params, tuple(buffers), spread(items, adapter.workgroup))]


def _patches(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    kernel, stride, padding, dilation, out = (
        cast(Any, step.attrs[name]) for name in ("kernel", "stride", "padding", "dilation", "out")
    )
    if step.output.layout.size == 0:
        return []
    taps = kernel[0] * kernel[1] if adapter.fallback else 1
    items = step.output.layout.size // taps
    params = struct.pack("<4I8i", items, x.shape[1], *out, *kernel, *stride, *padding[:2], *dilation)
    params += struct.pack("<4i4i", *x.shape[2:], x.layout.offset, taps, *x.layout.strides)
    buffers = (Buffer("x", x), Buffer("y", step.output, written=True))
    groups = spread(items, adapter.workgroup)
    return [Dispatch("convolution/patches", {"workgroup": str(adapter.workgroup)}, params, buffers, groups)]


KERNELS = [
    Kernel("patches", _patches, lambda position, layout: True),
    Kernel("conv2d", _conv2d, lambda position, layout: position < 2),
]
