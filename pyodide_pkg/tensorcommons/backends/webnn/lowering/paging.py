"""Keys and values in pages: see ``ops/paging.py``. Every append copies its pool, since no tensor is input and output.

A page number may be anything. What is outside the pool is not written, and read as 0.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from ....shapes import Shape
from ...base import Value
from ..builder import MOVED, GraphBuilder, Operand
from .context import LoweringContext, Rule
from .matrices import attended, attention_scores

BEFORE, NEW, PAGES = 0, 1, 2  # columns of a table; pages from the last one on
BEYOND_HALF = 65520.0  # rounds to infinity in float16


def _column(b: GraphBuilder, table: Operand, column: int) -> Operand:
    """Return a column of a table: (rows, 1)."""
    return b.slice(table, [0, column], (table.shape[0], 1), [1, 1])


def _numbers(b: GraphBuilder, table: Operand) -> Operand:
    """Return the numbers of the pages: (rows, count)."""
    rows, width = table.shape
    return b.slice(table, [0, PAGES], (rows, width - PAGES), [1, 1])


def _end(b: GraphBuilder, table: Operand) -> Operand:
    """Return the number of tokens of each row after the step: (rows, 1)."""
    return b.binary("add", _column(b, table, BEFORE), _column(b, table, NEW))


def _all(b: GraphBuilder, *conditions: Operand) -> Operand:
    first, *others = conditions
    for each in others:
        first = b.binary("logicalAnd", first, each)
    return first


def _lesser(b: GraphBuilder, x: Operand, y: Operand | int) -> Operand:
    return b.binary("lesser", x, b.number(y, x) if isinstance(y, int) else y, "uint8")


def _not_lesser(b: GraphBuilder, x: Operand, y: Operand | int) -> Operand:
    return b.binary("greaterOrEqual", x, b.number(y, x) if isinstance(y, int) else y, "uint8")


def _found(b: GraphBuilder, source: Operand, indices: Operand) -> Operand:
    """``source[indices]`` along axis 0; all indices are within it."""
    kind = b.accepted("gather", "input", source.dtype, len(source.shape), MOVED)
    shape = (*indices.shape, *source.shape[1:])
    found = b.call("gather", {"input": b.cast(source, kind), "indices": indices}, shape, kind, axis=0)
    return b.cast(found, source.dtype)


def _written(b: GraphBuilder, table: Operand, pool: Shape, columns: int) -> tuple[Operand, Operand, Operand]:
    """Return which slots of the pages of ``pool`` a new token is written to, its column, and the row that has the page.

    These are uint8 and int32 (pages, size), and int32 (pages,); ``columns`` is the number of columns of the tokens.
    """
    pages, _, size, _ = pool
    rows, count = table.shape[0], table.shape[1] - PAGES
    before, new = _column(b, table, BEFORE), _column(b, table, NEW)
    new = b.where(_lesser(b, new, columns), new, b.number(columns, new))
    ahead = b.binary("sub", b.constant(np.arange(count)[None] * size, "int32"), before)  # of a page's first slot
    written = _all(b, _lesser(b, ahead, new), _not_lesser(b, ahead, 1 - size), _not_lesser(b, new, 1))
    own = b.binary("equal", _flat(b, _numbers(b, table)), b.constant(np.arange(pages)[:, None], "int32"), "uint8")
    own = _all(b, own, _flat(b, written))
    place = b.constant(np.arange(1, rows * count + 1)[None], "int32")  # in the table, from 1 on
    place = b.reduce("reduceMax", b.where(own, place, b.number(0, place)), [1], False)
    is_own = _not_lesser(b, place, 1)
    place = b.binary("sub", b.where(is_own, place, b.number(1, place)), b.number(1, place))
    column = b.reshape(_found(b, b.reshape(ahead, (rows * count,)), place), (pages, 1))
    column = b.binary("add", column, b.constant(np.arange(size)[None], "int32"))
    most = _found(b, b.reshape(b.expand(new, (rows, count)), (rows * count,)), place)
    fresh = _all(b, _not_lesser(b, column, 0), _lesser(b, column, b.reshape(most, (pages, 1))))
    row = _found(b, b.constant(np.repeat(np.arange(rows), count), "int32"), place)
    return _all(b, fresh, b.reshape(is_own, (pages, 1))), column, row


def _append(low: LoweringContext, value: Value) -> Operand:
    """Each slot of a page is what it was, or a new token of the one row that writes this page."""
    b = low.b
    pool, update, table = low.given(value)
    if not update.size:
        return pool
    update = _narrowed(b, update, pool.dtype)
    pages, heads, size, width = pool.shape
    rows, _, columns, _ = update.shape
    fresh, column, row = _written(b, table, pool.shape, columns)
    slots = b.reshape(fresh, (pages, 1, size, 1))
    if columns == 1:
        return b.where(slots, update if rows == 1 else _found(b, update, row), pool)
    first = b.binary("mul", b.reshape(row, (pages, 1)), b.number(columns, row))
    source = b.where(fresh, b.binary("add", column, first), b.number(0, column))
    tokens = b.reshape(b.transpose(update, (0, 2, 1, 3)), (rows * columns, heads * width))
    tokens = b.reshape(_found(b, tokens, b.reshape(source, (pages * size,))), (pages, size, heads, width))
    return b.where(slots, b.transpose(tokens, (0, 2, 1, 3)), pool)


def _slots(low: LoweringContext, value: Value) -> Operand:
    pages, _, size, _ = value.spec.shape
    return low.b.reshape(_written(low.b, low.given(value)[0], (pages, 1, size, 1), 1)[0], value.spec.shape)


def _write(low: LoweringContext, value: Value) -> Operand:
    pool, update, slots = low.given(value)
    return low.b.where(slots, _narrowed(low.b, update, pool.dtype), pool)


def _narrowed(b: GraphBuilder, update: Operand, dtype: str) -> Operand:
    """Return ``update`` as ``dtype``; what float16 cannot hold becomes NaN."""
    if update.dtype == dtype:
        return update
    held = _lesser(b, b.unary("abs", update), b.number(BEYOND_HALF, update))
    return b.cast(b.where(held, update, b.number(np.nan, update)), dtype)


def _flat(b: GraphBuilder, x: Operand) -> Operand:
    return b.reshape(x, (1, x.size))


def _places(b: GraphBuilder, table: Operand, pages: int) -> tuple[Operand, Operand]:
    """Return the numbers of the pages of all rows in order, (rows * count,), 0 for no page; and which are a page's."""
    numbers = _numbers(b, table)
    is_page = _all(b, _not_lesser(b, numbers, 0), _lesser(b, numbers, pages))
    return b.reshape(b.where(is_page, numbers, b.number(0, numbers)), (numbers.size,)), is_page


def _tokens(b: GraphBuilder, table: Operand, pages: int, size: int) -> Operand:
    """Return which tokens there are: uint8 (rows, 1, count * size, 1)."""
    rows, count = table.shape[0], table.shape[1] - PAGES
    places = b.constant(np.arange(count * size).reshape(1, count, size), "int32")
    there = _lesser(b, places, b.reshape(_end(b, table), (rows, 1, 1)))
    is_page = b.reshape(_places(b, table, pages)[1], (rows, count, 1))
    return b.reshape(_all(b, there, is_page), (rows, 1, count * size, 1))


def _read(b: GraphBuilder, pool: Operand, places: Operand, tokens: Operand, shape: Shape) -> Operand:
    found = _in_order(b, _found(b, pool, places), shape)
    return b.where(tokens, found, b.number(0, found))


def _rows(low: LoweringContext, value: Value) -> Operand:
    (pool, table), b = low.given(value), low.b
    pages, _, size, _ = pool.shape
    return _read(b, pool, _places(b, table, pages)[0], _tokens(b, table, pages, size), value.spec.shape)


def _read_from_places(low: LoweringContext, value: Value) -> Operand:
    pool, places, tokens = low.given(value)
    return _read(low.b, pool, places, tokens, value.spec.shape)


def _place_numbers(low: LoweringContext, value: Value) -> Operand:
    return _places(low.b, low.given(value)[0], cast(int, value.attrs["pages"]))[0]


def _place_tokens(low: LoweringContext, value: Value) -> Operand:
    return _tokens(low.b, low.given(value)[0], cast(int, value.attrs["pages"]), cast(int, value.attrs["size"]))


def _in_order(b: GraphBuilder, found: Operand, shape: Shape) -> Operand:
    """Put pages (rows * count, heads, size, width) one after another: (rows, heads, count * size, width)."""
    rows, heads, _, width = shape
    size = found.shape[2]
    if rows == 1:
        return b.reshape(b.transpose(found, (1, 0, 2, 3)), shape)
    apart = b.reshape(found, (rows, found.shape[0] // rows, heads, size * width))
    return b.reshape(b.transpose(apart, (0, 2, 1, 3)), shape)


def _mask(low: LoweringContext, value: Value) -> Operand:
    _, _, queries, keys = value.spec.shape
    return _visible(low.b, low.given(value)[0], queries, keys, cast(int, value.attrs["window"]))


def _visible(b: GraphBuilder, table: Operand, queries: int, keys: int, window: int) -> Operand:
    """Return which keys each new token attends to: uint8 (rows, 1, queries, keys)."""
    rows, places = table.shape[0], b.constant(np.arange(keys)[None, None, None], "int32")
    own = b.binary(
        "add",
        b.reshape(_column(b, table, BEFORE), (rows, 1, 1, 1)),
        b.constant(np.arange(queries)[None, None, :, None], "int32"),
    )
    seen = [_not_lesser(b, own, places), _lesser(b, places, b.reshape(_end(b, table), (rows, 1, 1, 1)))]
    if window:
        seen.append(_lesser(b, b.binary("sub", own, b.number(window, own)), places))
    return _all(b, *seen)


def _seen(low: LoweringContext, value: Value) -> Operand:
    """The keys that a token attends to and that have a page."""
    b, (table,) = low.b, low.given(value)
    keys = value.spec.shape[3]
    pages, size, window = (cast(int, value.attrs[name]) for name in ("pages", "size", "window"))
    return _all(b, _visible(b, table, 1, keys, window), b.reshape(_tokens(b, table, pages, size), value.spec.shape))


def _unseen_scores(low: LoweringContext, value: Value) -> Operand:
    """The scores of keys that are not seen: 0 for zeros without a page, and where a token sees none; else -inf."""
    b, (table, seen) = low.b, low.given(value)
    visible = _visible(b, table, 1, value.spec.shape[3], cast(int, value.attrs["window"]))
    missing = _all(b, visible, b.unary("logicalNot", seen, operand="a"))
    some = b.reduce("reduceMax", b.cast(visible, "float32"), [3], True)
    zero = b.binary("logicalOr", missing, b.binary("lesserOrEqual", some, b.number(0, some), "uint8"))
    return b.where(zero, b.number(0, some), b.number(-np.inf, some))


def _attend(low: LoweringContext, value: Value) -> Operand:
    """Attention of one token. What is in unseen slots, such as NaN, reaches neither its scores nor its sum."""
    b, (query, keys, values, places, seen, unseen) = low.b, low.given(value)
    shape = (1, keys.shape[1], seen.shape[3], keys.shape[3])
    keys = _in_order(b, _found(b, keys, places), shape)
    scores = attention_scores(b, query, keys, float(cast(float, value.attrs["scale"])))
    sizes = (*shape[:3], values.shape[3])
    values = _read(b, values, places, b.reshape(seen, (1, 1, shape[2], 1)), sizes)
    return b.cast(attended(b, b.where(seen, scores, unseen), values), value.spec.dtype.name)


RULES: dict[str, Rule] = {"paged_append": _append, "paged_rows": _rows, "paged_mask": _mask}
# Of the ops of ../pages.py, which computations of other devices do not have.
SHARED: dict[str, Rule] = {
    "page_slots": _slots,
    "page_write": _write,
    "page_places": _place_numbers,
    "page_tokens": _place_tokens,
    "page_read": _read_from_places,
    "page_seen": _seen,
    "page_unseen_scores": _unseen_scores,
    "page_attention": _attend,
}
