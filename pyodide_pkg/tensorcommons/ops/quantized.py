"""Products with quantised weights, and rows of quantised tables. The operand is the storage of a block format.

``block_format`` names it (:mod:`tensorcommons.formats`), and ``weight_shape`` is (out, in), or (rows, size) of a table.
``precision`` of a product is "exact", or "fast" on a device that multiplies int8 numbers (``Backend.multiplies_int8``):
there activations are rounded to int8 in blocks of 32.
Layers call these ops through :class:`~tensorcommons.nn.weight.Weight`; sums are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..formats import BLOCKS, BlockFormat
from ..formats.int8_blocks import int8_blocks
from ..shapes import Shape, size_of
from ..tensor import Tensor, TensorLike
from .matmul import common_float, epilogue_operations, finished
from .registry import apply, as_float32, define

PRECISIONS = ("exact", "fast")


def check_precision(precision: object) -> None:
    """Raise TensorCommonsError unless ``precision`` is one of :data:`PRECISIONS`."""
    if precision not in PRECISIONS:
        raise TensorCommonsError(f"precision must be {' or '.join(PRECISIONS)}, not {quoted(precision)}")


def _weight(words: Spec, attrs: Attributes) -> tuple[BlockFormat, Shape]:
    """Return format and shape of a weight. Raises ShapeMismatch unless ``words`` is the spec of its storage."""
    form, shape = BLOCKS.get(str(attrs["block_format"])), attrs["weight_shape"]
    if form is None:
        raise UnsupportedDtype(f"{quoted(attrs['block_format'])} is not a block format; they are {', '.join(BLOCKS)}")
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ShapeMismatch(f"the shape of a weight must be two sizes, not {quoted(shape)}")
    sizes: Shape = tuple(size for size in shape if isinstance(size, int))
    if reason := form.misfit(sizes):
        raise ShapeMismatch(reason)
    wanted = form.spec(sizes)
    if (words.shape, words.dtype) != (wanted.shape, wanted.dtype):
        raise ShapeMismatch(
            f"a weight {sizes} of {form.name} has a storage of {wanted.shape[0]:,} bytes of {wanted.dtype}, "
            f"not {words.shape} of {words.dtype}"
        )
    return form, sizes


def _infer_linear(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    check_precision(attrs["precision"])
    x, words, *more = specs
    dtype = common_float([x, *more], "a product with a quantised weight")
    _, shape = _weight(words, attrs)
    if not x.shape or x.shape[-1] != shape[1]:
        raise ShapeMismatch(f"x {x.shape} and the weight {shape} must be (..., in) and (out, in)")
    result = Spec((*x.shape[:-1], shape[0]), dtype)
    if attrs["residual"] and more.pop().shape != result.shape:
        raise ShapeMismatch(f"the residual must have the shape of the result, {result.shape}")
    if more and more[0].shape != shape[:1]:
        raise ShapeMismatch(f"the bias must be {shape[:1]}, not {more[0].shape}")
    return result


def _linear(
    x: Any,
    words: Any,
    *more: Any,
    block_format: str,
    weight_shape: Shape,
    precision: str,
    activation: str | None,
    residual: bool,
    first: int = 0,
    count: int | None = None,
) -> Any:
    """Compute ``count`` columns from ``first`` on, of which ``more`` are parts; all, if it is None."""
    form, shape, wide = BLOCKS[block_format], weight_shape, as_float32(x)
    if precision == "fast":
        wide = int8_blocks(wide)
    y = np.empty((*wide.shape[:-1], shape[0] if count is None else count), np.float32)
    for part in form.parts((y.shape[-1], shape[1])):
        y[..., part] = wide @ form.dense(words, shape, slice(first + part.start, first + part.stop)).T
    return finished(y, more, activation, residual)


def _infer_rows(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    words, ids = specs
    _, shape = _weight(words, attrs)
    if ids.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"rows of a quantised table are taken by int32 indices, not {ids.dtype}")
    return Spec((*ids.shape, shape[1]), dtypes.float32)


def _rows(words: Any, ids: Any, *, block_format: str, weight_shape: Shape) -> Any:
    flat, shape = ids.reshape(-1), weight_shape
    valid = (flat >= 0) & (flat < shape[0])
    found = BLOCKS[block_format].rows(words, shape, np.where(valid, flat, 0))
    return np.where(valid[:, None], found, np.float32(np.nan)).reshape(*ids.shape, shape[1])


def _traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes of the rows taken and of their indices, read, and of the result, written."""
    words, ids = specs
    _, shape = _weight(words, attrs)
    return size_of(ids.shape) * (words.nbytes // shape[0]) + ids.nbytes + result.nbytes


QUANTIZED_LINEAR = define(
    "quantized_linear",
    _infer_linear,
    _linear,
    takes_epilogue=True,
    multiply_adds=lambda specs, result, attrs: size_of(result.shape) * specs[0].shape[-1],
    operations=epilogue_operations,
)
QUANTIZED_ROWS = define("quantized_rows", _infer_rows, _rows, traffic=_traffic)


def quantized_linear(
    x: TensorLike,
    words: Tensor,
    bias: TensorLike | None = None,
    *,
    block_format: str,
    shape: Shape,
    precision: str = "exact",
) -> Tensor:
    """``x @ weight.T + bias`` of ``x`` (..., in), a weight of ``shape`` (out, in) and ``bias`` (out,).

    Raises:
        ShapeMismatch, UnsupportedDtype: ``words`` is not the storage of such a weight, or the operands do not fit it.
        TensorCommonsError: the precision is unknown.
    """
    more = () if bias is None else (bias,)
    return apply(
        QUANTIZED_LINEAR,
        x,
        words,
        *more,
        block_format=block_format,
        weight_shape=shape,
        precision=precision,
        activation=None,
        residual=False,
    )


def quantized_rows(words: Tensor, ids: TensorLike, *, block_format: str, shape: Shape) -> Tensor:
    """Rows ``ids`` (...), int32, of a table of ``shape`` (rows, size): float32 (..., size).

    An index out of range, also a negative one, gives NaN, as in ``embedding``.

    Raises:
        ShapeMismatch, UnsupportedDtype: ``words`` is not the storage of such a table, or ``ids`` are not int32.
    """
    return apply(QUANTIZED_ROWS, words, ids, block_format=block_format, weight_shape=shape)
