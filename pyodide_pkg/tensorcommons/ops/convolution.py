"""Convolutions (cross-correlations, as usual in machine learning), with channels before height and width.

With many output channels the windows are copied to the rows of a matrix (im2col), which is then multiplied: on a
software adapter a 3 x 3 convolution of 64 by 64 channels took 0.3 of the direct kernel's time, one of 3 by 16 channels
2.8. Windows that do not overlap (patches of an image, 1 x 1) are a permutation of the image. Convolutions with few
channels, with groups, or with windows of more than :data:`MOST` bytes are computed directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from .. import dtypes
from ..backends.base import Attribute, Attributes, Spec
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..shapes import Shape, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import permute_dims, reshape
from .matmul import linear
from .registry import apply, define

WIDE = 32  # output channels from which im2col is faster
MOST = 2**26  # bytes of the windows for im2col
Pair = tuple[int, int]
Size = int | Sequence[int]


def pair(value: Size, name: str, low: int = 1) -> Pair:
    """Return ``value`` for height and width. Raises ShapeMismatch unless it is one or two int32 of at least ``low``."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) == 1:
        both = (both[0], both[0])
    if len(both) != 2 or any(int(each) != each or not low <= each < 2**31 for each in both):
        raise ShapeMismatch(f"{name} must be one or two integers from {low} to 2 ** 31 - 1, not {quoted(value)}")
    return int(both[0]), int(both[1])


def require_floats(op: str, specs: Sequence[Spec]) -> None:
    """Raise UnsupportedDtype unless all operands are float32, or all are float16."""
    kinds = {spec.dtype for spec in specs}
    if len(kinds) != 1 or not kinds <= {dtypes.float32, dtypes.float16}:
        raise UnsupportedDtype(f"{op} takes all float32 or all float16, not {', '.join(map(str, kinds))}")


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, weight, *bias = specs
    require_floats("a convolution", specs)
    groups, stride, padding, dilation, up = (
        cast(Any, attrs[name]) for name in ("groups", "stride", "padding", "dilation", "up")
    )
    if len(x.shape) != 4 or len(weight.shape) != 4:
        raise ShapeMismatch(f"a convolution takes (batch, channels, ...) and weights, not {x.shape} and {weight.shape}")
    out, channels, *kernel = weight.shape
    if groups < 1 or out % groups or x.shape[1] != channels * groups:
        raise ShapeMismatch(f"{x.shape[1]} channels in {groups} groups are incompatible with a weight {weight.shape}")
    if bias and bias[0].shape != (out,):
        raise ShapeMismatch(f"bias {bias[0].shape} does not match {out} output channels")
    sizes = []
    for axis in range(2):
        spread = (x.shape[2 + axis] - 1) * up[axis] + 1 + padding[axis] + padding[2 + axis]
        sizes.append((spread - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1)
    if 0 in kernel or min(sizes) < 1 or 0 in x.shape[2:]:
        raise ShapeMismatch(f"a kernel of {tuple(kernel)} does not fit into {x.shape[2:]} with padding {padding}")
    return Spec((x.shape[0], out, *sizes), x.dtype)


def _conv2d(
    x: Any, weight: Any, bias: Any = None, *,
    stride: Pair, padding: Shape, dilation: Pair, groups: int, up: Pair,
) -> Any:  # fmt: skip
    """Accumulate over the taps of the kernel in float64, without a padded copy of the input."""
    batch, _, *size = x.shape
    out, channels, *kernel = weight.shape
    shape = [
        ((size[a] - 1) * up[a] + padding[a] + padding[2 + a] - dilation[a] * (kernel[a] - 1)) // stride[a] + 1
        for a in range(2)
    ]
    wide = x.reshape(batch, groups, channels, *size).astype(np.float64)
    y = np.zeros((batch, groups, out // groups, *shape))
    w = weight.reshape(groups, out // groups, channels, *kernel).astype(np.float64)
    for i, j in np.ndindex(*kernel):
        to, source = zip(
            *(
                _reached(shape[a], size[a], tap * dilation[a] - padding[a], stride[a], up[a])
                for a, tap in enumerate((i, j))
            ),
            strict=True,
        )
        taps = wide[(..., *source)]
        part = y[(..., *to)]
        columns = taps.reshape(*taps.shape[:3], taps.shape[3] * taps.shape[4])
        part += (w[..., i, j] @ columns).reshape(part.shape)
    y = y.reshape(batch, out, *shape)
    return (y if bias is None else y + bias[:, None, None]).astype(x.dtype)


def _reached(out: int, size: int, offset: int, stride: int, up: int = 1) -> tuple[slice, slice]:
    """Find the results ``i`` along an axis for which ``i * stride + offset`` is ``up`` times the index of an element.

    Returns the slices of these results and of the elements.
    """
    at = np.arange(out) * stride + offset
    reached = np.flatnonzero((at >= 0) & (at <= (size - 1) * up) & (at % up == 0))
    if not reached.size:
        return slice(0), slice(0)
    first, last = int(reached[0]), int(reached[-1])
    apart = int(reached[1]) - first if reached.size > 1 else 1
    low, high = int(at[first]) // up, int(at[last]) // up
    return slice(first, last + 1, apart), slice(low, high + 1, max(apart * stride // up, 1))


def _multiply_adds(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return size_of(result.shape) * size_of(specs[1].shape[1:])


CONV2D = define(
    "conv2d",
    _infer,
    _conv2d,
    multiply_adds=_multiply_adds,
    operations=lambda specs, result, attrs: size_of(result.shape) * (len(specs) - 2),
)


def _infer_patches(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (x,) = specs
    require_floats("a convolution", specs)
    return Spec((x.shape[0], *cast(Pair, attrs["out"]), x.shape[1] * size_of(cast(Pair, attrs["kernel"]))), x.dtype)


def _patches(x: Any, *, kernel: Pair, stride: Pair, padding: Shape, dilation: Pair, out: Pair) -> Any:
    result = np.zeros((x.shape[0], *out, x.shape[1], *kernel), x.dtype)
    for i, j in np.ndindex(*kernel):
        to, source = zip(
            *(
                _reached(out[a], x.shape[2 + a], tap * dilation[a] - padding[a], stride[a])
                for a, tap in enumerate((i, j))
            ),
            strict=True,
        )
        result[(slice(None), *to, slice(None), i, j)] = x[(..., *source)].transpose(0, 2, 3, 1)
    return result.reshape(x.shape[0], *out, x.shape[1] * kernel[0] * kernel[1])


PATCHES = define("patches", _infer_patches, _patches)


def _sides(padding: Size | str, kernel: Sequence[int], stride: Pair, dilation: Pair) -> Shape:
    """Return padding as (top, left, bottom, right). An odd one of "same" is at the end, as in PyTorch."""
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        if stride != (1, 1):
            raise ShapeMismatch(f"padding 'same' needs a stride of 1, not {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        first = [t // 2 for t in total]
        return (*first, *(t - f for t, f in zip(total, first, strict=True)))
    if isinstance(padding, str):
        raise TensorCommonsError(f"padding must be 'same', 'valid' or a number, not {quoted(padding)}")
    both = pair(padding, "padding", 0)
    return (*both, *both)


def _batched(x: Tensor, axes: int, op: str) -> tuple[Tensor, bool]:
    if x.ndim not in (axes - 1, axes):
        raise ShapeMismatch(f"{op} takes {axes} axes, or {axes - 1} without a batch, not {x.shape}")
    return (x, False) if x.ndim == axes else (reshape(x, (1, *x.shape)), True)


def conv2d(
    input: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """``y[n, o, i, j] = bias[o] + sum input[n, c, i * stride + a * dilation - padding, ...] * weight[o, c, a, b]``.

    ``input`` is (batch, channels, height, width) or without the batch, ``weight`` (out, channels / groups, height,
    width), ``bias`` (out,); the result is (batch, out, rows, columns). ``padding`` is "same" (stride 1), "valid", or
    the number of zeros on every side. ``groups`` equal to the channels is a depthwise convolution. float16 is summed
    in float32.

    Raises:
        ShapeMismatch: the shapes are incompatible, or the kernel is larger than the padded image.

    >>> print(tc.conv2d(tc.ones((1, 1, 3, 3)), tc.ones((1, 1, 2, 2))).numpy())
    [[[[4. 4.]
       [4. 4.]]]]
    """
    tensor, single = _batched(as_tensor(input), 4, "conv2d")
    w = as_tensor(weight, like=(tensor,))
    if w.ndim != 4:
        raise ShapeMismatch(f"conv2d: a weight must be (out, channels, height, width), not {w.shape}")
    steps, spacing = pair(stride, "stride"), pair(dilation, "dilation")
    sides = _sides(padding, w.shape[2:], steps, spacing)
    y = _convolve(tensor, w, bias, steps, sides, spacing, groups, (1, 1))
    return reshape(y, y.shape[1:]) if single else y


def _convolve(
    x: Tensor, weight: Tensor, bias: TensorLike | None,
    stride: Pair, padding: Shape, dilation: Pair, groups: int, up: Pair,
) -> Tensor:  # fmt: skip
    operands = [x, weight, *(() if bias is None else (as_tensor(bias, like=(x,)),))]
    attrs: dict[str, Attribute] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "up": up,
    }
    spec = _infer([operand.spec for operand in operands], attrs)
    out, channels, *kernel = weight.shape
    batch, _, rows, columns = spec.shape
    depth = channels * kernel[0] * kernel[1]
    unfolded = size_of((batch, rows, columns, depth)) * x.dtype.itemsize
    if groups != 1 or up != (1, 1) or out < WIDE or unfolded > MOST:
        return apply(CONV2D, *operands, **attrs)
    if stride == tuple(kernel) and not any(padding) and dilation == (1, 1):
        cut = x[:, :, : rows * kernel[0], : columns * kernel[1]]
        patches = reshape(cut, (batch, channels, rows, kernel[0], columns, kernel[1]))
        flat = reshape(permute_dims(patches, (0, 2, 4, 1, 3, 5)), (batch, rows, columns, depth))
    else:
        flat = apply(
            PATCHES, x, kernel=tuple(kernel), stride=stride, padding=padding, dilation=dilation, out=(rows, columns)
        )
    return permute_dims(linear(flat, reshape(weight, (out, depth)), *operands[2:]), (0, 3, 1, 2))


def conv1d(
    input: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve along one axis: ``input`` (batch, channels, length), ``weight`` (out, channels / groups, size).

    The result is (batch, out, positions). For the other parameters and the errors see :func:`conv2d`.

    >>> print(tc.conv1d([[[1.0, 2.0, 3.0]]], [[[1.0, 1.0]]]).numpy())
    [[[3. 5.]]]
    """
    tensor, single = _batched(as_tensor(input), 3, "conv1d")
    w = as_tensor(weight, like=(tensor,))
    if w.ndim != 3:
        raise ShapeMismatch(f"conv1d: a weight must be (out, channels, length), not {w.shape}")
    steps, spacing = (1, _one(stride, "stride")), (1, _one(dilation, "dilation"))
    sides = padding if isinstance(padding, str) else (0, _one(padding, "padding", 0))
    image = reshape(tensor, (*tensor.shape[:2], 1, tensor.shape[2]))
    kernel = reshape(w, (*w.shape[:2], 1, w.shape[2]))
    y = conv2d(image, kernel, bias, steps, sides, spacing, groups)
    return reshape(y, (*y.shape[1 if single else 0 : 2], y.shape[3]))


def _one(value: Size, name: str, low: int = 1) -> int:
    return pair(value, name, low)[0]


def conv_transpose2d(
    input: TensorLike,
    weight: TensorLike,
    bias: TensorLike | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Compute the gradient of :func:`conv2d` with respect to its input.

    ``input`` is (batch, channels, height, width) or without the batch, ``weight`` (channels, out / groups, height,
    width), ``bias`` (out,). The result is (batch, out, rows, columns); it has ``(size - 1) * stride - 2 * padding +
    dilation * (kernel - 1) + output_padding + 1`` rows, and as many columns by the width.

    Raises:
        ShapeMismatch: the shapes are incompatible, or ``output_padding`` is not below stride or dilation.

    >>> print(tc.conv_transpose2d(tc.ones((1, 1, 2, 2)), tc.ones((1, 1, 2, 2))).numpy())
    [[[[1. 2. 1.]
       [2. 4. 2.]
       [1. 2. 1.]]]]
    """
    tensor, single = _batched(as_tensor(input), 4, "conv_transpose2d")
    w = as_tensor(weight, like=(tensor,))
    if w.ndim != 4 or groups < 1 or w.shape[0] % groups:
        raise ShapeMismatch(
            f"conv_transpose2d: a weight must be (channels, out, height, width), channels a multiple of {groups} "
            f"groups, not {w.shape}"
        )
    up, spacing = pair(stride, "stride"), pair(dilation, "dilation")
    less, more = pair(padding, "padding", 0), pair(output_padding, "output_padding", 0)
    if any(m >= max(u, d) for m, u, d in zip(more, up, spacing, strict=True)):
        raise ShapeMismatch(f"conv_transpose2d: output_padding {more} must be below stride {up} or dilation {spacing}")
    reach = [d * (k - 1) - p for d, k, p in zip(spacing, w.shape[2:], less, strict=True)]
    sides = (*reach, *(r + m for r, m in zip(reach, more, strict=True)))
    channels, out, *kernel = w.shape
    turned = reshape(w[:, :, ::-1, ::-1], (groups, channels // groups, out, *kernel))
    turned = reshape(permute_dims(turned, (0, 2, 1, 3, 4)), (groups * out, channels // groups, *kernel))
    y = _convolve(tensor, turned, bias, (1, 1), sides, spacing, groups, up)
    return reshape(y, y.shape[1:]) if single else y
