"""Scaled dot-product attention as one op, so that no device has to hold the matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import broadcast_to
from .registry import apply, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    q, k, v, *mask = specs
    if any(spec.dtype is not dtypes.float32 for spec in specs):
        raise UnsupportedDtype("scaled_dot_product_attention takes float32; cast first")
    if not (len(q.shape) == 4 and k.shape == v.shape and k.shape[:2] == q.shape[:2] and k.shape[3:] == q.shape[3:]):
        raise ShapeMismatch(f"attention: query {q.shape}, key {k.shape} and value {v.shape} do not go together")
    if 0 in k.shape[2:]:
        raise ShapeMismatch(f"attention over no keys or dimensions: key {k.shape}")
    wanted = (*q.shape[:3], k.shape[2])
    if mask and mask[0].shape != wanted:
        raise ShapeMismatch(f"attention: mask {mask[0].shape} is not {wanted}")
    return q


def _attention(q: Any, k: Any, v: Any, mask: Any = None, *, scale: float) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * np.float32(scale)
    if mask is not None:
        scores = scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


# The result lies in memory as (batch, sequence, heads, head_dim): merging the heads afterwards moves no byte.
ATTENTION = define("scaled_dot_product_attention", _infer, _attention, memory_order=(0, 2, 1, 3))


def scaled_dot_product_attention(
    query: TensorLike, key: TensorLike, value: TensorLike, mask: TensorLike | None = None, scale: float | None = None
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al., 2017).

    ``query`` is (batch, heads, queries, head_dim), ``key`` and ``value`` (batch, heads, keys, head_dim); ``mask`` is
    additive and broadcasts to (batch, heads, queries, keys); ``scale`` is ``head_dim ** -0.5`` by default.
    """
    q, k = as_tensor(query), as_tensor(key, like=(query,))
    factor = float(max((*q.shape[-1:], 1)) ** -0.5) if scale is None else float(scale)
    if mask is None:
        return apply(ATTENTION, q, k, value, scale=factor)
    wanted = (*q.shape[:-1], *k.shape[-2:-1])
    broadcast_shapes(as_tensor(mask, like=(q,)).shape, wanted)
    return apply(ATTENTION, q, k, value, broadcast_to(mask, wanted), scale=factor)
