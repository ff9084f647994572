"""Weights with adapters: low-rank products (Hu et al., 2021, https://arxiv.org/abs/2106.09685) beside those of a base.

The base's product is the node that it is without an adapter, so that calls with and without one share it. Layers get
such a weight in the place of the base's. The adapters of a call apply to all rows of its batch, or each to some rows:
then the matrices of all of them are one, and the scales of each row select those of its adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ShapeMismatch, TensorCommonsError
from ..ops import embedding, linear, matmul, multiply, permute_dims, reshape
from ..tensor import Tensor, TensorLike
from .weight import Weight, as_float32

OF_ROWS = ("input_ids", "token_type_ids", "position_ids")  # arguments whose first axis is the batch


@dataclass(frozen=True)
class LowRank:
    """A change of a product: ``(x @ down.T * scale) @ up.T``, of ``down`` (rank, in) and ``up`` (out, rank).

    ``scale`` is (1,), or (rows, rank) if each row of the batch has its own: 0 where it does not use the adapter.
    """

    down: Tensor
    up: Tensor
    scale: Tensor

    def product(self, x: Tensor) -> Tensor:
        """Compute the change for ``x`` (..., in)."""
        return self._raised(linear(x, self.down))

    def rows(self, ids: TensorLike) -> Tensor:
        """Compute the change of the rows ``ids`` of a table (in, out).

        Raises TensorCommonsError for a table that is not looked up by the rows of a batch, if these have own scales.
        """
        node = ids.node if isinstance(ids, Tensor) else None
        if self.scale.ndim == 2 and (node is None or node.op is not None or node.name not in OF_ROWS):
            raise TensorCommonsError(
                "an adapter of a table of positions applies to a whole batch: pass the same adapter for all rows"
            )
        return self._raised(as_float32(embedding(permute_dims(self.down, (1, 0)), ids)))

    def _raised(self, low: Tensor) -> Tensor:
        """Scale ``low`` (..., rank), and multiply it by ``up``.

        Raises ShapeMismatch if the rows have own scales, and ``low`` is not of these rows.
        """
        if self.scale.ndim == 1:
            return linear(multiply(low, self.scale), self.up)
        count, rank = self.scale.shape
        shape = low.shape
        if low.ndim == 2 and shape[0] != count and shape[0] % count == 0:
            low = reshape(low, (count, shape[0] // count, rank))  # the tokens of each row, one after the other
        if low.shape[0] != count:
            raise ShapeMismatch(f"{count} rows have adapters of their own, but a layer computes {low.shape[0]}")
        scale = reshape(self.scale, (count, *[1] * (low.ndim - 2), rank))
        return linear(reshape(multiply(low, scale), shape), self.up)


@dataclass(frozen=True, kw_only=True)
class AdaptedWeight(Weight):
    """A weight with what adapters change: ``products`` is multiplied and ``table`` looked up, each with its change."""

    products: Weight
    table: Weight
    change: LowRank | None = None
    change_of_rows: LowRank | None = None

    def linear(self, x: Tensor, bias: Tensor | None = None, *, is_transposed: bool = False) -> Tensor:
        """See :meth:`Weight.linear`."""
        y = self.products.linear(x, bias, is_transposed=is_transposed)
        # In this order, the sum is the epilogue of the change, and the base's product stays one of several.
        return self.change.product(x) + y if self.change else y

    def rows(self, ids: TensorLike) -> Tensor:
        """See :meth:`Weight.rows`."""
        y = self.table.rows(ids)
        return self.change_of_rows.rows(ids) + y if self.change_of_rows else y


@dataclass(frozen=True)
class WeightOfRows(Weight):
    """A matrix of each row of a batch, (rows, *shape), or a vector of each, the bias of such a matrix."""

    def linear(self, x: Tensor, bias: Tensor | None = None, *, is_transposed: bool = False) -> Tensor:
        """Multiply each row of ``x`` (rows, ..., in) by its matrix; ``bias`` is (out,), or of each row (rows, out).

        Raises ShapeMismatch if ``x`` does not have these rows.
        """
        matrices = as_float32(self.data)
        count = matrices.shape[0]
        if x.shape[0] != count:
            raise ShapeMismatch(f"{count} rows have adapters of their own, but a layer computes {x.shape[0]}")
        columns = matrices if is_transposed else permute_dims(matrices, (0, 2, 1))
        y = matmul(reshape(x, (count, -1, x.shape[-1])), columns)
        if bias is not None:
            y = y + (reshape(bias, (count, 1, -1)) if bias.ndim == 2 else bias)
        return reshape(y, (*x.shape[:-1], y.shape[-1]))
