"""Reductions, with defined results where WebNN leaves them open: for NaN, and for no elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ....shapes import Shape, part_length, size_of
from ...base import Value
from ..builder import GraphBuilder, Operand
from .context import LoweringContext, Rule, physical
from .elementwise import exp, log

POSITIONS = ("argmax", "argmin")
Reduce = Callable[[GraphBuilder, Operand, Sequence[int], bool], Operand]


def _reduction(function: Reduce) -> Rule:
    """Make the rule of a function over whole rows; parts of rows are sliced and reduced separately."""

    def rule(low: LoweringContext, value: Value) -> Operand:
        (x,), b = low.given(value), low.b
        axes, keepdims = cast(Shape, value.attrs["axes"]), bool(value.attrs["keepdims"])
        parts, dtype = cast(int, value.attrs.get("parts", 1)), physical(value.spec.dtype)
        if not x.size:  # nothing to reduce: the answer depends on no number
            assert value.op is not None
            source = low.values[value.inputs[0]].spec
            answer = value.op.reference(np.zeros(source.shape, source.dtype.numpy), **value.attrs)
            return b.constant(np.asarray(answer).astype(dtype), dtype)
        x = b.wide(x)
        if value.spec.dtype.kind != "bool" and x.dtype == "uint8":
            x = b.cast(x, "int32")
        if parts == 1:
            return b.cast(function(b, x, axes, keepdims), dtype)
        kept = [axis for axis in range(len(x.shape)) if axis not in axes]
        length = size_of([x.shape[axis] for axis in axes])
        rows = b.reshape(b.transpose(x, (*kept, *axes)), (*(x.shape[axis] for axis in kept), length))
        step, results = part_length(length, parts), []
        for start in range(0, length, step):
            size = (*rows.shape[:-1], min(step, length - start))
            piece = b.slice(rows, [0] * len(kept) + [start], size, [1] * len(size))
            found = function(b, piece, (len(kept),), True)
            if value.op is not None and value.op.name in POSITIONS and start:  # those of the row
                found = b.binary("add", found, b.number(start, found))
            results.append(b.cast(found, dtype))
        return b.reshape(b.concat(results, len(kept)), value.spec.shape)

    return rule


def by(method: str) -> Reduce:
    """A method of the builder as it is."""
    return lambda b, x, axes, keepdims: b.reduce(method, x, axes, keepdims)


def extreme(method: str) -> Reduce:
    """The largest or smallest; NaN where one is."""

    def function(b: GraphBuilder, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
        found = b.reduce(method, x, axes, keepdims)
        if not x.dtype.startswith("float"):
            return found
        odd = b.cast(b.binary("notEqual", x, x, "uint8"), "float32")
        any_odd = b.reduce("reduceMax", odd, axes, keepdims)
        return b.where(b.binary("greater", any_odd, b.number(0, any_odd), "uint8"), b.number(np.nan, found), found)

    return function


def _flags(b: GraphBuilder, x: Operand) -> Operand:
    """1 where an element is not 0."""
    return b.cast(x if x.dtype == "uint8" else b.binary("notEqual", x, b.number(0, x), "uint8"), "int32")


def _flagged(method: str, result: str) -> Reduce:
    return lambda b, x, axes, keepdims: b.cast(b.reduce(method, _flags(b, x), axes, keepdims), result)


def mean(b: GraphBuilder, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
    """Arithmetic mean."""
    return b.reduce("reduceMean", x, axes, keepdims)


def _var(low: LoweringContext, value: Value) -> Operand:
    correction = float(value.attrs["correction"])  # type: ignore[arg-type]

    def function(b: GraphBuilder, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
        count = size_of([x.shape[axis] for axis in axes])
        first = b.slice(
            x, [0] * len(x.shape), [1 if a in axes else n for a, n in enumerate(x.shape)], [1] * len(x.shape)
        )
        shifted = b.binary("sub", x, first)  # a mean of 1e4 has no digits behind the point
        centred = b.binary("sub", shifted, mean(b, shifted, axes, True))
        total = b.reduce("reduceSum", b.binary("mul", centred, centred), axes, keepdims)
        return b.binary("div", total, b.number(max(count - correction, 0), total))

    attrs = {name: each for name, each in value.attrs.items() if name != "correction"}
    if not low.given(value)[0].size:
        return _reduction(function)(low, value)
    return _reduction(function)(low, Value(value.op, attrs, value.inputs, value.spec))


def _logsumexp(b: GraphBuilder, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
    largest = b.reduce("reduceMax", x, axes, True)
    finite = b.binary("lesser", b.unary("abs", largest), b.number(np.inf, x), "uint8")
    shift = b.where(finite, largest, b.number(0, x))
    total = b.reduce("reduceSum", exp(b, b.binary("sub", x, shift)), axes, True)
    result = b.binary("add", log(b, total), shift)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes)
    return b.reshape(result, shape)


def _position(reducer: str) -> Reduce:
    """The first place of the extreme, or of the first NaN: where an element equals it, counted from the front."""

    def function(b: GraphBuilder, x: Operand, axes: Sequence[int], keepdims: bool) -> Operand:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdims or axis not in axes)
        if len(axes) > 1 or not x.shape:
            x, axis = b.reshape(x, (x.size,)), 0
        else:
            axis = axes[0]
        kind = "int64" if x.dtype == "uint32" else x.dtype
        x = b.cast(x, kind)
        extreme = b.reduce(reducer, x, [axis], True)
        hit = b.binary("equal", x, extreme, "uint8")
        if kind.startswith("float"):
            odd = b.binary("notEqual", x, x, "uint8")
            some = b.reduce("reduceMax", b.cast(odd, "float32"), [axis], True)
            none = b.binary("lesserOrEqual", some, b.number(0, some), "uint8")
            hit = b.binary("logicalOr", b.binary("logicalAnd", hit, none), odd)
        return b.reshape(_first(b, hit, axis), shape)

    return function


def _first(b: GraphBuilder, hit: Operand, axis: int) -> Operand:
    """The place of the first element that is not 0: of the numbers that fall towards the end, it has the largest."""
    size = hit.shape[axis]
    falling = np.arange(size, 0, -1, dtype=np.int32).reshape([-1] + [1] * (len(hit.shape) - axis - 1))
    first = b.constant(falling, "int32")
    first = b.reduce("reduceMax", b.where(hit, first, b.number(0, first)), [axis], True)
    return b.binary("sub", b.number(size, first), first)


def _likeliest(low: LoweringContext, value: Value) -> Operand:
    """The first largest score of each row, -1 where one is NaN."""
    (x,), b = low.given(value), low.b
    x = b.wide(x)
    odd = b.reduce("reduceMax", b.cast(b.binary("notEqual", x, x, "uint8"), "float32"), [1], True)
    token = _first(b, b.binary("equal", x, b.reduce("reduceMax", x, [1], True), "uint8"), 1)
    return b.where(b.binary("greater", odd, b.number(0, odd), "uint8"), b.number(-1, token), token)


BLOCK = 128  # elements of a running sum; more lose digits one by one


def _running(b: GraphBuilder, x: Operand) -> Operand:
    """The running sum of each row, in blocks that the sums of those before are added to."""
    *rows, size = x.shape
    if size <= BLOCK:
        options: Any = {"exclusive": False, "reversed": False}
        return b.call("cumulativeSum", {"input": x}, x.shape, x.dtype, len(rows), **options)
    flat = b.reshape(x, (size_of(rows), size))
    blocks = -(-size // BLOCK)
    if size % BLOCK:
        flat = b.concat([flat, b.filled(0, (size_of(rows), blocks * BLOCK - size), x)], 1)
    parts = _running(b, b.reshape(flat, (size_of(rows), blocks, BLOCK)))
    totals = b.reshape(
        b.slice(parts, [0, 0, BLOCK - 1], (size_of(rows), blocks, 1), [1, 1, 1]), (size_of(rows), blocks)
    )
    before = b.binary("sub", _running(b, totals), totals)
    sums = b.binary("add", parts, b.reshape(before, (size_of(rows), blocks, 1)))
    whole = b.reshape(sums, (size_of(rows), blocks * BLOCK))
    return b.reshape(b.slice(whole, [0, 0], (size_of(rows), size), [1, 1]), x.shape)


def _cumulative_sum(low: LoweringContext, value: Value) -> Operand:
    (x,), b = low.given(value), low.b
    dtype = physical(value.spec.dtype)
    x = b.wide(x)
    x = b.cast(x, "int64" if dtype == "uint32" else "float32" if dtype == "float16" else dtype)
    y = _running(b, x) if x.size else x
    if value.attrs["include_initial"]:
        y = b.concat([b.filled(0, (*x.shape[:-1], 1), x), y], len(x.shape) - 1)
    return b.cast(y, dtype)


def _cumulative_prod(low: LoweringContext, value: Value) -> Operand:
    """Products of twice as many neighbours in each step (Hillis and Steele, 1986)."""
    (x,), b = low.given(value), low.b
    if value.spec.dtype.kind == "float":
        raise b.refuse("running products of floats could overflow on the way")
    x = b.cast(x, physical(value.spec.dtype))
    *rows, size = x.shape

    def ones(count: int) -> Operand:
        return b.filled(1, (*rows, count), x)

    y, step = x, 1
    while x.size and step < size:
        before = b.slice(y, [0] * len(x.shape), (*rows, size - step), [1] * len(x.shape))
        y = b.binary("mul", y, b.concat([ones(step), before], len(rows)))
        step *= 2
    if value.attrs["include_initial"]:
        y = b.concat([ones(1), y], len(rows)) if x.size else ones(size + 1)
    return y


RULES: dict[str, Rule] = {
    "sum": _reduction(by("reduceSum")),
    "prod": _reduction(by("reduceProduct")),
    "mean": _reduction(mean),
    "max": _reduction(extreme("reduceMax")),
    "min": _reduction(extreme("reduceMin")),
    "any": _reduction(_flagged("reduceMax", "uint8")),
    "all": _reduction(_flagged("reduceMin", "uint8")),
    "count_nonzero": _reduction(_flagged("reduceSum", "int32")),
    "var": _var,
    "logsumexp": _reduction(_logsumexp),
    "argmax": _reduction(_position("reduceMax")),
    "likeliest": _likeliest,
    "argmin": _reduction(_position("reduceMin")),
    "cumulative_sum": _cumulative_sum,
    "cumulative_prod": _cumulative_prod,
}
