"""The ops of neural networks with the names and parameters of ``torch.nn.functional``.

PyTorch's parameters for training (``inplace``, ``dropout_p``, gradients) are not supported. Class indices are int32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import ops
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..ops import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv1d,
    conv2d,
    conv_transpose2d,
    interpolate,
    max_pool2d,
)
from ..ops.batch_norm import batch_norm, group_norm, instance_norm
from ..ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_similarity,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    normalize,
    smooth_l1_loss,
)
from ..tensor import Tensor, TensorLike, as_tensor

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "cosine_similarity",
    "cross_entropy",
    "elu",
    "embedding",
    "gelu",
    "group_norm",
    "hardsigmoid",
    "hardswish",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]


def relu(input: TensorLike) -> Tensor:
    """``max(input, 0)``.

    >>> print(F.relu([-1.0, 2.0]).numpy())
    [0. 2.]
    """
    return ops.relu(input)


def leaky_relu(input: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """``input`` if it is not negative, else ``negative_slope * input``.

    >>> print(F.leaky_relu([-1.0, 2.0], 0.1).numpy().round(4))
    [-0.1  2. ]
    """
    return ops.leaky_relu(input, negative_slope)


def elu(input: TensorLike, alpha: float = 1.0) -> Tensor:
    """``input`` if it is positive, else ``alpha * (e ** input - 1)`` (Clevert et al., 2015).

    >>> print(F.elu([-1.0, 2.0]).numpy().round(4))
    [-0.6321  2.    ]
    """
    return ops.elu(input, alpha)


def gelu(input: TensorLike, approximate: str = "none") -> Tensor:
    """``input / 2 * (1 + erf(input / sqrt(2)))``, or with ``approximate="tanh"`` the tanh approximation.

    >>> print(F.gelu([-1.0, 2.0], approximate="tanh").numpy().round(4))
    [-0.1588  1.9546]
    """
    return ops.gelu(input, approximate)


def silu(input: TensorLike) -> Tensor:
    """``input * sigmoid(input)``.

    >>> print(F.silu([0.0, 2.0]).numpy().round(4))
    [0.     1.7616]
    """
    return ops.silu(input)


def sigmoid(input: TensorLike) -> Tensor:
    """``1 / (1 + e ** -input)``.

    >>> print(F.sigmoid([0.0, 2.0]).numpy().round(4))
    [0.5    0.8808]
    """
    return ops.sigmoid(input)


def tanh(input: TensorLike) -> Tensor:
    """Hyperbolic tangent.

    >>> print(F.tanh([0.0, 1.0]).numpy().round(4))
    [0.     0.7616]
    """
    return ops.tanh(input)


def softplus(input: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + e ** (beta * input)) / beta``; exact for every input, so ``threshold`` has no effect.

    >>> print(F.softplus([0.0, 2.0]).numpy().round(4))
    [0.6931 2.1269]
    """
    return ops.softplus(input) if beta == 1 else ops.softplus(as_tensor(input) * beta) / beta


def hardswish(input: TensorLike) -> Tensor:
    """``input * hardsigmoid(input)``.

    >>> print(F.hardswish([0.0, 1.0, 4.0]).numpy().round(4))
    [0.     0.6667 4.    ]
    """
    return ops.hardswish(input)


def hardsigmoid(input: TensorLike) -> Tensor:
    """``clip(input + 3, 0, 6) / 6``.

    >>> print(F.hardsigmoid([-4.0, 0.0, 4.0]).numpy())
    [0.  0.5 1. ]
    """
    return ops.hardsigmoid(input)


def softmax(input: TensorLike, dim: int, dtype: object = None) -> Tensor:
    """``exp(input) / sum(exp(input))`` along ``dim``, cast to ``dtype`` first if it is given.

    >>> print(F.softmax([1.0, 2.0, 3.0], dim=-1).numpy().round(4))
    [0.09   0.2447 0.6652]
    """
    return ops.softmax(as_tensor(input) if dtype is None else ops.astype(input, dtype), dim)


def log_softmax(input: TensorLike, dim: int, dtype: object = None) -> Tensor:
    """``input - log(sum(exp(input)))`` along ``dim``, cast to ``dtype`` first if it is given.

    >>> print(F.log_softmax([1.0, 2.0, 3.0], dim=-1).numpy().round(4))
    [-2.4076 -1.4076 -0.4076]
    """
    return ops.log_softmax(as_tensor(input) if dtype is None else ops.astype(input, dtype), dim)


def _last_axes(name: str, input: TensorLike, normalized_shape: Sequence[int]) -> tuple[Tensor, tuple[int, ...], int]:
    """Merge the normalized axes; return the result, the shape of ``input``, and the size of the merged axis."""
    tensor, shape = as_tensor(input), tuple(normalized_shape)
    if not shape or tensor.shape[-len(shape) :] != shape:
        raise ShapeMismatch(f"{name}: normalized_shape {shape} must be the last axes of the input {tensor.shape}")
    size = int(np.prod(shape, dtype=np.int64))
    return ops.reshape(tensor, (*tensor.shape[: tensor.ndim - len(shape)], size)), tensor.shape, size


def _row(value: TensorLike | None, default: float, size: int, like: Tensor) -> TensorLike:
    """Reshape a weight or bias to one row; by default, fill it with ``default``."""
    return (
        np.full(size, default, like.dtype.numpy) if value is None else ops.reshape(as_tensor(value, (like,)), (size,))
    )


def layer_norm(
    input: TensorLike,
    normalized_shape: Sequence[int],
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(input - mean) / sqrt(var + eps) * weight + bias`` over the last axes (Ba et al., 2016).

    ``normalized_shape`` are the sizes of these axes, and the shape of ``weight`` and ``bias``.

    Raises:
        ShapeMismatch: the shapes are incompatible.

    >>> print(F.layer_norm([[1.0, 3.0]], (2,)).numpy().round(4))
    [[-1.  1.]]
    """
    rows, shape, size = _last_axes("layer_norm", input, normalized_shape)
    scale, shift = _row(weight, 1.0, size, rows), _row(bias, 0.0, size, rows)
    return ops.reshape(ops.layer_norm(rows, scale, shift, eps), shape)


def rms_norm(
    input: TensorLike, normalized_shape: Sequence[int], weight: TensorLike | None = None, eps: float | None = None
) -> Tensor:
    """``input / sqrt(mean(input ** 2) + eps) * weight`` over the last axes (Zhang and Sennrich, 2019).

    ``normalized_shape`` are the sizes of these axes, and the shape of ``weight``. ``eps`` is the machine epsilon of the
    dtype by default.

    Raises:
        ShapeMismatch: the shapes are incompatible.

    >>> print(F.rms_norm([[3.0, 4.0]], (2,)).numpy().round(4))
    [[0.8485 1.1314]]
    """
    rows, shape, size = _last_axes("rms_norm", input, normalized_shape)
    least = float(np.finfo(rows.dtype.numpy).eps) if eps is None else eps
    return ops.reshape(ops.rms_norm(rows, _row(weight, 1.0, size, rows), least), shape)


def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    attn_mask: TensorLike | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + attn_mask) @ value`` (Vaswani et al., 2017).

    ``query`` is (..., queries, width), ``key`` (..., keys, width) and ``value`` (..., keys, value_width); the axes
    before (batch, heads) broadcast. ``attn_mask`` broadcasts to (..., queries, keys): a float is added, a bool is true
    for the keys to attend to. With ``is_causal`` query i attends to keys 0 to i. With ``enable_gqa`` key and value may
    have fewer heads (the third axis from the end), which adjacent heads of the query share. The result of a query whose
    keys are all masked is 0. Dropout is not supported.

    >>> query, key, value = tc.ones((1, 1, 2, 4)), tc.ones((1, 1, 3, 4)), tc.ones((1, 1, 3, 2))
    >>> print(F.scaled_dot_product_attention(query, key, value).numpy())
    [[[[1. 1.]
       [1. 1.]]]]
    """
    if dropout_p:
        raise TensorCommonsError(
            f"scaled_dot_product_attention: dropout is not supported: dropout_p must be 0, not {quoted(dropout_p)}"
        )
    q = as_tensor(query, like=(key, value))
    k, v = as_tensor(key, like=(q,)), as_tensor(value, like=(q,))
    heads = q.shape[-3:-2]
    for other in (k, v):
        if not enable_gqa and heads and other.shape[-3:-2] not in ((), (1,), heads) and heads != (1,):
            raise ShapeMismatch(
                f"attention: {q.shape} and {other.shape} differ in heads: pass enable_gqa=True to share heads"
            )
    return ops.scaled_dot_product_attention(q, k, v, attn_mask, scale=scale, is_causal=is_causal)


def linear(input: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) -> (..., out); ``weight`` is (out, in), ``bias`` (out,).

    >>> print(F.linear([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]).numpy())
    [[11. 17.]]
    """
    return ops.linear(input, weight, bias)


def embedding(input: TensorLike, weight: TensorLike) -> Tensor:
    """``weight[input]``: int32 (...) -> (..., size) for a ``weight`` (rows, size); NaN for an index out of range.

    >>> print(F.embedding([1, 0], [[1.0, 2.0], [3.0, 4.0]]).numpy())
    [[3. 4.]
     [1. 2.]]
    """
    return ops.embedding(weight, input)


def one_hot(tensor: TensorLike, num_classes: int = -1) -> Tensor:
    """1 at the class index (int32), else 0: (...) -> (..., num_classes), int32.

    An index out of range gives a row of 0. ``num_classes`` is required, since the values of a tensor are not known.

    >>> print(F.one_hot([0, 2], 3).numpy())
    [[1 0 0]
     [0 0 1]]
    """
    ids = as_tensor(tensor)
    if ids.dtype.name != "int32":
        raise UnsupportedDtype(f"one_hot takes int32 class indices, not {ids.dtype}")
    if num_classes < 1:
        raise TensorCommonsError(
            f"one_hot: num_classes must be at least 1, not {num_classes}: pass the number of classes"
        )
    column = ops.reshape(ids, (*ids.shape, 1))
    return ops.astype(ops.equal(column, ops.arange(num_classes, dtype="int32", device=ids.own_device)), "int32")


def pad(input: TensorLike, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad with ``value`` (0 by default): ``pad`` is (before, after) of the last axis, then of the one before it, ...

    A negative number removes elements. ``mode`` "reflect" mirrors at the border element, "replicate" repeats it, and
    "circular" continues with the other end.

    Raises:
        ShapeMismatch: ``pad`` does not match the axes, or removes or mirrors more elements than there are.

    >>> print(F.pad([[1, 2]], (1, 0)).numpy())
    [[0 1 2]]
    """
    x = as_tensor(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeMismatch(
            f"pad: {tuple(pad)} must be pairs (before, after) for at most the {x.ndim} axes of {x.shape}"
        )
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise TensorCommonsError(f"pad: mode must be one of constant, reflect, replicate, circular, not {quoted(mode)}")
    widths, crop = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in zip(range(x.ndim)[::-1], pad[::2], pad[1::2], strict=False):
        size = x.shape[axis]
        if size + min(before, 0) + min(after, 0) < 0:
            raise ShapeMismatch(f"pad: {before} and {after} remove more elements than axis {axis} of {x.shape} has")
        crop[axis] = slice(max(-before, 0), size - max(-after, 0))
        widths[axis] = (max(before, 0), max(after, 0))
    kept = x[tuple(crop)]
    if mode == "constant":
        return ops.pad(kept, widths, constant_values=0 if value is None else value)
    for axis, (size, width) in enumerate(zip(kept.shape, widths, strict=True)):
        most = {"reflect": max(size - 1, 0), "circular": size, "replicate": max(width) if size else 0}
        if max(width) > most[mode]:
            raise ShapeMismatch(
                f"pad: {width} exceeds {most[mode]}, the most for axis {axis} of {kept.shape} and {mode}"
            )
    if mode != "circular":
        return ops.pad(kept, widths, "edge" if mode == "replicate" else "reflect")
    for axis, (before, after) in enumerate(widths):
        if before or after:
            size = kept.shape[axis]
            kept = ops.take(kept, np.arange(-before, size + after) % size, axis)
    return kept
