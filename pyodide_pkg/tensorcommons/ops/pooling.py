"""Pooling: the maximum or the mean of windows of an image, with channels before height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch
from ..shapes import size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .convolution import Pair, Size, pair, require_floats
from .layout import reshape
from .registry import apply, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (x,) = specs
    require_floats("pooling", specs)
    if len(x.shape) != 4:
        raise ShapeMismatch(f"pooling takes (batch, channels, height, width), not {x.shape}")
    rows, columns = cast(Pair, attrs["size"])
    if 0 in x.shape[2:] or min(rows, columns) < 1:
        raise ShapeMismatch(f"a window of {attrs['kernel']} does not fit into {x.shape[2:]}")
    return Spec((*x.shape[:2], rows, columns), x.dtype)


def _windows(axis: int, size: int, attrs: Attributes) -> list[tuple[int, int, int, int]]:
    """Compute for each result along one axis the first element, end, step, and the window's length with padding."""
    kernel, stride, padding, dilation, out = (
        cast(Pair, attrs[name])[axis] for name in ("kernel", "stride", "padding", "dilation", "size")
    )
    if attrs["adaptive"]:
        spans = [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]
        return [(start, end, 1, end - start) for start, end in spans]
    result = []
    for i in range(out):
        start = i * stride - padding
        end = min(start + dilation * (kernel - 1) + 1, size + padding)
        first = start if start >= 0 else start % dilation
        result.append((first, min(end, size), dilation, end - start))
    return result


def _pool2d(x: Any, **attrs: Any) -> Any:
    """Reduce one axis after the other, since the windows of an axis do not depend on the other."""
    y, counts = x.astype(np.float64), []
    for axis in range(2):
        windows = _windows(axis, x.shape[2 + axis], attrs)
        parts = [y[(..., slice(first, end, step)) + (slice(None),) * (1 - axis)] for first, end, step, _ in windows]
        if attrs["kind"] == "max":
            reduced = [part.max(2 + axis, initial=-np.inf) for part in parts]
        else:
            reduced = [part.sum(2 + axis) for part in parts]
        y = np.stack(reduced, 2 + axis)
        shown = [len(range(first, end, step)) for first, end, step, _ in windows]
        counts.append([length for *_, length in windows] if attrs["count_include_pad"] else shown)
    if attrs["kind"] == "avg":
        with np.errstate(divide="ignore", invalid="ignore"):
            y /= attrs["divisor"] or np.outer(counts[0], counts[1]).astype(np.float64)
    return y.astype(x.dtype)


def _operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count one operation for each element of each window, including padding."""
    if attrs["adaptive"]:
        return size_of(specs[0].shape)
    return size_of(result.shape) * size_of(cast(Pair, attrs["kernel"]))


POOL2D = define("pool2d", _infer, _pool2d, operations=_operations)


def _sizes(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> Pair:
    """Return rows and columns of the result; ``ceil_mode`` includes a last window that only starts inside the image."""
    result = []
    for axis in range(2):
        size, step = x.shape[2 + axis], stride[axis]
        room = size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        out = (-(-room // step) if ceil_mode else room // step) + 1
        if ceil_mode and (out - 1) * step >= size + padding[axis]:
            out -= 1
        result.append(out)
    return result[0], result[1]


def _pool(
    kind: str, x: TensorLike, kernel: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool,
    count_include_pad: bool = True, divisor: int | None = None,
) -> Tensor:  # fmt: skip
    tensor = as_tensor(x)
    if tensor.ndim not in (3, 4):
        raise ShapeMismatch(f"pooling takes (batch, channels, height, width), or without the batch, not {tensor.shape}")
    images = reshape(tensor, (1, *tensor.shape)) if tensor.ndim == 3 else tensor
    window = pair(kernel, "kernel_size")
    steps = window if stride is None else pair(stride, "stride")
    border, spacing = pair(padding, "padding", 0), pair(dilation, "dilation")
    if any(2 * b > w for b, w in zip(border, window, strict=True)):
        raise ShapeMismatch(f"padding {border} must be at most half of the window {window}")
    y = apply(
        POOL2D, images, kind=kind, kernel=window, stride=steps, padding=border, dilation=spacing, adaptive=False,
        size=_sizes(images, window, steps, border, spacing, ceil_mode),
        count_include_pad=count_include_pad, divisor=divisor or 0,
    )  # fmt: skip
    return reshape(y, y.shape[1:]) if tensor.ndim == 3 else y


def max_pool2d(
    input: TensorLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the maximum of each window of ``(batch, channels, height, width)``; NaN if an element is NaN.

    ``stride`` is the window's size by default. Padding is ignored. ``ceil_mode`` adds windows that end outside the
    image.

    Raises:
        ShapeMismatch: the window does not fit, or the padding is more than half of it.

    >>> print(tc.max_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 2).numpy())
    [[[[4.]]]]
    """
    return _pool("max", input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(
    input: TensorLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Return the mean of each window of ``(batch, channels, height, width)``.

    The sum is divided by the number of elements of the window (without padding if ``count_include_pad`` is False), or
    by ``divisor_override``.

    Raises:
        ShapeMismatch: the window does not fit, or the padding is more than half of it.

    >>> print(tc.avg_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 2).numpy())
    [[[[2.5]]]]
    """
    return _pool("avg", input, kernel_size, stride, padding, 1, ceil_mode, count_include_pad, divisor_override)


def _adaptive(kind: str, x: TensorLike, output_size: Any) -> Tensor:
    tensor = as_tensor(x)
    if tensor.ndim not in (3, 4):
        raise ShapeMismatch(f"pooling takes (batch, channels, height, width), or without the batch, not {tensor.shape}")
    images = reshape(tensor, (1, *tensor.shape)) if tensor.ndim == 3 else tensor
    wanted = (output_size, output_size) if output_size is None or isinstance(output_size, int) else output_size
    size = pair([own if o is None else o for o, own in zip(wanted, images.shape[2:], strict=True)], "output_size")
    y = apply(
        POOL2D, images, kind=kind, kernel=(1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1), adaptive=True,
        size=size, count_include_pad=False, divisor=0,
    )  # fmt: skip
    return reshape(y, y.shape[1:]) if tensor.ndim == 3 else y


def adaptive_avg_pool2d(input: TensorLike, output_size: Any) -> Tensor:
    """Return the means of windows, as many as ``output_size``: a number or a pair; ``None`` keeps the size of an axis.

    ``input`` is (batch, channels, height, width) or without the batch; the result has ``output_size`` in place of
    height and width. Window ``i`` of ``n`` goes from ``floor(i * size / n)`` to ``ceil((i + 1) * size / n)``.

    >>> print(tc.adaptive_avg_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], (1, 2)).numpy())
    [[[[2. 3.]]]]
    """
    return _adaptive("avg", input, output_size)


def adaptive_max_pool2d(input: TensorLike, output_size: Any) -> Tensor:
    """Return the maxima of the windows of :func:`adaptive_avg_pool2d`, in the same shape.

    >>> print(tc.adaptive_max_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 1).numpy())
    [[[[4.]]]]
    """
    return _adaptive("max", input, output_size)
