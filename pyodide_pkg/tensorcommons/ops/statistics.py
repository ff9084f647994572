"""Order statistics: the median and other quantiles, of sorted rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .. import dtypes
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..shapes import normalize_axes, size_of
from ..tensor import Tensor, TensorLike, as_tensor, asarray
from .elementwise import add, astype, equal, isnan, less, multiply, subtract, where
from .indexing import take
from .layout import permute_dims, reshape
from .reduction import Axes
from .sorting import sort

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def _even(alpha: float, beta: float) -> Callable[[Positions, int], Positions]:
    """Make the rule of a continuous method (Hyndman and Fan, 1996, definitions 4 to 9)."""
    return lambda q, n: n * q + (alpha + q * (1 - alpha - beta)) - 1


#: Method -> the position of quantile q in a sorted row of n, from 0; a fraction interpolates between two neighbours.
METHODS: dict[str, Callable[[Positions, int], Positions]] = {
    "linear": lambda q, n: q * (n - 1),
    "lower": lambda q, n: np.floor(q * (n - 1)),
    "higher": lambda q, n: np.ceil(q * (n - 1)),
    "nearest": lambda q, n: np.rint(q * (n - 1)),
    "midpoint": lambda q, n: (np.floor(q * (n - 1)) + np.ceil(q * (n - 1))) / 2,
    "hazen": _even(0.5, 0.5),
    "weibull": _even(0, 0),
    "median_unbiased": _even(1 / 3, 1 / 3),
    "normal_unbiased": _even(3 / 8, 3 / 8),
}


def quantile(x: TensorLike, q: Any, axis: Axes = None, method: str = "linear", keepdims: bool = False) -> Tensor:
    """Quantiles ``q`` of floats over ``axis`` (all axes by default).

    ``q`` is a number from 0 to 1, or an array of them on the host, whose shape precedes that of the rest. ``method`` is
    "linear", "lower", "higher", "nearest", "midpoint", "hazen", "weibull", "median_unbiased" or "normal_unbiased", as
    in NumPy. NaN for rows with NaN. float16 is interpolated in float32.

    Raises:
        ShapeMismatch: an axis to reduce is empty.
        TensorCommonsError: the method is unknown, or ``q`` is a tensor or outside 0 to 1.
        UnsupportedDtype: ``x`` is not of floats.

    >>> print(tc.quantile([1.0, 2.0, 3.0, 4.0], 0.5).numpy())
    2.5
    >>> print(tc.quantile([[1.0, 5.0], [3.0, 7.0]], [0.0, 1.0], axis=0).numpy())
    [[1. 5.]
     [3. 7.]]
    """
    tensor = as_tensor(x)
    if method not in METHODS:
        raise TensorCommonsError(f"quantile: method must be one of {', '.join(METHODS)}, not {quoted(method)}")
    if isinstance(q, Tensor):
        raise TensorCommonsError("quantile: q must be on the host: use await q.read()")
    wanted = np.asarray(q, np.float64)
    if not ((wanted >= 0) & (wanted <= 1)).all():
        raise TensorCommonsError(f"quantile: q must be from 0 to 1, not {quoted(q)}")
    if tensor.dtype.kind != "float":
        raise UnsupportedDtype(f"quantile takes floats, not {tensor.dtype}: cast with tc.astype()")
    axes = normalize_axes(axis, tensor.ndim)
    kept = [a for a in range(tensor.ndim) if a not in axes]
    size = size_of([tensor.shape[a] for a in axes])
    if not size:
        raise ShapeMismatch(f"quantile of shape {tensor.shape} over axes {axes} has no elements")
    rows = reshape(permute_dims(tensor, (*kept, *axes)), (*(tensor.shape[a] for a in kept), size))
    found = _interpolated(sort(rows), np.clip(METHODS[method](wanted.reshape(-1), size), 0, size - 1))
    moved = permute_dims(found, (found.ndim - 1, *range(found.ndim - 1)))
    shape = [1 if a in axes else n for a, n in enumerate(tensor.shape)] if keepdims else [tensor.shape[a] for a in kept]
    return reshape(moved, (*wanted.shape, *shape))


def _interpolated(ordered: Tensor, positions: Positions) -> Tensor:
    """Interpolate sorted rows (..., n) at ``positions`` (count,): (..., count)."""
    first = np.floor(positions)
    dtype = ordered.dtype
    wide = dtypes.float32 if dtype is dtypes.float16 else dtype
    low = astype(take(ordered, first.astype(np.int32), axis=-1), wide)
    share = positions - first
    if share.any():
        high = astype(take(ordered, np.ceil(positions).astype(np.int32), axis=-1), wide)
        part = asarray(share, dtype=wide, device=ordered.own_device)
        step = subtract(high, low)
        near = where(less(part, 0.5), add(low, multiply(step, part)), subtract(high, multiply(step, subtract(1, part))))
        low = where(equal(low, high), low, where(equal(part, 0), low, near))  # infinities have no difference
    return astype(where(isnan(ordered[..., -1:]), math.nan, low), dtype)


def median(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """The middle element of floats over ``axis``, or the mean of the middle two; see :func:`quantile`.

    >>> print(tc.median([5.0, 1.0, 4.0]).numpy())
    4.0
    """
    return quantile(x, 0.5, axis, keepdims=keepdims)
