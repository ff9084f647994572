"""Reductions: many elements of some axes become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import normalize_axes, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .registry import apply, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (x,) = specs
    if x.dtype is not dtypes.float32:
        raise UnsupportedDtype(f"reductions take float32, not {x.dtype}; cast first")
    axes, keepdims = attrs["axes"], attrs["keepdims"]
    assert isinstance(axes, tuple)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    return Spec(tuple(shape if keepdims else [s for axis, s in enumerate(shape) if axis not in axes]), x.dtype)


def _reference(function: Any) -> Any:
    return lambda x, axes, keepdims: function(x, axis=axes, keepdims=keepdims)


def _mean(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """As np.mean, without its warning where there is nothing to average."""
    return np.sum(x, axis=axis, keepdims=keepdims) / np.float32(size_of([x.shape[a] for a in axis]))


SUM, MEAN, MAX, MIN = (
    define(name, _infer, _reference(function))
    for name, function in (("sum", np.sum), ("mean", _mean), ("max", np.max), ("min", np.min))
)


def _reduce(op: Any, x: TensorLike, axis: int | Sequence[int] | None, keepdims: bool) -> Tensor:
    tensor = as_tensor(x)
    axes = normalize_axes(axis, tensor.ndim)
    if op in (MAX, MIN) and size_of([tensor.shape[a] for a in axes]) == 0:
        raise ShapeMismatch(f"{op.name} of no elements: shape {tensor.shape}, axes {axes}")
    return apply(op, tensor, axes=axes, keepdims=keepdims)


def sum(x: TensorLike, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Sum over ``axis`` (all axes by default)."""
    return _reduce(SUM, x, axis, keepdims)


def mean(x: TensorLike, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over ``axis``; NaN over no elements."""
    return _reduce(MEAN, x, axis, keepdims)


def max(x: TensorLike, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN if one is. Raises ShapeMismatch over no elements."""
    return _reduce(MAX, x, axis, keepdims)


def min(x: TensorLike, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis``; NaN if one is. Raises ShapeMismatch over no elements."""
    return _reduce(MIN, x, axis, keepdims)
