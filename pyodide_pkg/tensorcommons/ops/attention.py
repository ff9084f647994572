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
from .registry import apply, as_float32, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    q, k, v, *mask = specs
    for spec in (q, k, v):
        if spec.dtype not in (dtypes.float32, dtypes.float16):
            raise UnsupportedDtype(f"scaled_dot_product_attention takes float32 and float16, not {spec.dtype}")
    fits = len(q.shape) == len(k.shape) == 4 and k.shape == v.shape
    if not fits or (q.shape[0], q.shape[3]) != (k.shape[0], k.shape[3]) or q.shape[1] % max(k.shape[1], 1):
        raise ShapeMismatch(f"attention: query {q.shape}, key {k.shape} and value {v.shape} do not go together")
    if 0 in k.shape[1:]:
        raise ShapeMismatch(f"attention over no keys, heads or dimensions: key {k.shape}")
    if mask and mask[0].dtype not in (dtypes.float32, dtypes.float16, dtypes.bool):
        raise UnsupportedDtype(f"attention: a mask is a float that is added, or bool, not {mask[0].dtype}")
    wanted = (*q.shape[:3], k.shape[2])
    if mask and mask[0].shape != wanted:
        raise ShapeMismatch(f"attention: mask {mask[0].shape} is not {wanted}")
    return Spec(q.shape, dtypes.result_type([q.dtype, k.dtype, v.dtype]))


def _attention(q: Any, k: Any, v: Any, mask: Any = None, *, scale: float, causal: bool) -> Any:
    q, k, v = (as_float32(each) for each in (q, k, v))
    k, v = (np.repeat(each, q.shape[1] // each.shape[1], 1) for each in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * np.float32(scale)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], np.bool_)), scores, np.float32(-np.inf))
    if mask is not None:
        scores = np.where(mask, scores, np.float32(-np.inf)) if mask.dtype == bool else scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ v


# The result lies in memory as (batch, sequence, heads, head_dim): merging the heads afterwards moves no byte.
ATTENTION = define("scaled_dot_product_attention", _infer, _attention, memory_order=(0, 2, 1, 3))


def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    mask: TensorLike | None = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al., 2017).

    ``query`` is (batch, heads, queries, head_dim), ``key`` and ``value`` (batch, key_heads, keys, head_dim), float32 or
    float16; where ``key_heads`` divides ``heads``, neighbouring heads share one (Ainslie et al., 2023). ``mask``
    broadcasts to (batch, heads, queries, keys): a float is added to the scores, a bool says which keys count.
    ``is_causal`` lets query i see keys 0 to i. ``scale`` is ``head_dim ** -0.5`` by default. A query for which every
    key is masked by minus infinity or False gets NaN, as in PyTorch.
    """
    q, k = as_tensor(query), as_tensor(key, like=(query,))
    factor = float(max((*q.shape[-1:], 1)) ** -0.5) if scale is None else float(scale)
    if mask is None:
        return apply(ATTENTION, q, k, value, scale=factor, causal=bool(is_causal))
    wanted = (*q.shape[:-1], *k.shape[-2:-1])
    broadcast_shapes(as_tensor(mask, like=(q,)).shape, wanted)
    return apply(ATTENTION, q, k, value, broadcast_to(mask, wanted), scale=factor, causal=bool(is_causal))
