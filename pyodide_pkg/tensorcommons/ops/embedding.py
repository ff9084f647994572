"""Rows of a table by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..tensor import Tensor, TensorLike
from .registry import apply, define


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    table, ids = specs
    if len(table.shape) != 2:
        raise ShapeMismatch(f"embedding: the table is (rows, size), not {table.shape}")
    if ids.dtype is not dtypes.int32 or table.dtype is not dtypes.float32:
        raise UnsupportedDtype(f"embedding takes a float32 table and int32 ids, not {table.dtype} and {ids.dtype}")
    return Spec((*ids.shape, table.shape[1]), table.dtype)


def _embedding(table: Any, ids: Any) -> Any:
    valid = (ids >= 0) & (ids < len(table))
    if len(table) == 0:
        return np.full((*ids.shape, table.shape[1]), np.float32("nan"))
    rows = table[np.where(valid, ids, 0)]
    return np.where(valid[..., None], rows, np.float32("nan"))


EMBEDDING = define("embedding", _infer, _embedding)


def embedding(table: TensorLike, ids: TensorLike) -> Tensor:
    """``table[ids]``: table ``(rows, size)`` float32, ids ``(...)`` int32, result ``(..., size)``.

    An id outside the table gives a row of NaN on every device, since a shader cannot raise; models check ids before.
    """
    return apply(EMBEDDING, table, ids)
