"""Views and copies: the same elements elsewhere, bit for bit. On WebNN a view is an operation like any other."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ....shapes import Shape
from ...base import Value
from ..builder import MOVED, Operand
from .context import LoweringContext, Rule


def _reshape(low: LoweringContext, value: Value) -> Operand:
    return low.b.reshape(low.given(value)[0], value.spec.shape)


def _permute(low: LoweringContext, value: Value) -> Operand:
    return low.b.transpose(low.given(value)[0], cast(Shape, value.attrs["axes"]))


def _broadcast(low: LoweringContext, value: Value) -> Operand:
    return low.loose(value)[0]  # what it is lowered to is expanded where that matters


def _slice(low: LoweringContext, value: Value) -> Operand:
    (x,) = low.given(value)
    ranges: Any = value.attrs["ranges"]
    if not x.shape:
        return x
    return low.b.slice(x, [r[0] for r in ranges], value.spec.shape, [r[2] for r in ranges])


def _concat(low: LoweringContext, value: Value) -> Operand:
    return low.b.concat(low.given(value), cast(int, value.attrs["axis"]))


def _pad(low: LoweringContext, value: Value) -> Operand:
    (x,) = low.given(value)
    with np.errstate(over="ignore"):
        fill = np.asarray(value.attrs["value"]).astype(value.spec.dtype.numpy)
    if not x.size:
        return low.b.filled(fill.item(), value.spec.shape, x)
    widths: Any = value.attrs["widths"]
    kind = low.b.accepted("pad", "input", x.dtype, len(x.shape), MOVED)
    return low.b.moved(
        "pad", x, value.spec.shape, [w[0] for w in widths], [w[1] for w in widths], value=fill.astype(kind).item()
    )


def _arange(low: LoweringContext, value: Value) -> Operand:
    assert value.op is not None
    return low.b.constant(value.op.reference(**value.attrs), value.spec.dtype.name)


RULES: dict[str, Rule] = {
    "reshape": _reshape,
    "permute_dims": _permute,
    "broadcast_to": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
    "arange": _arange,
}
