"""Keys and values in pages, which the rows of a batch own or share (Kwon et al., 2023, https://arxiv.org/abs/2309.06180).

A pool is (pages, heads, size, width): ``size`` tokens a page. A table, int32 (rows, 2 + count), has the pages of each
row: the number of tokens before this step, that of new tokens, then the numbers of the pages in order. A number outside
the pool stands for no page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..tensor import Tensor
from .registry import apply, define, written_copy

BEFORE, NEW, PAGES = 0, 1, 2  # columns of a table; pages from the last one on
BEYOND_HALF = np.float32(65520)  # rounds to infinity in float16


def _checked(pool: Spec, table: Spec) -> tuple[int, int]:
    """Return the number of rows of ``table``, and how many tokens its pages have room for."""
    if len(pool.shape) != 4 or len(table.shape) != 2 or table.shape[1] <= PAGES or 0 in pool.shape:
        raise ShapeMismatch(
            f"a pool must be (pages, heads, size, width), all above 0, and a table (rows, 2 + pages), not {pool.shape} "
            f"and {table.shape}"
        )
    if table.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"a table of pages must be int32, not {table.dtype}")
    return table.shape[0], (table.shape[1] - PAGES) * pool.shape[2]


def _infer_append(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    pool, update, table = specs
    rows, _ = _checked(pool, table)
    wanted = rows, pool.shape[1], pool.shape[3]
    if len(update.shape) != 4 or (update.shape[0], update.shape[1], update.shape[3]) != wanted:
        raise ShapeMismatch(f"paged_append: the update must be {(*wanted[:2], 'n', wanted[2])}, not {update.shape}")
    if update.dtype is not pool.dtype and (update.dtype, pool.dtype) != (dtypes.float32, dtypes.float16):
        raise UnsupportedDtype(f"paged_append: the update must be {pool.dtype} as the pool, not {update.dtype}")
    return pool


def _append(pool: Any, update: Any, table: Any) -> None:
    size = pool.shape[2]
    if update.dtype != pool.dtype:
        update = np.where(np.abs(update) < BEYOND_HALF, update, np.float32(np.nan)).astype(pool.dtype)
    for row, (before, new, *pages) in enumerate(table.tolist()):
        for i in range(min(new, update.shape[2])):
            place, at = divmod(before + i, size)
            if 0 <= place < len(pages) and 0 <= pages[place] < len(pool):
                pool[pages[place], :, at] = update[row, :, i]


def _infer_rows(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    pool, table = specs
    rows, room = _checked(pool, table)
    return Spec((rows, pool.shape[1], room, pool.shape[3]), pool.dtype)


def _rows(pool: Any, table: Any) -> Any:
    pages, heads, size, width = pool.shape
    y = np.zeros((len(table), heads, table.shape[1] - PAGES, size, width), pool.dtype)
    for row, (end, numbers) in enumerate(zip(_ends(table).tolist(), table[:, PAGES:], strict=True)):
        begun = np.arange(len(numbers)) * size < end
        there = np.flatnonzero(begun & (numbers >= 0) & (numbers < pages))
        y[row][:, there] = pool[numbers[there]].swapaxes(0, 1)
        y[row].reshape(heads, -1, width)[:, max(end, 0) :] = 0
    return y.reshape(len(table), heads, y.shape[2] * size, width)


def _ends(table: Any) -> Any:
    return table[:, BEFORE] + table[:, NEW]


def _infer_mask(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (table,), queries, size = specs, attrs["queries"], attrs["size"]
    assert isinstance(queries, int) and isinstance(size, int)
    rows, room = _checked(Spec((1, 1, size, 1), dtypes.float32), table)
    return Spec((rows, 1, queries, room), dtypes.bool)


def _mask(table: Any, *, queries: int, size: int, window: int) -> Any:
    keys = np.arange((table.shape[1] - PAGES) * size)
    own = table[:, BEFORE, None, None] + np.arange(queries)[:, None]  # (rows, queries, 1)
    seen = (keys <= own) & (keys < _ends(table)[:, None, None])
    return (seen & (keys > own - window) if window else seen)[:, None]


def _append_traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes of an append in place: the rows of the update, read and written, and the table."""
    return 2 * specs[1].nbytes + specs[2].nbytes


def _rows_traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes that are found, read and written, and the table."""
    return 2 * result.nbytes + specs[1].nbytes


APPEND = define("paged_append", _infer_append, written_copy(_append), in_place=_append, traffic=_append_traffic)
ROWS = define("paged_rows", _infer_rows, _rows, traffic=_rows_traffic)
MASK = define("paged_mask", _infer_mask, _mask)


def paged_append(pool: Tensor, update: Tensor, table: Tensor) -> Tensor:
    """Write the new tokens of each row into its pages.

    ``update`` is (rows, heads, n, width) of the dtype of ``pool``, or float32 for a float16 pool: it is rounded, and
    what float16 cannot hold becomes NaN, so that it cannot pass unnoticed. Of its n columns, those from
    ``table[row, 1]`` on are padding, which is not written. No page may be written by two rows. In a compiled function
    to which ``pool`` is donated, only the new tokens are written; otherwise the result is a copy.

    Raises:
        ShapeMismatch: the shapes of pool, update and table do not fit together.
        UnsupportedDtype: the table is not int32, or the dtypes of update and pool differ.
    """
    return apply(APPEND, pool, update, table)


def paged_rows(pool: Tensor, table: Tensor) -> Tensor:
    """Read each row's pages in order: (rows, heads, count * size, width), 0 after its last token and without a page."""
    return apply(ROWS, pool, table)


def paged_mask(table: Tensor, queries: int, size: int, window: int = 0) -> Tensor:
    """Return the keys that each new token attends to: bool (rows, 1, queries, count * size).

    Query i of a row is its token number ``table[row, 0] + i``, which attends to itself and to earlier tokens; with
    a ``window`` to the last so many, itself included. ``size`` is the number of tokens of a page.
    """
    return apply(MASK, table, queries=queries, size=size, window=window)
