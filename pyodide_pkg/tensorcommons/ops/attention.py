"""Scaled dot-product attention as one op, so that devices need not store the matrix of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..dtypes import DType
from ..errors import ShapeMismatch, UnsupportedDtype
from ..graph.constant import constant
from ..shapes import Shape, broadcast_shapes, size_of
from ..tensor import Tensor, TensorLike, as_tensor, asarray
from .layout import broadcast_to, reshape
from .registry import apply, as_float32, define, written_copy


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    q, k, v, *mask = specs
    for spec in (q, k, v):
        if spec.dtype not in (dtypes.float32, dtypes.float16):
            raise UnsupportedDtype(f"scaled_dot_product_attention takes float32 and float16, not {spec.dtype}")
    assert len(q.shape) == len(k.shape) == 4 and k.shape[:3] == v.shape[:3] and 0 not in k.shape[1:], "see _arranged"
    assert (q.shape[0], q.shape[3]) == (k.shape[0], k.shape[3]) and q.shape[1] % k.shape[1] == 0, "see _arranged"
    if mask and mask[0].dtype not in (dtypes.float32, dtypes.float16, dtypes.bool):
        raise UnsupportedDtype(f"attention: a mask must be float32, float16 or bool, not {mask[0].dtype}")
    wanted = (*q.shape[:3], k.shape[2])
    if mask and mask[0].shape != wanted:
        raise ShapeMismatch(f"attention: the mask must be {wanted}, not {mask[0].shape}")
    return Spec((*q.shape[:3], v.shape[3]), dtypes.result_type([q.dtype, k.dtype, v.dtype]))


def _attention(q: Any, k: Any, v: Any, mask: Any = None, *, scale: float, causal: bool) -> Any:
    q, k, v = (as_float32(each) for each in (q, k, v))
    k, v = (np.repeat(each, q.shape[1] // each.shape[1], 1) for each in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * np.float32(scale)
    if causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], np.bool_)), scores, np.float32(-np.inf))
    if mask is not None:
        scores = np.where(mask, scores, np.float32(-np.inf)) if mask.dtype == bool else scores + mask
    largest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(largest == -np.inf, np.float32(0), largest))
    total = weights.sum(-1, keepdims=True)
    return (weights / np.where(total == 0, np.float32(1), total)) @ v


def _multiply_adds(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the multiply-adds of scores and values, including those that a causal mask makes unnecessary."""
    q, k, v = specs[:3]
    return size_of(q.shape[:3]) * k.shape[2] * (q.shape[3] + v.shape[3])


def _score_operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count scale, maximum, difference, exponential, sum and mask of each score, and a division of each result."""
    q, k, _, *mask = specs
    return size_of(q.shape[:3]) * k.shape[2] * (5 + len(mask)) + size_of(result.shape)


# The result is stored as (batch, sequence, heads, head_dim), so that merging the heads afterwards is a view.
ATTENTION = define(
    "scaled_dot_product_attention",
    _infer,
    _attention,
    memory_order=(0, 2, 1, 3),
    multiply_adds=_multiply_adds,
    operations=_score_operations,
)


def scaled_dot_product_attention(
    query: TensorLike,
    key: TensorLike,
    value: TensorLike,
    mask: TensorLike | None = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` (Vaswani et al., 2017), as in PyTorch.

    ``query`` is (..., heads, queries, width), ``key`` (..., key_heads, keys, width), ``value`` (..., key_heads, keys,
    value_width), float32 or float16; the result is (..., heads, queries, value_width). The axes before the heads
    broadcast, and the axis of heads is optional. If ``key_heads`` divides ``heads``, adjacent heads share keys and
    values (Ainslie et al., 2023). ``mask`` broadcasts to (..., heads, queries, keys): a float is added to the scores, a
    bool is true for the keys to attend to. With ``is_causal`` query i attends to keys 0 to i. ``scale`` is
    ``width ** -0.5`` by default. The result of a query without keys, or whose keys are all masked (by minus infinity or
    False), is 0.

    Raises:
        ShapeMismatch: the shapes are incompatible.
        UnsupportedDtype: an operand is not a float, or the mask is neither a float nor bool.

    >>> query, key, value = tc.ones((1, 2, 4)), tc.ones((1, 3, 4)), tc.ones((1, 3, 2))
    >>> print(tc.scaled_dot_product_attention(query, key, value).numpy())
    [[[1. 1.]
      [1. 1.]]]
    """
    q = as_tensor(query, like=(key, value))
    k, v = as_tensor(key, like=(q,)), as_tensor(value, like=(q,))
    ndim, batch, heads, shared = _axes(q.shape, k.shape, v.shape)
    queries, keys, width = *q.shape[-2:-1], *k.shape[-2:]
    scores = (*batch, heads, queries, keys)[-ndim:]
    shape = (*batch, heads, queries, v.shape[-1])[-ndim:]
    added = None
    if mask is not None:
        added = as_tensor(mask, like=(q,))
        if broadcast_shapes(added.shape, scores) != scores:
            raise ShapeMismatch(f"attention: the mask {added.shape} does not broadcast to {scores}")
        added = _shaped(broadcast_to(added, scores), (size_of(batch), heads, queries, keys))
    if not keys or not size_of(shape):  # the result is zeros or empty; only check the dtypes
        nothing = Spec((1, 1, 1, 1), q.dtype), Spec((1, 1, 1, 1), k.dtype), Spec((1, 1, 1, 1), v.dtype)
        dtype = ATTENTION.infer([*nothing, *([Spec((1, 1, 1, 1), added.dtype)] if added is not None else [])], {}).dtype
        return _zeros(shape, dtype, q)
    factor = float(max(width, 1) ** -0.5) if scale is None else float(scale)
    if not width:  # every score is an empty sum
        q, k = (_zeros((*x.shape[:-1], 1), x.dtype, x) for x in (q, k))
    operands = [_arranged(x, batch, n) for x, n in ((q, heads), (k, shared), (v, shared))]
    masks = () if added is None else (added,)
    return _shaped(apply(ATTENTION, *operands, *masks, scale=factor, causal=bool(is_causal)), shape)


def _shaped(x: Tensor, shape: Shape) -> Tensor:
    return x if x.shape == shape else reshape(x, shape)


def _zeros(shape: Shape, dtype: DType, like: Tensor) -> Tensor:
    return broadcast_to(Tensor.symbolic(constant(0.0, dtype), like.own_device), shape)


def _axes(q: Shape, k: Shape, v: Shape) -> tuple[int, Shape, int, int]:
    """Return the rank of the result, its batch axes, the number of heads of the query, and that of keys and values."""
    message = f"attention: query {q}, key {k} and value {v} are incompatible"
    if min(len(q), len(k), len(v)) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeMismatch(message)
    wide = [(1,) * (3 - len(shape)) + shape for shape in (q, k, v)]
    counts = [shape[-3] for shape in wide]
    heads = counts[0]
    try:
        if not all(count and heads % count == 0 for count in counts[1:]):
            (heads,) = broadcast_shapes(*((count,) for count in counts))
        batch = broadcast_shapes(*(shape[:-3] for shape in wide))
    except ShapeMismatch:
        raise ShapeMismatch(message) from None
    return max(len(q), len(k), len(v)), batch, heads, counts[1] if counts[1] == counts[2] else heads


def _arranged(x: Tensor, batch: Shape, heads: int) -> Tensor:
    """Reshape ``x`` to (batch, heads, rows, width), repeating its heads if there are fewer."""
    x = _shaped(x, (1,) * (3 - x.ndim) + x.shape)
    if x.shape[-3] != heads:
        apart = reshape(x, (*x.shape[:-2], 1, *x.shape[-2:]))
        spread = broadcast_to(apart, (*x.shape[:-2], heads // x.shape[-3], *x.shape[-2:]))
        x = reshape(spread, (*x.shape[:-3], heads, *x.shape[-2:]))
    if x.shape[:-3] != batch:
        x = broadcast_to(x, (*batch, *x.shape[-3:]))
    return _shaped(x, (size_of(batch), *x.shape[-3:]))


def _infer_append(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    cache, update, position = specs
    fits = len(cache.shape) == len(update.shape) == 4 and update.shape[2] <= cache.shape[2]
    if not fits or any(cache.shape[axis] != update.shape[axis] for axis in (0, 1, 3)):
        raise ShapeMismatch(
            f"kv_cache_append: the update {update.shape} does not fit the cache {cache.shape}: both must be (batch, "
            "heads, rows, head_dim), and the update may have fewer rows"
        )
    if update.dtype is not cache.dtype:
        raise UnsupportedDtype(
            f"kv_cache_append: the update must have the dtype of the cache, {cache.dtype}, not {update.dtype}"
        )
    if position.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"kv_cache_append takes int32 positions, not {position.dtype}: cast with tc.astype()")
    return cache


def _append(cache: Any, update: Any, position: Any) -> None:
    for batch, first in enumerate(position):
        rows = int(first) + np.arange(update.shape[2])
        there = (rows >= 0) & (rows < cache.shape[2])
        cache[batch][:, rows[there]] = update[batch][:, there]


def _append_traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes of an append in place: the rows of the update, read and written, and the positions."""
    return 2 * specs[1].nbytes + specs[2].nbytes


APPEND = define(
    "kv_cache_append", _infer_append, written_copy(_append), in_place=_append, traffic=_append_traffic
)  # fmt: skip


def kv_cache_append(cache: TensorLike, update: TensorLike, position: TensorLike) -> Tensor:
    """Replace rows ``position`` to ``position + n - 1`` of the third axis of ``cache`` by those of ``update``.

    ``cache`` is (batch, heads, capacity, head_dim), ``update`` (batch, heads, n, head_dim) of the same dtype, and
    ``position`` int32, a scalar or (batch,): a tensor, so that every step of a generation runs the same program. Rows
    outside the cache are not written.

    The result is a new value. If it is a result of a compiled function to which ``cache`` is donated
    (``compile(..., donate_argnames=...)``), it reuses the cache's bytes, and only ``n`` rows are written.

    >>> cache = tc.zeros((1, 1, 3, 2))
    >>> print(tc.kv_cache_append(cache, tc.ones((1, 1, 1, 2)), tc.asarray(1)).numpy())
    [[[[0. 0.]
       [1. 1.]
       [0. 0.]]]]
    """
    held = as_tensor(cache)
    if isinstance(position, int):
        where = Tensor.symbolic(constant(position, dtypes.int32), held.own_device)
    else:
        where = position if isinstance(position, Tensor) else asarray(position, device=held.own_device)
    if where.ndim > 1 or (where.ndim and where.shape[0] != held.shape[0]):
        raise ShapeMismatch(
            f"kv_cache_append: position must be a scalar or ({held.shape[0]},), one for each row of the batch, "
            f"not {where.shape}"
        )
    return apply(APPEND, held, update, broadcast_to(where, held.shape[:1]))
