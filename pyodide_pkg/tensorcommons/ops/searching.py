"""Search for elements: those that are not zero, and places in a sorted tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, TensorCommonsError, quoted
from ..tensor import Tensor, TensorLike, as_tensor, asarray
from .elementwise import astype
from .indexing import take
from .reading import values_of
from .registry import apply, define


def nonzero(x: TensorLike) -> tuple[Tensor, ...]:
    """Return the positions of the elements that are not zero, as NaN is: for each axis a tensor (n,) of int32.

    They are in row-major order. The values are read, as for :func:`unique_all`.

    Raises:
        ReadRequired: the device is asynchronous, and the running Python cannot be suspended.
        ShapeMismatch: ``x`` has no axes.

    >>> rows, columns = tc.nonzero([[0, 5], [7, 0]])
    >>> print(rows.numpy(), columns.numpy())
    [0 1] [1 0]
    """
    tensor = as_tensor(x)
    if not tensor.ndim:
        raise ShapeMismatch("nonzero takes a tensor with axes")
    found = np.nonzero(values_of(tensor, "nonzero()", "np.nonzero(await x.read())"))
    return tuple(asarray(axis.astype(np.int32), device=tensor.own_device) for axis in found)


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return Spec(specs[1].shape, dtypes.int32)


def _search(x: Any, values: Any, side: Any) -> Any:
    return np.asarray(np.searchsorted(x, values, side)).astype(np.int32)


SEARCHSORTED = define("searchsorted", _infer, _search)


def searchsorted(x1: TensorLike, x2: TensorLike, side: str = "left", sorter: TensorLike | None = None) -> Tensor:
    """Return where each element of ``x2`` would be inserted into the sorted ``x1`` (n,): int32 from 0 to n.

    The result has the shape of ``x2``. Before the place are the elements of ``x1`` that are less, or with
    ``side="right"`` those that are not greater. NaN is larger than all numbers, as in :func:`sort`. ``sorter``, from
    :func:`argsort`, sorts an ``x1`` that is not.

    Raises:
        ShapeMismatch: ``x1`` has not one axis.
        TensorCommonsError: ``side`` is neither "left" nor "right".

    >>> print(tc.searchsorted([10, 20, 20, 30], [20, 35]).numpy())
    [1 4]
    >>> print(tc.searchsorted([10, 20, 20, 30], [20, 5], side="right").numpy())
    [3 0]
    """
    if side not in ("left", "right"):
        raise TensorCommonsError(f"searchsorted: side must be 'left' or 'right', not {quoted(side)}")
    row = as_tensor(x1, like=(x2,))
    values = as_tensor(x2, like=(row,))
    if row.ndim != 1:
        raise ShapeMismatch(f"searchsorted: x1 must have one axis, not the shape {row.shape}")
    if sorter is not None:
        row = take(row, sorter)
    common = dtypes.result_type([row.dtype, values.dtype])
    return apply(SEARCHSORTED, astype(row, common), astype(values, common), side=side)
