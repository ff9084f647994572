"""Products, norms and parts of matrices, composed of ``matmul`` and other ops: they run on the device.

Norms by singular values, and negative powers, need a decomposition (:mod:`.decompositions`) and with it the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import Literal

from .. import dtypes
from ..errors import ShapeMismatch, UnsupportedDtype, quoted
from ..shapes import broadcast_shapes, normalize_axes, normalize_axis, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .creation import eye
from .decompositions import inv, svdvals
from .elementwise import abs as magnitude
from .elementwise import astype, multiply, pow, sqrt, square, subtract
from .layout import broadcast_to, concat, permute_dims, reshape
from .manipulation import moveaxis
from .matmul import matmul
from .reduction import count_nonzero
from .reduction import max as max_of
from .reduction import min as min_of
from .reduction import sum as sum_of

Axes = int | tuple[int | Sequence[int], int | Sequence[int]]


def _both(x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor]:
    return as_tensor(x1, like=(x2,)), as_tensor(x2, like=(x1,))


def outer(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``y[i, j] = x1[i] * x2[j]``, over the flattened operands; any numeric dtype.

    >>> print(tc.outer([1, 2], [3, 4]).numpy())
    [[3 4]
     [6 8]]
    """
    a, b = _both(x1, x2)
    return multiply(reshape(a, (a.size, 1)), reshape(b, (1, b.size)))


def vecdot(x1: TensorLike, x2: TensorLike, axis: int = -1) -> Tensor:
    """``sum(x1 * x2)`` over ``axis``, which must be negative; the other axes broadcast.

    Raises:
        ShapeMismatch: ``axis`` is not negative, or differs in size.

    >>> print(tc.vecdot([[1, 2], [3, 4]], [1, 1]).numpy())
    [3 7]
    """
    a, b = _both(x1, x2)
    normalize_axis(axis, min(a.ndim, b.ndim))
    if axis >= 0:
        raise ShapeMismatch(f"vecdot: axis must be negative, counted from the end, not {axis}")
    if a.shape[axis] != b.shape[axis]:
        raise ShapeMismatch(f"vecdot: axis {axis} of {a.shape} and of {b.shape} differ in size")
    dtype = dtypes.result_type([a.dtype, b.dtype])
    wide = _wide(dtype)
    return astype(sum_of(multiply(astype(a, wide), astype(b, wide)), axis=axis, dtype=wide), dtype)


def _wide(dtype: dtypes.DType) -> dtypes.DType:
    """Return the dtype of intermediate results: float32 for float16."""
    return dtypes.float32 if dtype is dtypes.float16 else dtype


def tensordot(x1: TensorLike, x2: TensorLike, axes: Axes = 2) -> Tensor:
    """Sum products over ``axes``: a number n for the last n of ``x1`` and the first n of ``x2``, or a list for each.

    The result has the other axes of ``x1``, then those of ``x2``.

    Raises:
        ShapeMismatch: the axes differ in number or size, or one is named twice.

    >>> print(tc.tensordot([[1.0, 2.0]], [[3.0], [4.0]], 1).numpy())
    [[11.]]
    """
    a, b = _both(x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeMismatch(
                f"tensordot: axes must be 0 to {min(a.ndim, b.ndim)} for shapes {a.shape} and {b.shape}, not {axes}"
            )
        left, right = tuple(range(a.ndim - axes, a.ndim)), tuple(range(axes))
    else:
        if not isinstance(axes, (tuple, list)) or len(axes) != 2:
            raise ShapeMismatch(f"tensordot: axes must be a number, or a list for each operand, not {quoted(axes)}")
        left, right = (_listed(given, x.ndim) for given, x in zip(axes, (a, b), strict=True))
    if [a.shape[axis] for axis in left] != [b.shape[axis] for axis in right]:
        raise ShapeMismatch(f"tensordot: axes {left} of {a.shape} and {right} of {b.shape} differ in size")
    own = [axis for axis in range(a.ndim) if axis not in left]
    others = [axis for axis in range(b.ndim) if axis not in right]
    shape = tuple(a.shape[axis] for axis in own) + tuple(b.shape[axis] for axis in others)
    depth = _size(a, left)
    rows = reshape(permute_dims(a, (*own, *left)), (_size(a, own), depth))
    columns = reshape(permute_dims(b, (*right, *others)), (depth, _size(b, others)))
    return reshape(matmul(rows, columns), shape)


def _listed(axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Normalize axes, keeping their order. Raises ShapeMismatch for one that is out of range or named twice."""
    listed = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    normalize_axes(listed, ndim)
    return tuple(normalize_axis(axis, ndim) for axis in listed)


def _size(x: Tensor, axes: Sequence[int]) -> int:
    return size_of([x.shape[axis] for axis in axes])


def dot(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Multiply as ``numpy.dot``.

    Sums products over the last axis of ``x1`` and the second-last (or only) axis of ``x2``; if either is a scalar,
    multiplies elementwise.

    >>> print(tc.dot([1.0, 2.0], [3.0, 4.0]).numpy())
    11.0
    """
    a, b = _both(x1, x2)
    if 0 in (a.ndim, b.ndim):
        return multiply(a, b)
    return tensordot(a, b, axes=(-1, max(b.ndim - 2, 0)))


def cross(x1: TensorLike, x2: TensorLike, *, axis: int = -1) -> Tensor:
    """Cross product of vectors of three elements along ``axis``; the other axes broadcast.

    Raises:
        ShapeMismatch: ``axis`` does not have three elements in both, or is not the same one counted from the end.

    >>> print(tc.linalg.cross([1, 0, 0], [0, 1, 0]).numpy())
    [0 0 1]
    """
    a, b = _both(x1, x2)
    place = normalize_axis(axis, a.ndim) - a.ndim
    if place != normalize_axis(axis, b.ndim) - b.ndim:
        raise ShapeMismatch(f"cross: axis {axis} of {a.shape} and of {b.shape} are not the same counted from the end")
    if a.shape[place] != 3 or b.shape[place] != 3:
        raise ShapeMismatch(f"cross: axis {axis} of {a.shape} and of {b.shape} must have 3 elements")
    shape = broadcast_shapes(a.shape, b.shape)
    (ax, ay, az), (bx, by, bz) = (_thirds(broadcast_to(each, shape), place) for each in (a, b))
    pairs = ((ay, bz, az, by), (az, bx, ax, bz), (ax, by, ay, bx))
    return concat([subtract(multiply(p, q), multiply(r, s)) for p, q, r, s in pairs], axis=place)


def _thirds(x: Tensor, axis: int) -> list[Tensor]:
    """Return the three elements along ``axis``, a negative number, each with that axis."""
    rest = (slice(None),) * (-axis - 1)
    return [x[(..., slice(i, i + 1), *rest)] for i in range(3)]


def _matrices(x: TensorLike, op: str, square: bool = False) -> Tensor:
    tensor = as_tensor(x)
    if tensor.ndim < 2 or (square and tensor.shape[-1] != tensor.shape[-2]):
        raise ShapeMismatch(f"{op} takes {'square ' if square else ''}matrices, not shape {tensor.shape}")
    return tensor


def _floats(tensor: Tensor, op: str) -> Tensor:
    if tensor.dtype.kind != "float":
        raise UnsupportedDtype(f"{op} takes floats, not {tensor.dtype}: cast with tc.astype()")
    return tensor


def diagonal(x: TensorLike, *, offset: int = 0) -> Tensor:
    """Elements ``x[..., i, i + offset]`` of the matrices ``(..., M, N)``, any dtype; a view of a row-major ``x``.

    >>> print(tc.linalg.diagonal([[1, 2, 3], [4, 5, 6]], offset=1).numpy())
    [2 6]
    """
    tensor = _matrices(x, "diagonal")
    *lead, rows, columns = tensor.shape
    size = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    if size == 0:
        return tensor[..., 0:0, 0] if columns else tensor[..., 0, :] if rows else reshape(tensor, (*lead, 0))
    first = offset if offset >= 0 else -offset * columns
    flat = reshape(tensor, (*lead, rows * columns))
    return flat[..., first : first + (size - 1) * (columns + 1) + 1 : columns + 1]


def trace(x: TensorLike, *, offset: int = 0, dtype: object = None) -> Tensor:
    """Sums of the diagonals of the matrices ``(..., M, N)``, with the dtypes of :func:`sum`.

    >>> print(tc.linalg.trace([[1, 2], [3, 4]]).numpy())
    5
    """
    return sum_of(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def matrix_power(x: TensorLike, n: int) -> Tensor:
    """Product of ``n`` times the square matrices ``(..., M, M)``, by squaring; the identity for 0.

    A negative ``n`` multiplies inverses, which are computed on the host: see :func:`inv`.

    >>> print(tc.linalg.matrix_power([[1.0, 1.0], [0.0, 1.0]], 5).numpy())
    [[1. 5.]
     [0. 1.]]
    """
    try:
        n = index(n)
    except TypeError:
        raise ShapeMismatch(f"matrix_power: n must be an int, not {quoted(n)}") from None
    tensor = _floats(_matrices(x, "matrix_power", square=True), "matrix_power")
    if n.bit_length() > 64:
        raise ShapeMismatch("matrix_power: n must be less than 2**64")
    if n == 0:
        return broadcast_to(eye(tensor.shape[-1], dtype=tensor.dtype, device=tensor.own_device), tensor.shape)
    base = astype(tensor if n > 0 else inv(tensor), _wide(tensor.dtype))
    result = None
    for bit in bin(abs(n))[:1:-1].rstrip("b"):
        if bit == "1":
            result = base if result is None else matmul(result, base)
        base = matmul(base, base)
    assert result is not None
    return astype(result, tensor.dtype)


def vector_norm(
    x: TensorLike,
    *,
    axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
    ord: float = 2,  # noqa: A002 - the array API's name
) -> Tensor:
    """``sum(abs(x) ** ord) ** (1 / ord)`` over ``axis``, or over all axes.

    ``ord`` is any number: ``inf`` is the largest magnitude, ``-inf`` the smallest, and 0 the number of nonzero
    elements. float16 is computed in float32.

    >>> print(tc.linalg.vector_norm([3.0, 4.0]).numpy())
    5.0
    """
    tensor = _floats(as_tensor(x), "vector_norm")
    if isinstance(ord, bool) or not isinstance(ord, Real) or math.isnan(ord):
        raise ShapeMismatch(f"vector_norm: ord must be a number, not {quoted(ord)}")
    wide = astype(tensor, _wide(tensor.dtype))
    if ord == 0:
        result = count_nonzero(wide, axis, keepdims)
    elif ord == 2:
        result = sqrt(sum_of(square(wide), axis, keepdims))
    elif ord == 1:
        result = sum_of(magnitude(wide), axis, keepdims)
    elif math.isinf(ord):
        result = (max_of if ord > 0 else min_of)(magnitude(wide), axis, keepdims)
    else:
        result = pow(sum_of(pow(magnitude(wide), float(ord)), axis, keepdims), 1 / float(ord))
    return astype(result, tensor.dtype)


def matrix_norm(
    x: TensorLike,
    *,
    keepdims: bool = False,
    ord: float | Literal["fro", "nuc"] | None = "fro",  # noqa: A002 - the array API's name
) -> Tensor:
    """Norms of the matrices ``(..., M, N)``.

    ``ord`` is "fro" (Frobenius), "nuc" (sum of the singular values), 1 or -1 (largest or smallest sum of magnitudes of
    a column), ``inf`` or ``-inf`` (of a row), 2 or -2 (largest or smallest singular value). Those by singular values
    are computed on the host: see :func:`svd`.

    >>> print(tc.linalg.matrix_norm([[3.0, 0.0], [0.0, 4.0]]).numpy())
    5.0
    """
    tensor = _floats(_matrices(x, "matrix_norm"), "matrix_norm")
    if ord is None or ord == "fro":
        return vector_norm(tensor, axis=(-2, -1), keepdims=keepdims)
    wide = astype(tensor, _wide(tensor.dtype))
    if ord == "nuc":
        result = sum_of(svdvals(wide), axis=-1)
    elif ord in (2, -2):
        result = (max_of if ord == 2 else min_of)(svdvals(wide), axis=-1)
    elif ord in (1, -1, math.inf, -math.inf):
        sums = sum_of(magnitude(wide), axis=-2 if ord in (1, -1) else -1)
        result = (max_of if ord in (1, math.inf) else min_of)(sums, axis=-1)
    else:
        raise ShapeMismatch(f'matrix_norm: ord must be "fro", "nuc", 1, -1, 2, -2, inf or -inf, not {quoted(ord)}')
    return astype(reshape(result, (*tensor.shape[:-2], 1, 1)) if keepdims else result, tensor.dtype)


def norm(
    x: TensorLike,
    ord: float | Literal["fro", "nuc"] | None = None,  # noqa: A002 - NumPy's name
    axis: int | Sequence[int] | None = None,
    keepdims: bool = False,
) -> Tensor:
    """Norm as ``numpy.linalg.norm``: of vectors along one ``axis``, or of matrices over two.

    Without ``ord`` the square root of the sum of squares, over all axes by default. With ``ord`` and without ``axis``,
    ``x`` has one axis or two. See :func:`vector_norm` and :func:`matrix_norm`.

    >>> print(tc.linalg.norm([[3.0, 4.0], [6.0, 8.0]], axis=1).numpy())
    [ 5. 10.]
    """
    tensor = as_tensor(x)
    axes = tuple(range(tensor.ndim)) if axis is None else _listed(axis, tensor.ndim)
    if ord is None:
        return vector_norm(tensor, axis=axes, keepdims=keepdims)
    if len(axes) == 1 and not isinstance(ord, str):
        return vector_norm(tensor, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2:
        raise ShapeMismatch(f"norm: ord {quoted(ord)} of shape {tensor.shape} needs axis, of one axis or two")
    result = matrix_norm(moveaxis(tensor, axes, (-2, -1)), ord=ord)
    kept = [1 if place in axes else size for place, size in enumerate(tensor.shape)]
    return reshape(result, kept) if keepdims else result
