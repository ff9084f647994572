"""Scaled dot-product attention as one op, so that no device has to hold the matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..graph.constant import constant
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike, as_tensor, asarray
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


def _infer_append(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    cache, update, position = specs
    fits = len(cache.shape) == len(update.shape) == 4 and update.shape[2] <= cache.shape[2]
    if not fits or any(cache.shape[axis] != update.shape[axis] for axis in (0, 1, 3)):
        raise ShapeMismatch(
            f"kv_cache_append: {update.shape} does not go into {cache.shape}: (batch, heads, rows, head_dim)"
        )
    if update.dtype is not cache.dtype:
        raise UnsupportedDtype(f"kv_cache_append: the update is {update.dtype}, the cache {cache.dtype}; cast first")
    if position.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"kv_cache_append takes int32 positions, not {position.dtype}; cast first")
    return cache


def _append(cache: Any, update: Any, position: Any) -> Any:
    result = np.array(cache)
    for batch, first in enumerate(position):
        rows = int(first) + np.arange(update.shape[2])
        there = (rows >= 0) & (rows < cache.shape[2])
        result[batch][:, rows[there]] = update[batch][:, there]
    return result


APPEND = define("kv_cache_append", _infer_append, _append, in_place=True)


def kv_cache_append(cache: TensorLike, update: TensorLike, position: TensorLike) -> Tensor:
    """``cache`` with the rows ``position`` to ``position + n - 1`` of its third axis replaced by those of ``update``.

    ``cache`` is (batch, heads, capacity, head_dim), ``update`` (batch, heads, n, head_dim) of the same dtype, and
    ``position`` int32, one number or one a batch (batch,): a tensor, so one program serves every step of a generation.
    A row that would lie outside the cache is not written.

    The result is a value of its own. Where it is an answer of a compiled function that is given ``cache`` for good
    (``compile(..., donate_argnames=...)``), it takes over the cache's bytes, and only ``n`` rows are written.
    """
    held = as_tensor(cache)
    if isinstance(position, int):
        where = Tensor.symbolic(constant(position, dtypes.int32), held.device)
    else:
        where = position if isinstance(position, Tensor) else asarray(position, device=held.device)
    if where.ndim > 1 or (where.ndim and where.shape[0] != held.shape[0]):
        raise ShapeMismatch(f"kv_cache_append: positions {where.shape} are neither one nor one a batch of {held.shape}")
    return apply(APPEND, held, update, broadcast_to(where, held.shape[:1]))
