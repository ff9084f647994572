"""Products with quantised weights, which are widened within the graph at every run.

So their bytes on the device are those of the file. It takes as long as with a float16 weight, which is widened, too:
16,384 x 576 by one row takes 4.8 ms in Chromium, 2.3 with float32. `dequantizeLinear` takes 94 ms, and quants and
scales as slices of one tensor 25, so each has a tensor of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from ....shapes import Shape, size_of
from ...base import BlockSpec, Value
from ..builder import GraphBuilder, Operand
from ..fields import ITEMSIZE, field_tensors
from .context import LoweringContext, Rule
from .matrices import linear_of


def _half(b: GraphBuilder, pairs: Operand) -> Operand:
    """Return the float16 numbers of ``pairs`` (n, 2), their bytes as int8 from low to high, as float32 (n, 1).

    A number is a multiple of a power of two that its high byte gives: the sum of two exact products. Infinities
    are right; a NaN may become one.
    """
    high = np.arange(256, dtype=np.uint16)
    with np.errstate(all="ignore"):
        base = (high << 8).view(np.float16).astype(np.float32)
        step = ((high << 8) + 1).view(np.float16).astype(np.float32) - base
    step[~np.isfinite(step)] = 0
    base[np.isnan(base)] = np.inf
    order = np.arange(-128, 128) % 256  # by the byte as int8
    count = pairs.shape[0]
    low_byte = b.cast(b.slice(pairs, [0, 0], (count, 1), [1, 1]), "int32")
    high_byte = b.cast(b.slice(pairs, [0, 1], (count, 1), [1, 1]), "int32")
    index = b.reshape(b.binary("add", high_byte, b.number(128, high_byte)), (count,))

    def chosen(table: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Operand:
        operands = {"input": b.constant(table[order], "float32"), "indices": index}
        return b.reshape(b.call("gather", operands, (count,), "float32", axis=0), (count, 1))

    negative = b.binary("lesser", low_byte, b.number(0, low_byte), "uint8")
    unsigned = b.where(negative, b.binary("add", low_byte, b.number(256, low_byte)), low_byte)
    return b.binary("add", chosen(base), b.binary("mul", b.cast(unsigned, "float32"), chosen(step)))


def _q8_0(b: GraphBuilder, quants: Operand, scales: Operand) -> Operand:
    """Widen quants (rows, size) by scales (rows, blocks)."""
    count = quants.size // 32
    wide = b.binary(
        "mul", b.cast(b.reshape(quants, (count, 32)), "float32"), b.cast(b.reshape(scales, (count, 1)), "float32")
    )
    return b.reshape(wide, quants.shape)


WIDEN: Mapping[str, Callable[..., Operand]] = {"q8_0": _q8_0}


def _stored(low: LoweringContext, value: Value, position: int) -> tuple[list[Operand], Callable[..., Operand], Shape]:
    """Return the fields of the weight of a value, what widens them, and its shape."""
    b, number = low.b, value.inputs[position]
    form, shape = str(value.attrs["block_format"]), cast(Shape, value.attrs["weight_shape"])
    if form not in WIDEN:
        raise b.refuse(f"of the block formats it computes with {', '.join(WIDEN)} only")
    if isinstance(low.values[number].spec, BlockSpec):  # a weight, each of whose fields has a tensor of its own
        return [b.input(number, own, dtype) for dtype, own in field_tensors(form, shape)], WIDEN[form], shape
    words, fields, first = low.given(value)[position], [], 0
    for dtype, own in field_tensors(form, shape):
        nbytes = size_of(own) * ITEMSIZE[dtype]
        part = b.slice(words, [first], (nbytes,), [1])
        fields.append(b.reshape(part if dtype == "int8" else _half(b, b.reshape(part, (nbytes // 2, 2))), own))
        first += nbytes
    return fields, WIDEN[form], shape


def _linear(low: LoweringContext, value: Value) -> Operand:
    fields, widen, _ = _stored(low, value, 1)
    x, _, *more = low.given(value)
    return linear_of(low.b, value, x, widen(low.b, *fields), more)


def _rows(low: LoweringContext, value: Value) -> Operand:
    """Take the rows of each field first, so that only these are widened."""
    b = low.b
    fields, widen, shape = _stored(low, value, 0)
    ids = b.reshape(low.given(value)[1], (size_of(value.spec.shape[:-1]),))
    low_enough = b.binary("lesser", ids, b.number(shape[0], ids), "uint8")
    valid = b.binary("logicalAnd", b.binary("greaterOrEqual", ids, b.number(0, ids), "uint8"), low_enough)
    safe = b.where(valid, ids, b.number(0, ids))
    taken = [
        b.call("gather", {"input": field, "indices": safe}, (ids.size, field.shape[1]), field.dtype, axis=0)
        for field in fields
    ]
    wide = widen(b, *taken)
    found = b.where(b.reshape(valid, (ids.size, 1)), wide, b.number(np.nan, wide))
    return b.reshape(found, value.spec.shape)


RULES: dict[str, Rule] = {"quantized_linear": _linear, "quantized_rows": _rows}
