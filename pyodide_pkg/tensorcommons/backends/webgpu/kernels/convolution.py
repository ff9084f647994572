"""Convolutions without unfolding: ``conv2d.wgsl``, and ``depthwise.wgsl`` where a group has one channel; and windows as
rows for a product, ``patches.wgsl``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, cast

from ...base import Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, along_first, spread

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
    name, place = ("depthwise", "start + j") if own == 1 else ("conv2d", "start + first + j")
    buffers = [Buffer("x", x), Buffer("weight", weight), *(Buffer("bias", each) for each in bias)]
    buffers.append(Buffer("y", step.output, written=True))
    tiles = 1 if own == 1 else -(-own // CHANNELS)
    items = spread(-(-rows * columns // 4) * tiles * groups * batch, adapter.workgroup)
    dispatches: list[Dispatch] = []
    for (channel, a, b), (count, *kernel), loops in _windows(weight.shape[1:], adapter.loops):
        params = struct.pack("<6I", rows * columns, columns, own, groups, batch, weight.shape[1])
        corner = [side - first * apart for side, first, apart in zip(padding[:2], (a, b), dilation, strict=True)]
        params += struct.pack("<2I2i2i2i2i2i", *kernel, *stride, *corner, *dilation, *up, *x.shape[2:])
        w = weight.layout
        begin = w.offset + channel * w.strides[1] + a * w.strides[2] + b * w.strides[3]
        params += struct.pack("<2i", x.layout.offset + channel * x.layout.strides[1], begin)
        params += struct.pack("<4i4iI12x", *x.layout.strides, *w.strides, count)
        before = f"load_y({place})" if dispatches else "load_bias(k)" if bias else "0f"
        variables = {"workgroup": str(adapter.workgroup), "bias": before}
        dispatches.append(Dispatch(f"convolution/{name}", variables, params, tuple(buffers), items, loops))
    return dispatches


def _windows(sizes: Sequence[int], loops: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """Cut (channels, rows, columns) of a kernel so that each part takes at most ``loops`` iterations: where it begins,
    its sizes, and its iterations. What an earlier part gives is added to by the later ones."""
    columns = min(sizes[2], loops - 4)
    rows = min(sizes[1], (loops - 2) // (2 + columns))
    channels = min(sizes[0], loops // (2 + rows * (2 + columns)))
    most = (max(channels, 1), max(rows, 1), max(columns, 1))
    for begin in product(*(range(0, max(size, 1), step) for size, step in zip(sizes, most, strict=True))):
        part = tuple(min(m, size - at) for m, size, at in zip(most, sizes, begin, strict=True))
        yield begin, part, part[0] * (2 + part[1] * (2 + part[2]))


def _patches(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    kernel, stride, padding, dilation, out = (
        cast(Any, step.attrs[name]) for name in ("kernel", "stride", "padding", "dilation", "out")
    )
    if step.output.layout.size == 0:
        return []
    taps = kernel[0] * kernel[1] if adapter.fallback and kernel[0] * kernel[1] <= adapter.loops else 1
    items = step.output.layout.size // taps
    params = struct.pack("<4I8i", items, x.shape[1], *out, *kernel, *stride, *padding[:2], *dilation)
    params += struct.pack("<4i4i", *x.shape[2:], x.layout.offset, taps, *x.layout.strides)
    buffers = (Buffer("x", x), Buffer("y", step.output, written=True))
    groups = spread(items, adapter.workgroup)
    return [Dispatch("convolution/patches", {"workgroup": str(adapter.workgroup)}, params, buffers, groups, taps)]


KERNELS = [
    Kernel("patches", _patches, lambda position, layout: True, along_first),
    Kernel("conv2d", _conv2d, lambda position, layout: position < 2, along_first),
]
