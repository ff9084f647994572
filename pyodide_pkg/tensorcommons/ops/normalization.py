"""Softmax and layer normalization: each row by its own statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import permute_dims
from .registry import apply, define


def _infer_softmax(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    if specs[0].dtype is not dtypes.float32:
        raise UnsupportedDtype(f"softmax takes float32, not {specs[0].dtype}; cast first")
    return specs[0]


def _softmax(x: Any) -> Any:
    if x.shape[-1] == 0:
        return x
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _infer_layer_norm(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, weight, bias, *residual = specs
    if any(spec.dtype is not dtypes.float32 for spec in specs):
        raise UnsupportedDtype("layer_norm takes float32; cast first")
    if (
        not x.shape
        or weight.shape != x.shape[-1:]
        or bias.shape != x.shape[-1:]
        or any(r.shape != x.shape for r in residual)
    ):
        raise ShapeMismatch(f"layer_norm: x {x.shape} does not go with weight {weight.shape} and bias {bias.shape}")
    return x


def _layer_norm(x: Any, weight: Any, bias: Any, residual: Any = None, *, eps: float) -> Any:
    if residual is not None:
        x = x + residual
    if x.shape[-1] == 0:
        return x
    shifted = x - x[..., :1]  # a mean of 1e4 would cost three digits
    centred = shifted - shifted.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight + bias


SOFTMAX = define("softmax", _infer_softmax, _softmax)
LAYER_NORM = define("layer_norm", _infer_layer_norm, _layer_norm)


def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """``exp(x - max) / sum(exp(x - max))`` over ``axis``."""
    tensor = as_tensor(x)
    if tensor.ndim == 0:
        raise ShapeMismatch("softmax of a scalar has no axis")
    axis = normalize_axis(axis, tensor.ndim)
    order = [a for a in range(tensor.ndim) if a != axis] + [axis]
    back = [order.index(a) for a in range(tensor.ndim)]
    return permute_dims(apply(SOFTMAX, permute_dims(tensor, order)), back)


def layer_norm(x: TensorLike, weight: TensorLike, bias: TensorLike, eps: float = 1e-5) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last axis, ``var`` biased (Ba et al., 2016)."""
    return apply(LAYER_NORM, x, weight, bias, eps=eps)
