"""Softmax, layer norm and RMS norm, which normalize each row by its own statistics, computed in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.base import Attributes, Op, Spec, per_element
from ..errors import ShapeMismatch
from ..shapes import normalize_axis, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import permute_dims
from .matmul import common_float
from .registry import apply, as_float32, define


def _infer_softmax(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return Spec(specs[0].shape, common_float(specs, "softmax"))


def _softmax(x: Any) -> Any:
    if x.shape[-1] == 0:
        return x
    x = as_float32(x)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x: Any) -> Any:
    if x.shape[-1] == 0:
        return x
    x = as_float32(x)
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _infer_layer_norm(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, weight, bias, *residual = specs
    dtype = common_float(specs, "layer_norm")
    if (
        not x.shape
        or weight.shape != x.shape[-1:]
        or bias.shape != x.shape[-1:]
        or any(r.shape != x.shape for r in residual)
    ):
        raise ShapeMismatch(
            f"layer_norm: weight {weight.shape} and bias {bias.shape} must be {x.shape[-1:]}, for x {x.shape}"
        )
    return Spec(x.shape, dtype)


def _layer_norm(x: Any, weight: Any, bias: Any, residual: Any = None, *, eps: float) -> Any:
    x, weight, bias = as_float32(x), as_float32(weight), as_float32(bias)
    if residual is not None:
        x = x + as_float32(residual)
    if x.shape[-1] == 0:
        return x
    shifted = x - x[..., :1]  # else a mean of 1e4 would lose three digits
    centred = shifted - shifted.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight + bias


def _infer_rms_norm(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, weight = specs
    dtype = common_float(specs, "rms_norm")
    if not x.shape or weight.shape != x.shape[-1:]:
        raise ShapeMismatch(f"rms_norm: weight {weight.shape} must be {x.shape[-1:]}, the last axis of {x.shape}")
    return Spec(x.shape, dtype)


def _rms_norm(x: Any, weight: Any, *, eps: float) -> Any:
    if x.shape[-1] == 0:
        return x
    x = as_float32(x)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * as_float32(weight)


# Operations of a softmax for each element: a maximum, a difference, an exponential, a sum and a division.
SOFTMAX = define("softmax", _infer_softmax, _softmax, operations=per_element(5))
LOG_SOFTMAX = define("log_softmax", _infer_softmax, _log_softmax, operations=per_element(5))
# Operations of a layer norm: sum and difference; square and its sum; scale, weight and bias; the residual, if any.
LAYER_NORM = define(
    "layer_norm",
    _infer_layer_norm,
    _layer_norm,
    operations=lambda specs, result, attrs: (4 + len(specs)) * size_of(result.shape),
)
RMS_NORM = define("rms_norm", _infer_rms_norm, _rms_norm, operations=per_element(4))


def _over(op: Op, x: TensorLike, axis: int) -> Tensor:
    """Apply ``op``, which works on the last axis, along any axis."""
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        raise ShapeMismatch(f"{op.name} needs at least one axis, not a scalar")
    axis = normalize_axis(axis, tensor.ndim)
    order = [a for a in range(tensor.ndim) if a != axis] + [axis]
    back = [order.index(a) for a in range(tensor.ndim)]
    return permute_dims(apply(op, permute_dims(tensor, order)), back)


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """``exp(x - max) / sum(exp(x - max))`` over ``axis``. float32 or float16, computed in float32.

    >>> print(tc.softmax([1.0, 2.0, 3.0]).numpy().round(4))
    [0.09   0.2447 0.6652]
    """
    return _over(SOFTMAX, x, axis)


def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """``x - max - log(sum(exp(x - max)))`` over ``axis``. float32 or float16, computed in float32.

    >>> print(tc.log_softmax([1.0, 2.0, 3.0]).numpy().round(4))
    [-2.4076 -1.4076 -0.4076]
    """
    return _over(LOG_SOFTMAX, x, axis)


def layer_norm(x: TensorLike, weight: TensorLike, bias: TensorLike, eps: float = 1e-5) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis, ``var`` biased (Ba et al., 2016).

    Operands are float32 and float16 in any combination, computed in float32; float16 with float32 is float32.

    >>> print(tc.layer_norm([[1.0, 3.0]], [1.0, 1.0], [0.0, 0.0]).numpy().round(4))
    [[-1.  1.]]
    """
    return apply(LAYER_NORM, x, weight, bias, eps=eps)


def rms_norm(x: TensorLike, weight: TensorLike, eps: float = 1e-6) -> Tensor:
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last axis (Zhang and Sennrich, 2019).

    Dtypes are those of :func:`layer_norm`.

    >>> print(tc.rms_norm([[3.0, 4.0]], [1.0, 1.0]).numpy().round(4))
    [[0.8485 1.1314]]
    """
    return apply(RMS_NORM, x, weight, eps=eps)
