"""Distances between all pairs of rows of two matrices."""

from __future__ import annotations

import math

from .. import dtypes
from ..errors import ShapeMismatch, UnsupportedDtype, quoted
from ..shapes import broadcast_shapes, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import abs as magnitude
from .elementwise import add, astype, maximum, multiply, not_equal, pow, sqrt, square, subtract
from .layout import reshape
from .manipulation import matrix_transpose
from .matmul import matmul
from .reduction import count_nonzero, mean
from .reduction import max as max_of
from .reduction import sum as sum_of

FEW = 2**16  # differences that are computed one by one
PIECE = 2**24  # differences that exist at one time


def cdist(x1: TensorLike, x2: TensorLike, p: float = 2.0) -> Tensor:
    """Distances ``(..., P, R)`` between the rows of ``x1`` ``(..., P, M)`` and those of ``x2`` ``(..., R, M)``.

    ``p`` is the order of the norm of a difference: 2 Euclidean, 1 Manhattan, ``inf`` the largest difference, 0 the
    number of different elements, or any positive number. Leading axes broadcast.

    Euclidean distances of many rows (more than 65,536 differences) come from one product,
    ``|a|^2 + |b|^2 - 2 a @ b``, of rows from which the mean of ``x2`` is subtracted. Their error is up to about
    ``1e-3`` of the largest distance from that mean, where the rows themselves are that close; for exact small
    distances use ``linalg.vector_norm`` of the differences.

    Raises:
        ShapeMismatch: the rows differ in size, or ``p`` is negative.

    >>> print(tc.cdist([[0.0, 0.0], [3.0, 0.0]], [[3.0, 4.0]]).numpy())
    [[5.]
     [4.]]
    """
    a, b = as_tensor(x1, like=(x2,)), as_tensor(x2, like=(x1,))
    dtype = dtypes.result_type([a.dtype, b.dtype])
    if dtype.kind != "float":
        raise UnsupportedDtype(f"cdist takes floats, not {dtype}: cast with tc.astype()")
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeMismatch(f"cdist: shapes {a.shape} and {b.shape} must be (..., P, M) and (..., R, M)")
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not p >= 0:
        raise ShapeMismatch(f"cdist: p must be a number from 0 on, not {quoted(p)}")
    shape = (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-2])
    wide = dtypes.float32 if dtype is dtypes.float16 else dtype
    a, b = astype(a, wide), astype(b, wide)
    many = size_of(shape) * a.shape[-1] > FEW
    return astype(_by_product(a, b) if many and p == 2 else _by_differences(a, b, p, size_of(shape)), dtype)


def _by_product(a: Tensor, b: Tensor) -> Tensor:
    centre = mean(b, axis=-2, keepdims=True)
    a, b = subtract(a, centre), subtract(b, centre)
    lengths = add(sum_of(square(a), -1, keepdims=True), matrix_transpose(sum_of(square(b), -1, keepdims=True)))
    return sqrt(maximum(subtract(lengths, multiply(matmul(a, matrix_transpose(b)), 2.0)), 0.0))


def _by_differences(a: Tensor, b: Tensor, p: float, pairs: int) -> Tensor:
    """Reduce the differences, some elements of the rows at a time."""
    width = a.shape[-1]
    step = max(min(PIECE // max(pairs, 1), width), 1)
    total: Tensor | None = None
    for first in range(0, max(width, 1), step):
        left, right = (
            reshape(x, (*x.shape[:-2], *middle, x.shape[-1]))
            for x, middle in (
                (a[..., first : first + step], (a.shape[-2], 1)),
                (b[..., first : first + step], (1, b.shape[-2])),
            )
        )
        if p == 0:
            part = astype(count_nonzero(not_equal(left, right), -1), a.dtype)
        else:
            part = _reduced(magnitude(subtract(left, right)), p)
        total = part if total is None else (maximum if math.isinf(p) else add)(total, part)
    assert total is not None
    if p in (0, 1) or math.isinf(p):
        return total
    return sqrt(total) if p == 2 else pow(total, 1 / p)


def _reduced(differences: Tensor, p: float) -> Tensor:
    if math.isinf(p):
        return max_of(differences, -1) if differences.shape[-1] else sum_of(differences, -1)
    return sum_of(differences if p == 1 else square(differences) if p == 2 else pow(differences, float(p)), -1)
