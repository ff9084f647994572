"""Convolutions, pooling and resizing of images, channels before height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ....shapes import size_of
from ...base import Value
from ..builder import GraphBuilder, Operand
from .context import LoweringContext, Rule
from .elementwise import BINARIES, Binary

FEW = 8  # elements of a pooling window that are taken one by one
MATRIX = 2**22  # elements of the matrix that resizes an axis
PADDED = 2**20  # elements with their padding, from which on most of them must not be padding


def _framed(b: GraphBuilder, x: Operand, padding: Sequence[int], fill: float = 0.0) -> Operand:
    """A number around height and width by (top, left, bottom, right); a negative padding takes away."""
    top, left, bottom, right = padding
    rows, columns = x.shape[2] - max(-top, 0) - max(-bottom, 0), x.shape[3] - max(-left, 0) - max(-right, 0)
    x = b.slice(x, [0, 0, max(-top, 0), max(-left, 0)], (*x.shape[:2], rows, columns), [1, 1, 1, 1])
    more = [max(side, 0) for side in padding]
    if not any(more):
        return x
    shape = (*x.shape[:2], rows + more[0] + more[2], columns + more[1] + more[3])
    _check_growth(b, x, shape)
    return b.moved("pad", x, shape, [0, 0, more[0], more[1]], [0, 0, more[2], more[3]], value=fill)


def _check_growth(b: GraphBuilder, x: Operand, shape: Sequence[int]) -> None:
    """Refuse what would be padding for the most part, and large: NumPy computes it without."""
    if size_of(shape) > max(PADDED, 8 * x.size):
        raise b.refuse(f"{x.size:,} elements would be {size_of(shape):,} with their padding")


def _spread(b: GraphBuilder, x: Operand, up: Sequence[int]) -> Operand:
    """``up - 1`` zeros between neighbouring pixels."""
    batch, channels, rows, columns = x.shape
    for axis, step in ((2, up[0]), (3, up[1])):
        if step > 1:
            apart = b.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
            zeros = b.filled(0, (*x.shape[: axis + 1], step - 1, *x.shape[axis + 1 :]), x)
            shape = (*x.shape[:axis], x.shape[axis] * step, *x.shape[axis + 1 :])
            _check_growth(b, x, shape)
            x = b.reshape(b.concat([apart, zeros], axis + 1), shape)
    shape = (batch, channels, (rows - 1) * up[0] + 1, (columns - 1) * up[1] + 1)
    return b.slice(x, [0, 0, 0, 0], shape, [1, 1, 1, 1])


def _conv2d(low: LoweringContext, value: Value) -> Operand:
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


def _patches(low: LoweringContext, value: Value) -> Operand:
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


def _pool2d(low: LoweringContext, value: Value) -> Operand:
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
        share = np.outer(counts[0], counts[1]).astype(np.float64)
        if attrs["divisor"]:
            share = np.full(share.shape, float(attrs["divisor"]))
        with np.errstate(divide="ignore"):
            y = b.binary("mul", y, b.constant(1 / share, y.dtype))
    return b.cast(y, x.dtype)


def _pooled(b: GraphBuilder, x: Operand, axis: int, attrs: dict[str, Any], largest: bool) -> tuple[Operand, Any]:
    """``x`` reduced along height (0) or width (1), and how many elements each window counts."""
    kernel, stride, padding, dilation, out = (
        attrs[name][axis] for name in ("kernel", "stride", "padding", "dilation", "size")
    )
    at, size = 2 + axis, x.shape[2 + axis]
    both = BINARIES["maximum" if largest else "add"]
    if attrs["adaptive"]:
        return _adaptive(b, x, at, out, both, largest)
    after = max((out - 1) * stride + dilation * (kernel - 1) + 1 - padding - size, 0)
    sides = [padding, 0, after, 0] if axis == 0 else [0, padding, 0, after]
    wide = _framed(b, x, sides, -np.inf if largest else 0.0)
    if kernel <= FEW:
        y = _cut(b, wide, at, 0, out, stride)
        for tap in range(1, kernel):
            y = both(b, y, _cut(b, wide, at, tap * dilation, out, stride))
    else:
        y = _cut(b, _windows(b, wide, at, kernel, dilation, both), at, 0, out, stride)
    end = size + (padding if attrs["count_include_pad"] else 0)
    first = -padding if attrs["count_include_pad"] else 0
    starts = np.arange(out) * stride - padding
    taps = np.minimum((end - 1 - starts) // dilation, kernel - 1) - np.maximum(-((starts - first) // dilation), 0) + 1
    return y, np.maximum(taps, 0)


def _cut(b: GraphBuilder, x: Operand, axis: int, start: int, count: int, step: int = 1) -> Operand:
    starts, sizes, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    starts[axis], sizes[axis], steps[axis] = start, count, step
    return b.slice(x, starts, sizes, steps)


def _windows(b: GraphBuilder, x: Operand, axis: int, length: int, step: int, both: Binary) -> Operand:
    """Every window of ``length`` elements, ``step`` apart, along an axis, by doubling: the nodes are as many as the
    length has binary digits. Nothing is subtracted, so infinities and NaN stay in their windows."""
    result, place, power, width = None, 0, x, 1
    count = x.shape[axis] - (length - 1) * step
    while True:
        if length & width:
            part = _cut(b, power, axis, place * step, count)
            result = part if result is None else both(b, result, part)
            place += width
        if 2 * width > length:
            assert result is not None
            return result
        left = power.shape[axis] - width * step
        power = both(b, _cut(b, power, axis, 0, left), _cut(b, power, axis, width * step, left))
        width *= 2


def _adaptive(b: GraphBuilder, x: Operand, axis: int, out: int, both: Binary, largest: bool) -> tuple[Operand, Any]:
    """Windows of one length, or of one element more, wherever they begin."""
    size = x.shape[axis]
    starts = np.arange(out) * size // out
    ends = -(-(np.arange(out) + 1) * size // out)
    length = int((ends - starts).min())
    shape = tuple(out if a == axis else n for a, n in enumerate(x.shape))

    def at(source: Operand, places: Any) -> Operand:
        operands = {"input": source, "indices": b.constant(places, "int32")}
        return b.call("gather", operands, shape, source.dtype, axis=axis)

    y = at(_windows(b, x, axis, length, 1, both), starts)
    longer = both(b, y, at(x, ends - 1))
    if not largest:
        more = (ends - starts > length).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        longer = b.where(b.constant(more, "uint8"), longer, y)
    return (longer if (ends - starts).max() > length else y), ends - starts


def _resample(low: LoweringContext, value: Value) -> Operand:
    """A product with the matrix whose row i holds ``weights[i]`` from ``starts[i]`` on; where that would be large, the
    neighbours of each result by themselves, times their weights."""
    b, axis = low.b, cast(int, value.attrs["axis"])
    x, starts, weights = low.given(value)
    (out, taps), size = weights.shape, x.shape[axis]
    order = [axis, *(a for a in range(len(x.shape)) if a != axis)]
    wide = b.transpose(b.wide(x), order)
    rows = b.reshape(wide, (size, size_of(wide.shape[1:])))
    if out * size <= MATRIX:
        y = b.matmul(_matrix(b, starts, weights, size), rows)
    else:
        places = b.binary("add", b.reshape(starts, (out, 1)), b.constant(np.arange(taps)[None], "int32"))
        operands = {"input": rows, "indices": b.reshape(places, (out * taps,))}
        found = b.call("gather", operands, (out * taps, rows.shape[1]), rows.dtype, axis=0)
        near = b.reshape(found, (out, taps, rows.shape[1]))
        y = b.reduce("reduceSum", b.binary("mul", near, b.reshape(weights, (out, taps, 1))), [1], False)
    y = b.reshape(y, (out, *wide.shape[1:]))
    return b.cast(b.transpose(y, [order.index(a) for a in range(len(order))]), x.dtype)


def _matrix(b: GraphBuilder, starts: Operand, weights: Operand, size: int) -> Operand:
    """(out, size): the weights of each result at its neighbours' places, 0 elsewhere."""
    out, taps = weights.shape
    place = b.binary("sub", b.constant(np.arange(size)[None], "int32"), b.reshape(starts, (out, 1)))
    inside = b.binary("logicalAnd", b.binary("greaterOrEqual", place, b.number(0, place), "uint8"),
                      b.binary("lesser", place, b.number(taps, place), "uint8"))  # fmt: skip
    row = b.constant(np.arange(out)[:, None] * taps, "int32")
    safe = b.binary("add", b.where(inside, place, b.number(0, place)), row)
    operands = {"input": b.reshape(weights, (out * taps,)), "indices": safe}
    return b.where(inside, b.call("gather", operands, (out, size), weights.dtype, axis=0), b.number(0, weights))


RULES: dict[str, Rule] = {"conv2d": _conv2d, "patches": _patches, "pool2d": _pool2d, "resample": _resample}
