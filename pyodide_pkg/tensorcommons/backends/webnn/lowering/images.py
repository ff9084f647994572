"""Convolutions, pooling and resizing of images, channels before height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ....shapes import size_of
from ...base import Value
from ..builder import GraphBuilder, Operand
from .elementwise import BINARIES
from .reductions import by, extreme
from .rule import Lowering, Rule


def _framed(b: GraphBuilder, x: Operand, padding: Sequence[int]) -> Operand:
    """Zeros around height and width by (top, left, bottom, right); a negative padding takes away."""
    top, left, bottom, right = padding
    rows, columns = x.shape[2] - max(-top, 0) - max(-bottom, 0), x.shape[3] - max(-left, 0) - max(-right, 0)
    x = b.slice(x, [0, 0, max(-top, 0), max(-left, 0)], (*x.shape[:2], rows, columns), [1, 1, 1, 1])
    more = [max(side, 0) for side in padding]
    if not any(more):
        return x
    shape = (*x.shape[:2], rows + more[0] + more[2], columns + more[1] + more[3])
    return b.moved("pad", x, shape, [0, 0, more[0], more[1]], [0, 0, more[2], more[3]], value=0)


def _spread(b: GraphBuilder, x: Operand, up: Sequence[int]) -> Operand:
    """``up - 1`` zeros between neighbouring pixels."""
    batch, channels, rows, columns = x.shape
    for axis, step in ((2, up[0]), (3, up[1])):
        if step > 1:
            apart = b.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
            zeros = b.filled(0, (*x.shape[: axis + 1], step - 1, *x.shape[axis + 1 :]), x)
            shape = (*x.shape[:axis], x.shape[axis] * step, *x.shape[axis + 1 :])
            x = b.reshape(b.concat([apart, zeros], axis + 1), shape)
    shape = (batch, channels, (rows - 1) * up[0] + 1, (columns - 1) * up[1] + 1)
    return b.slice(x, [0, 0, 0, 0], shape, [1, 1, 1, 1])


def _conv2d(low: Lowering, value: Value) -> Operand:
    b, attrs = low.b, cast("dict[str, Any]", value.attrs)
    x, weight, *bias = (b.wide(each) for each in low.given(value))
    framed = _framed(b, _spread(b, x, attrs["up"]), attrs["padding"])
    shape, groups = value.spec.shape, attrs["groups"]
    if not weight.shape[1]:
        y = b.filled(0, shape, weight)
        return b.cast(b.binary("add", y, b.reshape(bias[0], (-1, 1, 1))) if bias else y, value.spec.dtype.name)
    options = {"strides": list(attrs["stride"]), "dilations": list(attrs["dilation"]), "groups": groups}
    y = b.call("conv2d", {"input": framed, "filter": weight}, shape, x.dtype, **options)
    if bias:
        y = b.binary("add", y, b.reshape(bias[0], (shape[1], 1, 1)))
    return b.cast(y, value.spec.dtype.name)


def _patches(low: Lowering, value: Value) -> Operand:
    """One place of the kernel after another, over all windows; then the places beside each other."""
    b, attrs = low.b, cast("dict[str, Any]", value.attrs)
    (x,) = low.given(value)
    framed = _framed(b, x, attrs["padding"])
    (rows, columns), stride, dilation = attrs["out"], attrs["stride"], attrs["dilation"]
    batch, channels = x.shape[:2]
    taps = []
    for i in range(attrs["kernel"][0]):
        for j in range(attrs["kernel"][1]):
            starts = [0, 0, i * dilation[0], j * dilation[1]]
            tap = b.slice(framed, starts, (batch, channels, rows, columns), [1, 1, *stride])
            taps.append(b.reshape(tap, (batch, channels, 1, rows * columns)))
    windows = b.transpose(b.concat(taps, 2), (0, 3, 1, 2))
    return b.reshape(windows, value.spec.shape)


def _pool2d(low: Lowering, value: Value) -> Operand:
    """One axis after the other: what a window holds is the same for all of the other axis."""
    b, attrs = low.b, cast("dict[str, Any]", value.attrs)
    (x,) = low.given(value)
    largest = attrs["kind"] == "max"
    y = b.wide(x)
    counts = []
    for axis in range(2):
        y, counted = _pooled(b, y, axis, attrs, largest)
        counts.append(counted)
    if not largest:
        share = np.outer(counts[0], counts[1])
        if attrs["divisor"]:
            share = np.full(share.shape, attrs["divisor"])
        with np.errstate(divide="ignore"):
            y = b.binary("mul", y, b.constant(1 / share, y.dtype))
    return b.cast(y, x.dtype)


def _pooled(b: GraphBuilder, x: Operand, axis: int, attrs: dict[str, Any], largest: bool) -> tuple[Operand, list[int]]:
    """``x`` reduced along height (0) or width (1), and how many elements each window counts."""
    kernel, stride, padding, dilation, out = (
        attrs[name][axis] for name in ("kernel", "stride", "padding", "dilation", "size")
    )
    at, size = 2 + axis, x.shape[2 + axis]

    def cut(source: Operand, start: int, count: int, step: int = 1) -> Operand:
        starts, sizes, steps = [0] * 4, list(source.shape), [1] * 4
        starts[at], sizes[at], steps[at] = start, count, step
        return b.slice(source, starts, sizes, steps)

    if attrs["adaptive"]:
        spans = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        reduce = extreme("reduceMax") if largest else by("reduceSum")
        parts = [reduce(b, cut(x, start, end - start), [at], True) for start, end in spans]
        return b.concat(parts, at), [end - start for start, end in spans]
    after = max((out - 1) * stride + dilation * (kernel - 1) + 1 - padding - size, 0)
    sides = [padding, 0, after, 0] if axis == 0 else [0, padding, 0, after]
    wide = _lowest(b, x, at, padding, after) if largest else _framed(b, x, sides)
    y = cut(wide, 0, out, stride)
    both = BINARIES["maximum" if largest else "add"]
    for tap in range(1, kernel):
        y = both(b, y, cut(wide, tap * dilation, out, stride))
    counts = []
    for i in range(out):
        places = [i * stride - padding + tap * dilation for tap in range(kernel)]
        end = size + (padding if attrs["count_include_pad"] else 0)
        first = -padding if attrs["count_include_pad"] else 0
        counts.append(sum(first <= place < end for place in places))
    return y, counts


def _lowest(b: GraphBuilder, x: Operand, axis: int, before: int, after: int) -> Operand:
    """``x`` with minus infinity before and after: no number of JSON, so no option of ``pad``."""
    parts = [x]
    for count, first in ((before, True), (after, False)):
        if count:
            shape = tuple(count if a == axis else n for a, n in enumerate(x.shape))
            parts.insert(0 if first else len(parts), b.expand(b.number(-np.inf, x), shape))
    return b.concat(parts, axis)


def _resample(low: Lowering, value: Value) -> Operand:
    """A product with the matrix that the weights make: its row i holds ``weights[i]`` from ``starts[i]`` on."""
    b, axis = low.b, cast(int, value.attrs["axis"])
    x, starts, weights = low.given(value)
    (out, taps), size = weights.shape, x.shape[axis]
    places = b.constant(np.arange(size) - np.arange(taps)[:, None], "int32")
    hits = b.binary("equal", places, b.reshape(starts, (out, 1, 1)), "uint8")
    chosen = b.where(hits, b.reshape(weights, (out, taps, 1)), b.number(0, weights))
    matrix = b.reduce("reduceSum", chosen, [1], False)
    wide = b.wide(x)
    order = [*(a for a in range(len(x.shape)) if a != axis), axis]
    rows = b.transpose(wide, order)
    flat = b.reshape(rows, (size_of(rows.shape[:-1]), size))
    y = b.reshape(b.matmul(flat, b.transpose(matrix, (1, 0))), (*rows.shape[:-1], out))
    return b.cast(b.transpose(y, [order.index(a) for a in range(len(order))]), x.dtype)


RULES: dict[str, Rule] = {"conv2d": _conv2d, "patches": _patches, "pool2d": _pool2d, "resample": _resample}
