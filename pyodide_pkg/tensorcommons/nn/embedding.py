"""Embedding lookup, in float32 whatever the dtype of the table."""

from __future__ import annotations

from ..tensor import Tensor, TensorLike
from .scope import Scope
from .weight import Weights


class Embedding:
    """A table (rows, size) of learned vectors."""

    def __init__(self, scope: Scope, rows: int, size: int) -> None:
        self.weight = scope.param("weight", (rows, size), "table")

    def __call__(self, weights: Weights, ids: TensorLike) -> Tensor:
        """Look up int32 ``ids`` (...) -> float32 (..., size)."""
        return weights[self.weight].rows(ids)
