"""Samples of keys and values in pages: exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcommons.ops.paging import paged_append, paged_mask, paged_rows
from tensorcommons.samples import DTYPES, Shapes, declare, drawn

EXACT: dict[str, Any] = {"each": True, "tolerance": 0, "half_tolerance": 0}
# A pool, an update, and the number of pages of each row of the table.
APPENDS: tuple[Shapes, ...] = (
    ((5, 3, 4, 5), (2, 3, 3, 5), (2,)),
    ((3, 2, 16, 8), (1, 2, 1, 8), (3,)),
    ((9, 1, 4, 4), (3, 1, 6, 4), (3,)),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1,)),
    ((2, 2, 4, 3), (2, 2, 0, 3), (1,)),
    ((17, 2, 16, 64), (2, 2, 17, 64), (8,)),
)


def _table(rng: np.random.Generator, pages: int, size: int, rows: int, new: int, count: int) -> Any:
    """Make a table of different pages, some of them missing, and of rows that may have no new tokens."""
    numbers = rng.permutation(max(pages, rows * count))[: rows * count].reshape(rows, count)
    table = np.zeros((rows, 2 + count), np.int32)
    table[:, 0] = rng.integers(0, count * size, rows)
    table[:, 1] = rng.integers(0, new + 1, rows)
    table[:, 2:] = np.where(numbers < pages, numbers, rng.choice([-1, pages + 5]))
    return table


def _update(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    pool, update, (count,) = shapes
    table = _table(rng, pool[0], pool[2], update[0], update[2], count)
    return [drawn(rng, dtype, pool), drawn(rng, dtype, update), table]


def _appended(pool: Any, update: Any, table: Any) -> Any:
    y = np.array(pool)
    for row, i in np.ndindex(update.shape[0], update.shape[2]):
        place = table[row, 0] + i
        number = place // pool.shape[2]
        if i < table[row, 1] and number < table.shape[1] - 2 and 0 <= table[row, 2 + number] < len(pool):
            y[table[row, 2 + number], :, place % pool.shape[2]] = update[row, :, i]
    return y


def _text(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    pool, (rows, count) = shapes
    table = _table(rng, pool[0], pool[2], rows, 2 * pool[2], count)
    return [drawn(rng, dtype, pool), table]


def _in_order(pool: Any, table: Any) -> Any:
    rows, count = table.shape[0], table.shape[1] - 2
    size = pool.shape[2]
    y = np.zeros((rows, pool.shape[1], count * size, pool.shape[3]), pool.dtype)
    for row, place in np.ndindex(rows, count * size):
        number = table[row, 2 + place // size]
        if place < table[row, 0] + table[row, 1] and 0 <= number < len(pool):
            y[row, :, place] = pool[number, :, place % size]
    return y


def _tables(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    ((rows, count),) = shapes
    return [_table(rng, rows * count, 4, rows, 7, count).astype(dtype)]


def _seen(table: Any, window: int) -> Any:
    rows, count = table.shape[0], table.shape[1] - 2
    y = np.zeros((rows, 1, 3, 4 * count), np.bool_)
    for row, _, i, key in np.ndindex(*y.shape):
        own = table[row, 0] + i
        y[row, 0, i, key] = key <= own and key < table[row, :2].sum() and (not window or own - key < window)
    return y


READS: tuple[Shapes, ...] = (
    ((5, 3, 4, 5), (2, 2)),
    ((3, 2, 16, 8), (1, 3)),
    ((1, 1, 1, 1), (1, 1)),
    ((9, 1, 16, 64), (4, 2)),
    ((2, 1, 4, 3), (0, 1)),
)
MASKS: tuple[Shapes, ...] = (((1, 3),), ((4, 4),), ((2, 10),))

declare("paged_append", paged_append, _appended, APPENDS, DTYPES, values=_update, **EXACT)
declare("paged_rows", paged_rows, _in_order, READS, DTYPES, values=_text, **EXACT)
for _window in (0, 3):
    declare("paged_mask", lambda table, window=_window: paged_mask(table, 3, 4, window), lambda table, window=_window: _seen(table, window), MASKS, ("int32",), values=_tables, result="bool", **EXACT)  # noqa: E501 # fmt: skip
