"""Embedding lookup, in float32 whatever the dtype of the table."""

from __future__ import annotations

from ..ops import astype, embedding
from ..tensor import Tensor


def forward(table: Tensor, ids: Tensor) -> Tensor:
    """Look up int32 ``ids`` (...) in ``table`` (rows, size) -> float32 (..., size)."""
    return as_float32(embedding(table, ids))


def as_float32(x: Tensor) -> Tensor:
    """Cast ``x`` to float32, if it is not."""
    return x if x.dtype.name == "float32" else astype(x, "float32")
