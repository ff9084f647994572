"""A weight: a logical matrix or tensor over one storage, in a format.

Matrices of products and tables of embeddings are used only through :meth:`Weight.linear` and :meth:`Weight.rows`, so
that their bytes may have another format than dense floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..backends.base import BlockSpec
from ..errors import InternalError
from ..formats import BLOCKS
from ..ops import astype, embedding, linear, permute_dims, take
from ..ops.quantized import quantized_linear, quantized_rows
from ..shapes import Shape
from ..tensor import Tensor, TensorLike
from .scope import Param


@dataclass(frozen=True)
class Weight:
    """The value of a parameter: a tensor over its storage, its logical shape, and the precision of its products.

    ``order`` (inputs,) are the columns of a matrix in the order in which they are stored, if that is another one.
    """

    data: Tensor
    shape: Shape
    precision: str = "exact"
    order: Tensor | None = None

    @property
    def format(self) -> str:
        """Name of the format of the storage: a dtype, or a block format such as "q8_0"."""
        spec = self.data.spec
        return spec.format if isinstance(spec, BlockSpec) else spec.dtype.name

    @property
    def _is_quantized(self) -> bool:
        return isinstance(self.data.spec, BlockSpec)

    def linear(self, x: Tensor, bias: Tensor | None = None, *, is_transposed: bool = False) -> Tensor:
        """Compute ``x @ W.T + bias``: (..., inputs) -> (..., outputs); W is (outputs, inputs).

        If ``is_transposed``, W is (inputs, outputs), and the result is ``x @ W + bias``.
        """
        if self.order is not None:
            x = take(x, self.order, axis=-1)
        if self._is_quantized and not is_transposed:
            precision = self.precision if BLOCKS[self.format].integers else "exact"
            return quantized_linear(x, self.data, bias, block_format=self.format, shape=self.shape, precision=precision)
        return linear(x, permute_dims(self.tensor, (1, 0)) if is_transposed else self.tensor, bias)

    def rows(self, ids: TensorLike) -> Tensor:
        """Look up int32 ``ids`` (...) in a table (rows, size) -> float32 (..., size)."""
        if self._is_quantized:
            return quantized_rows(self.data, ids, block_format=self.format, shape=self.shape)
        return as_float32(embedding(self.tensor, ids))

    @property
    def tensor(self) -> Tensor:
        """The dense tensor, in the dtype on the device. Raises InternalError for a block format."""
        if self._is_quantized:
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
