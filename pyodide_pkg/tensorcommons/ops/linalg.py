"""Products of linear algebra, composed of ``matmul`` for floats, and of multiplications and sums for ints."""

from __future__ import annotations

from collections.abc import Sequence

from .. import dtypes
from ..errors import ShapeMismatch, quoted
from ..shapes import normalize_axes, normalize_axis, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import multiply
from .layout import broadcast_to, permute_dims, reshape
from .matmul import matmul
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
    return sum_of(multiply(a, b), axis=axis)


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
    return reshape(_product(rows, columns), shape)


def _listed(axes: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Normalize axes, keeping their order. Raises ShapeMismatch for one that is out of range or named twice."""
    listed = tuple(axes) if isinstance(axes, (tuple, list)) else (axes,)
    normalize_axes(listed, ndim)
    return tuple(normalize_axis(axis, ndim) for axis in listed)


def _size(x: Tensor, axes: Sequence[int]) -> int:
    return size_of([x.shape[axis] for axis in axes])


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    if {rows.dtype, columns.dtype} <= {dtypes.float32, dtypes.float16}:
        return matmul(rows, columns)
    shape = (rows.shape[0], columns.shape[1], rows.shape[1])
    turned = permute_dims(columns, (1, 0))
    return sum_of(multiply(broadcast_to(reshape(rows, (shape[0], 1, shape[2])), shape), turned), axis=-1)


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
