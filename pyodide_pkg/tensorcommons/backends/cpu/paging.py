"""Records of keys and values in pages: appends, copies in order, masks, and attention (wasm/paging.h)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...dtypes import float16, float32
from ..base import Operand, Spec, Step
from .products import BLOCK
from .record import (
    PAGED_APPEND,
    PAGED_ATTENTION,
    PAGED_MASK,
    PAGED_ROWS,
    SCRATCH,
    Record,
    Word,
    address,
    are_float32,
    by_rows,
    float_bits,
    has_rows,
)

ABREAST = 4  # as in wasm/paging.h
READ = 4  # multiply-adds of a product that take the time of an element


def _pages(table: Operand, tokens: int, pages: int) -> tuple[Word, ...]:
    """Return the words of a table of ``pages`` pages of ``tokens`` tokens."""
    return (address(table), table.shape[1] - 2, tokens, pages)


def append(step: Step) -> Iterator[Record] | None:
    """Write the rows of an update into the pool, whose bytes the result has."""
    pool, update, table = step.inputs
    out = step.output
    narrows = (update.dtype, out.dtype) == (float32, float16)
    if pool.place != out.place or pool.layout != out.layout or not (out.dtype.itemsize == 4 or narrows):
        return None
    if not out.layout.is_contiguous or not table.layout.is_contiguous or not has_rows(update.layout):
        return None
    rows, heads, length, n = update.shape
    words = (int(narrows), n, heads, length, address(out), *_pages(table, out.shape[2], out.shape[0]), address(update))
    return by_rows(PAGED_APPEND, rows * heads * length, READ * n, (*words, *update.layout.strides[:3]))


def read(step: Step) -> Iterator[Record] | None:
    """Copy the pages of each row in order."""
    pool, table = step.inputs
    out = step.output
    if out.dtype.itemsize != 4 or not all(each.layout.is_contiguous for each in (pool, table, out)):
        return None
    pages, heads, tokens, n = pool.shape
    table_words = _pages(table, tokens, pages)
    count = out.shape[0] * heads * (table.shape[1] - 2)
    return by_rows(PAGED_ROWS, count, READ * tokens * n, (n, heads, address(out), address(pool), *table_words))


def mask(step: Step) -> Iterator[Record] | None:
    """Compute the keys that each new token attends to."""
    (table,) = step.inputs
    out = step.output
    tokens, queries, window = (step.attrs[name] for name in ("size", "queries", "window"))
    assert isinstance(tokens, int) and isinstance(queries, int) and isinstance(window, int)
    if not table.layout.is_contiguous or not out.layout.is_contiguous:
        return None
    words = (queries, window, address(out), *_pages(table, tokens, 0))
    return by_rows(PAGED_MASK, out.shape[0] * queries, READ * out.shape[3], words)


def attends(operands: Sequence[Spec]) -> bool:
    """Return whether a kernel computes attention of query, keys, values and table in their pages."""
    query, keys, values, _ = operands
    same = keys.shape[:3] == values.shape[:3] and keys.dtype is values.dtype
    return same and query.dtype is float32 and keys.dtype in (float32, float16)


def attention(step: Step) -> Iterator[Record] | None:
    """Compute attention of blocks of queries, and of heads that share keys, in the pages of each row."""
    q, k, v, table = step.inputs
    out = step.output
    window: Any = step.attrs["window"]
    halves = k.dtype is float16 and v.dtype is float16
    if not are_float32(q, out, *([] if halves else [k, v])) or not has_rows(q.layout) or not has_rows(out.layout):
        return None
    if not all(each.layout.is_contiguous for each in (k, v, table)) or k.shape[:3] != v.shape[:3]:
        return None
    batch, heads, queries, width = q.shape
    pages, shared, tokens, value_width = v.shape
    group = heads // shared
    together = max(min(group, BLOCK // queries), 1)
    parts = batch * shared * -(-group // together) * -(-queries // BLOCK)
    rows, keys = min(together * queries, BLOCK), (table.shape[1] - 2) * tokens
    if window:
        keys = min(keys, window + BLOCK + 2 * ABREAST * tokens)
    ld = (keys + ABREAST * tokens + 7) // 4 * 4  # whole groups of pages, and what a softmax writes beyond
    work = rows * keys * (width + value_width + 8)  # of a part: 8 for a score's exponential
    words: list[Word] = [
        int(halves),
        heads,
        group,
        together,
        queries,
        width,
        value_width,
        window,
        ld,
        float_bits(step.attrs["scale"]),
    ]
    words += [address(q), *q.layout.strides[:3], address(k), address(v), *_pages(table, tokens, pages)]
    words += [address(out), *out.layout.strides[:3], SCRATCH]
    scratch = (
        tokens * max(width, value_width) * (1 + ABREAST * halves)
        + BLOCK * (width + value_width + ABREAST * tokens)
        + rows * ld
    )
    return by_rows(PAGED_ATTENTION, parts, work, tuple(words), scratch)
