"""Sorting: sort, argsort and topk.

All are composed of two ops on positions. ``leaders`` sorts each part of a row and keeps the first few positions of
each; ``merge_runs`` merges two sorted runs. A sort is leaders of parts, merged; a topk is a tournament of leaders. The
order is total: equal elements keep their order, and NaN is larger than all numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch
from ..shapes import normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .indexing import take_along_axis
from .layout import permute_dims
from .registry import apply, define

PART = 128  # elements that are sorted by comparing all pairs
MOST = 128  # the largest k of a tournament; for more, a sort is faster


def _infer_leaders(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x = specs[0]
    return Spec((*x.shape[:-1], cast(int, attrs["width"])), dtypes.int32)


def _order(values: Any, descending: bool) -> Any:
    """Return sorted positions along the last axis; stable in both directions."""
    if descending:
        return values.shape[-1] - 1 - np.argsort(values[..., ::-1], -1, kind="stable")[..., ::-1]
    return np.argsort(values, -1, kind="stable")


def _leaders(x: Any, candidates: Any = None, *, part: int, k: int, width: int, descending: bool) -> Any:
    size = (x if candidates is None else candidates).shape[-1]
    result = np.full((*x.shape[:-1], width), -1, np.int32)
    if size == 0:
        return result
    ids = np.broadcast_to(np.arange(size), x.shape[:-1] + (size,)) if candidates is None else candidates
    whole = size // part if k == part and width == size else 0  # parts of a sort, which are rows of one array
    if whole:
        own = ids[..., : whole * part].reshape(*x.shape[:-1], whole, part)
        values = np.take_along_axis(x, ids[..., : whole * part], -1).reshape(own.shape)
        best = np.take_along_axis(own, _order(values, descending), -1)
        result[..., : whole * part] = best.reshape(*x.shape[:-1], whole * part)
    for number, first in enumerate(range(whole * part, size, part), whole):
        own = ids[..., first : first + part]
        order = _order(np.take_along_axis(x, np.maximum(own, 0), -1), descending)
        missing = np.take_along_axis(own < 0, order, -1)
        order = np.take_along_axis(order, np.argsort(missing, -1, kind="stable"), -1)
        best = np.take_along_axis(own, order, -1)[..., : min(k, width - number * k)]
        result[..., number * k : number * k + best.shape[-1]] = best
    return result


def _infer_merge(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return specs[1]


def _merge_runs(x: Any, ids: Any, run: int, descending: bool) -> Any:
    return _leaders(x, ids, part=2 * run, k=2 * run, width=ids.shape[-1], descending=descending)


LEADERS = define("leaders", _infer_leaders, _leaders)
MERGE_RUNS = define("merge_runs", _infer_merge, _merge_runs)


def _last_axis(x: TensorLike, axis: int, op: str) -> tuple[Tensor, list[int]]:
    """Move the axis to the end; return the tensor and the permutation that restores the order."""
    tensor = as_tensor(x)
    place = normalize_axis(axis, tensor.ndim)
    order = [a for a in range(tensor.ndim) if a != place] + [place]
    return permute_dims(tensor, order), [order.index(a) for a in range(tensor.ndim)]


def _argsort(x: Tensor, descending: bool) -> Tensor:
    size = x.shape[-1]
    ids = apply(LEADERS, x, part=PART, k=PART, width=size, descending=descending)
    run = PART
    while run < size:
        ids = apply(MERGE_RUNS, x, ids, run=run, descending=descending)
        run *= 2
    return ids


def argsort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Return the positions (int32) that sort ``x`` along ``axis``; always stable.

    NaN is larger than all numbers: last, or first in descending order.

    >>> print(tc.argsort([30, 10, 20]).numpy())
    [1 2 0]
    """
    tensor, back = _last_axis(x, axis, "argsort")
    return permute_dims(_argsort(tensor, descending), back)


def sort(x: TensorLike, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Sort ``x`` along ``axis``. NaN is larger than all numbers: last, or first in descending order.

    >>> print(tc.sort([3, 1, 2], descending=True).numpy())
    [3 2 1]
    """
    tensor, back = _last_axis(x, axis, "sort")
    return permute_dims(take_along_axis(tensor, _argsort(tensor, descending), -1), back)


def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest (or smallest) elements along ``axis`` in order, and their positions (int32).

    The first of equal elements precedes; NaN is larger than all numbers.

    Raises:
        ShapeMismatch: ``k`` is negative, or exceeds the size of the axis.

    >>> values, positions = tc.topk([3, 9, 5], 2)
    >>> print(values.numpy())
    [9 5]
    >>> print(positions.numpy())
    [1 2]
    """
    tensor, back = _last_axis(x, axis, "topk")
    size = tensor.shape[-1]
    if not 0 <= k <= size:
        raise ShapeMismatch(
            f"topk: k must be from 0 to {size}, the size of axis {axis} of {as_tensor(x).shape}, not {k}"
        )
    ids = _tournament(tensor, k, largest) if 0 < k <= MOST else _argsort(tensor, largest)[..., :k]
    return permute_dims(take_along_axis(tensor, ids, -1), back), permute_dims(ids, back)


def _tournament(x: Tensor, k: int, descending: bool) -> Tensor:
    """Find the leaders of parts of 4 k elements, then the leaders among those, until there is one part."""
    part = 4 * max(k, 16)
    candidates: tuple[Tensor, ...] = ()
    size = x.shape[-1]
    while True:
        parts = -(-size // part)
        found = apply(LEADERS, x, *candidates, part=part, k=k, width=parts * k, descending=descending)
        if parts == 1:
            return found
        candidates, size = (found,), parts * k
