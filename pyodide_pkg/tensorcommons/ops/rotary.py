"""Rotary position embedding (Su et al., 2021): rotate pairs of a head's dimensions by angles of the position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .convolution import require_floats
from .indexing import index_tensor
from .layout import broadcast_to
from .registry import apply, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, cos, sin, *positions = specs
    require_floats("rotary_embedding", specs[:1])
    if cos.dtype is not dtypes.float32 or sin.dtype is not dtypes.float32:
        raise UnsupportedDtype(f"rotary_embedding: cos and sin must be float32, not {cos.dtype} and {sin.dtype}")
    if len(x.shape) < 2 or len(cos.shape) != 2 or sin.shape != cos.shape or not 0 < 2 * cos.shape[1] <= x.shape[-1]:
        raise ShapeMismatch(
            f"rotary_embedding: cos {cos.shape} and sin {sin.shape} must be (positions, dimensions / 2) for x {x.shape}"
        )
    if positions and (positions[0].shape != x.shape[:-1] or positions[0].dtype is not dtypes.int32):
        raise ShapeMismatch(f"rotary_embedding: positions must be int32 {x.shape[:-1]}, not {positions[0]}")
    if not positions and x.shape[-2] > cos.shape[0]:
        raise ShapeMismatch(f"rotary_embedding: a sequence of {x.shape[-2]} exceeds the {cos.shape[0]} rows of cos")
    return x


def _rotary(x: Any, cos: Any, sin: Any, positions: Any = None, *, interleaved: bool) -> Any:
    """Rotate in float64."""
    half = cos.shape[1]
    if positions is None:
        positions = np.broadcast_to(np.arange(x.shape[-2]), x.shape[:-1])
    valid = (positions >= 0) & (positions < len(cos))
    turns = np.stack([cos, sin]).astype(np.float64) if len(cos) else np.full((2, 1, half), np.nan)
    cosines, sines = np.where(valid[..., None], turns[:, np.where(valid, positions, 0)], np.nan)
    y = np.array(x)
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half), slice(half, 2 * half))
    )
    a, b = x[..., first], x[..., second]
    y[..., first], y[..., second] = a * cosines - b * sines, b * cosines + a * sines
    return y


def _operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count two products and a sum for each rotated element."""
    return 3 * size_of(result.shape[:-1]) * 2 * specs[1].shape[1]


def _traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes read and written, including one row of the tables for each position."""
    x, cos, _, *positions = specs
    rows = min(x.shape[-2] if not positions else size_of(positions[0].shape), cos.shape[0])
    return 2 * result.nbytes + 2 * rows * cos.shape[1] * 4 + sum(spec.nbytes for spec in positions)


ROTARY = define("rotary_embedding", _infer, _rotary, operations=_operations, traffic=_traffic)


def rotary_tables(length: int, dimensions: int, base: float = 10000.0, scale: float = 1.0) -> tuple[Any, Any]:
    """Return ``cos`` and ``sin`` of ``position * base ** (-2 k / dimensions) / scale``, as NumPy arrays.

    Both are float32 (length, dimensions / 2), computed in float64: a float32 angle at position 8,000 has an error of
    5e-4.

    >>> cos, sin = tc.rotary_tables(2, 4)
    >>> print(cos.round(4))
    [[1.     1.    ]
     [0.5403 1.    ]]
    """
    if dimensions < 2 or dimensions % 2:
        raise ShapeMismatch(f"rotary_tables: dimensions must be even and at least 2, not {dimensions}")
    rates = base ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions) / scale
    angles = np.outer(np.arange(length), rates)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotary_embedding(
    x: TensorLike,
    cos: TensorLike,
    sin: TensorLike,
    positions: TensorLike | None = None,
    interleaved: bool = False,
) -> Tensor:
    """Rotate pairs ``(a, b)`` of the last axis to ``(a cos - b sin, b cos + a sin)``, by the row of their position.

    ``x`` is (..., sequence, head_dim); ``cos`` and ``sin`` (positions, dimensions / 2) are tables, such as those of
    :func:`rotary_tables`. Dimensions of a head beyond ``dimensions`` are unchanged. A pair is
    ``(k, k + dimensions / 2)`` (GPT-NeoX, Llama), or with ``interleaved`` ``(2 k, 2 k + 1)`` (RoFormer, GPT-J).
    ``positions`` (int32) broadcast to (..., sequence) and are 0, 1, 2, ... by default; a position outside the tables
    gives NaN.

    >>> cos, sin = tc.rotary_tables(2, 2)
    >>> print(tc.rotary_embedding([[1.0, 0.0], [1.0, 0.0]], cos, sin).numpy().round(4))
    [[1.     0.    ]
     [0.5403 0.8415]]
    """
    tensor = as_tensor(x)
    extra: tuple[Tensor, ...] = ()
    if positions is not None:
        extra = (broadcast_to(index_tensor(positions, tensor), tensor.shape[:-1]),)
    return apply(ROTARY, tensor, cos, sin, *extra, interleaved=interleaved)
