"""Elements chosen by index. Indices that are out of range give NaN, or 0; WebNN leaves their result undefined."""

from __future__ import annotations

from typing import cast

import numpy as np

from ....shapes import contiguous_strides
from ...base import Value
from ..builder import MOVED, Operand
from .context import LoweringContext, Rule, physical


def _take(low: LoweringContext, value: Value) -> Operand:
    """Take rows by ``gather`` where each row has one index, as in an embedding; else each element by its place.

    LiteRT takes only constant indices for ``gatherElements``.
    """
    b, axis, wrap = low.b, cast(int, value.attrs["axis"]), bool(value.attrs["wrap"])
    dtype = physical(value.spec.dtype)
    nothing = np.asarray(np.nan if value.spec.dtype.kind == "float" else 0).astype(dtype)
    table = low.given(value)[0]
    ids = low.loose(value)[1]
    size = table.shape[axis]
    if not size:
        return b.constant(np.full(value.spec.shape, nothing), dtype)
    rank = len(table.shape)
    ids = b.reshape(ids, (1,) * (rank - len(ids.shape)) + ids.shape)
    if wrap:
        ids = b.where(
            b.binary("lesser", ids, b.number(0, ids), "uint8"), b.binary("add", ids, b.number(size, ids)), ids
        )
    low_enough = b.binary("lesser", ids, b.number(size, ids), "uint8")
    valid = b.binary("logicalAnd", b.binary("greaterOrEqual", ids, b.number(0, ids), "uint8"), low_enough)
    safe = b.where(valid, ids, b.number(0, ids))
    same = all(n == 1 for a, n in enumerate(ids.shape) if a != axis)
    kind = b.accepted("gather", "input", dtype, rank, MOVED)
    if same:
        safe, source = b.reshape(safe, (ids.shape[axis],)), table
    else:
        strides = contiguous_strides(table.shape)
        places = [np.arange(n, dtype=np.int32) * strides[a] for a, n in enumerate(value.spec.shape)]
        places[axis] = np.zeros(value.spec.shape[axis], np.int32)
        offsets = sum(np.ix_(*places), np.zeros(value.spec.shape, np.int32))
        safe = b.binary("add", b.binary("mul", safe, b.number(strides[axis], safe)), b.constant(offsets, "int32"))
        source, axis = b.reshape(table, (table.size,)), 0
    operands = {"input": b.cast(source, kind), "indices": safe}
    found = b.cast(b.call("gather", operands, value.spec.shape, kind, axis=axis), dtype)
    return b.where(valid, found, b.constant(nothing, dtype))


def _rotary(low: LoweringContext, value: Value) -> Operand:
    """Halves, or every second element, turned by their position's row; the rest of the last axis stays."""
    b = low.b
    x, cos, sin = low.given(value)[:3]
    positions = low.loose(value)[3:]
    wide = b.wide(x)
    half, sequence = cos.shape[1], x.shape[-2]
    ones = [1] * len(x.shape)
    known = b.known(positions[0]) if positions else None
    if known is not None and cos.shape[0] == 1 and not known.any():
        tables = [cos, sin]  # of the one position of a decoding step
    elif positions:
        at = positions[0]
        inside = b.binary("lesser", at, b.number(cos.shape[0], at), "uint8")
        valid = b.binary("logicalAnd", b.binary("greaterOrEqual", at, b.number(0, at), "uint8"), inside)
        safe = b.where(valid, at, b.number(0, at))
        valid = b.reshape(valid, (*valid.shape, 1))
        shape = (*at.shape, half)
        tables = [b.call("gather", {"input": t, "indices": safe}, shape, t.dtype, axis=0) for t in (cos, sin)]
        tables = [b.where(valid, t, b.number(np.nan, t)) for t in tables]
    else:
        tables = [b.slice(t, [0, 0], (sequence, half), [1, 1]) for t in (cos, sin)]

    def part(start: int, count: int, step: int = 1) -> Operand:
        return b.slice(wide, [0] * (len(ones) - 1) + [start], (*x.shape[:-1], count), [*ones[:-1], step])

    interleaved = bool(value.attrs["interleaved"])
    first, second = (part(0, half, 2), part(1, half, 2)) if interleaved else (part(0, half), part(half, half))
    c, s = tables
    turned = [
        b.binary("sub", b.binary("mul", first, c), b.binary("mul", second, s)),
        b.binary("add", b.binary("mul", second, c), b.binary("mul", first, s)),
    ]
    if interleaved:
        apart = [b.reshape(each, (*each.shape, 1)) for each in turned]
        turned = [b.reshape(b.concat(apart, len(ones)), (*x.shape[:-1], 2 * half))]
    rest = x.shape[-1] - 2 * half
    pieces = [*turned, *([part(2 * half, rest)] if rest else [])]
    return b.cast(b.concat(pieces, len(ones) - 1), x.dtype)


def _append(low: LoweringContext, value: Value) -> Operand:
    """Each row of the cache is what it was, or the row of ``update`` that is ``position`` rows before it."""
    b = low.b
    cache, update, position = low.given(value)
    batch, heads, capacity, size = cache.shape
    rows = update.shape[2]
    if not rows:
        return cache
    at = b.constant(np.arange(capacity)[None], "int32")
    source = b.binary("sub", at, b.reshape(position, (batch, 1)))
    fresh = b.binary("lesser", source, b.number(rows, source), "uint8")
    fresh = b.binary("logicalAnd", fresh, b.binary("greaterOrEqual", source, b.number(0, source), "uint8"))
    if rows == 1:  # a step of writing, for which the copy of the cache is most of the work
        return b.where(b.reshape(fresh, (batch, 1, capacity, 1)), update, cache)
    safe = b.where(fresh, source, b.number(0, source))
    flat = b.reshape(b.transpose(update, (0, 2, 1, 3)), (batch * rows, heads * size))
    first = b.constant(np.arange(batch)[:, None] * rows, "int32")
    kind = b.accepted("gather", "input", flat.dtype, 2, MOVED)
    operands = {"input": b.cast(flat, kind), "indices": b.binary("add", safe, first)}
    found = b.cast(b.call("gather", operands, (batch, capacity, heads * size), kind, axis=0), flat.dtype)
    new = b.transpose(b.reshape(found, (batch, capacity, heads, size)), (0, 2, 1, 3))
    return b.where(b.reshape(fresh, (batch, 1, capacity, 1)), new, cache)


RULES: dict[str, Rule] = {"kv_cache_append": _append, "take_along_axis": _take, "rotary_embedding": _rotary}
