"""Rows of a table by number, in float32 whatever the table is stored in."""

from __future__ import annotations

from ..ops import astype, embedding
from ..tensor import Tensor


def forward(table: Tensor, ids: Tensor) -> Tensor:
    """``table`` (rows, size) and int32 ``ids`` (...) -> float32 (..., size)."""
    return as_float32(embedding(table, ids))


def as_float32(x: Tensor) -> Tensor:
    """``x`` itself where it is float32."""
    return x if x.dtype.name == "float32" else astype(x, "float32")
