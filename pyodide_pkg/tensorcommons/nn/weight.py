"""A weight: a logical matrix or tensor over one storage, in a format.

Matrices of products and tables of embeddings are used only through :meth:`Weight.linear` and :meth:`Weight.rows`, so
that their bytes may have another format than dense floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import InternalError
from ..ops import astype, embedding, linear, matmul
from ..shapes import Shape
from ..tensor import Tensor, TensorLike
from .scope import Param

DENSE = "dense"


@dataclass(frozen=True)
class Weight:
    """The value of a parameter: ``shape`` is its logical shape, ``format`` is "dense" or the name of a block format."""

    data: Tensor
    shape: Shape
    format: str = DENSE

    def linear(self, x: Tensor, bias: Tensor | None = None, *, is_transposed: bool = False) -> Tensor:
        """Compute ``x @ W.T + bias``: (..., inputs) -> (..., outputs); W is (outputs, inputs).

        If ``is_transposed``, W is (inputs, outputs), and the result is ``x @ W + bias``.
        """
        if not is_transposed:
            return linear(x, self.tensor, bias)
        product = matmul(x, self.tensor)
        return product if bias is None else product + bias

    def rows(self, ids: TensorLike) -> Tensor:
        """Look up int32 ``ids`` (...) in a table (rows, size) -> float32 (..., size)."""
        return as_float32(embedding(self.tensor, ids))

    @property
    def tensor(self) -> Tensor:
        """The dense tensor, in the dtype on the device. Raises InternalError for a block format."""
        if self.format != DENSE:
            raise InternalError(f"a weight of the format {self.format} is used as a dense tensor")
        return self.data

    @property
    def float32(self) -> Tensor:
        """The dense tensor, cast to float32."""
        return as_float32(self.tensor)


Weights: TypeAlias = Mapping[Param, Weight]


def as_float32(x: Tensor) -> Tensor:
    """Cast ``x`` to float32, if it is not."""
    return x if x.dtype.name == "float32" else astype(x, "float32")
