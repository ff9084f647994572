"""Samples of sorting, indexing, updates and choices of tokens: exact."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.ops.choosing import SAMPLE, likeliest, repetition_penalty, sample
from tensorcommons.samples import DTYPES, FLOATS, Shapes, declare, drawn

EXACT: dict[str, Any] = {"each": True, "tolerance": 0, "half_tolerance": 0}
ROWS: tuple[Shapes, ...] = (((1,),), ((7,),), ((0, 5),), ((5, 0),), ((13, 17),), ((2, 3, 130),), ((2, 257),))


def _ids(axis: int) -> Any:
    """Make operands of which the second are indices into an axis of the first; the others are drawn."""

    def values(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
        size = shapes[0][axis]
        ids = rng.integers(-size, size, shapes[1]).astype(np.int32)
        return [drawn(rng, dtype, shapes[0]), ids, *(drawn(rng, dtype, shape) for shape in shapes[2:])]

    return values


def _positions(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make a cache, an update, and its positions, some of them out of range."""
    cache, update, place = shapes
    first = rng.integers(-1, cache[2] + 1, place).astype(np.int32)
    return [drawn(rng, dtype, cache), drawn(rng, dtype, update), first]


def _appended(cache: Any, update: Any, position: Any) -> Any:
    y = np.array(cache)
    for b, h, i in np.ndindex(*update.shape[:3]):
        row = np.broadcast_to(position, len(y))[b] + i
        if 0 <= row < y.shape[2]:
            y[b, h, row] = update[b, h, i]
    return y


def _scattered(x: Any, ids: Any, updates: Any, combine: Any = lambda before, update: update) -> Any:
    y = np.array(x)
    with np.errstate(over="ignore"):
        for i, j in np.ndindex(*ids.shape):
            y[ids[i, j], j] = combine(y[ids[i, j], j], updates[i, j])
    return y


def _sorted_row(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make a sorted row with elements that occur twice, one NaN, and values of which some are in it."""
    row = np.sort(drawn(rng, dtype, shapes[0]))
    values = drawn(rng, dtype, shapes[1])
    if row.size:
        row[-1] = np.nan if row.dtype.kind == "f" else row[-1]
        chosen = np.resize(rng.choice(row, 5), shapes[1])
        values = np.where(rng.random(shapes[1]) < 0.5, chosen, values)
    return [row, np.asarray(values, dtype)]


def _order(x: Any, count: int) -> Any:
    """Return the positions of the largest elements; equal ones keep their order."""
    return np.argsort(-x.astype(np.float64), -1, kind="stable")[..., :count].astype(np.int32)


declare("leaders", tc.argsort, lambda x: np.argsort(x, -1, kind="stable").astype(np.int32), ROWS, DTYPES, **EXACT)
declare("merge_runs", tc.sort, np.sort, (((300,),), ((2, 3, 513),), ((1, 1024),)), DTYPES, **EXACT)
declare("leaders", lambda x: tc.topk(x, 3)[1], lambda x: _order(x, 3), (((3,),), ((2, 65),), ((2, 2, 1000),)), DTYPES, **EXACT)  # noqa: E501 # fmt: skip

TABLES: tuple[Shapes, ...] = (((5, 3), (7,)), ((1, 1), ()), ((11, 4), (2, 0)), ((3, 130), (2, 3)))
declare("take_along_axis", lambda x, ids: tc.take(x, ids, 0), lambda x, ids: x[ids], TABLES, DTYPES, values=_ids(0), **EXACT)  # noqa: E501 # fmt: skip
declare("take_along_axis", lambda x, ids: tc.take_along_axis(x, ids, 1), lambda x, ids: np.take_along_axis(x, ids, 1), (((3, 5), (3, 2)), ((2, 7, 3), (2, 9, 3)), ((1, 1), (1, 1)), ((2, 3), (2, 0))), DTYPES, values=_ids(1), **EXACT)  # noqa: E501 # fmt: skip
UPDATES: tuple[Shapes, ...] = (((5, 3), (4, 3), (4, 3)), ((2, 7), (9, 5), (9, 5)), ((1, 1), (0, 1), (0, 1)))
declare("scatter", lambda x, i, u: tc.scatter(x, i, u, 0), _scattered, UPDATES, DTYPES, values=_ids(0), **EXACT)
for _reduction, _combine in (("add", np.add), ("mul", np.multiply), ("max", np.maximum), ("min", np.minimum)):
    declare("scatter", lambda x, i, u, r=_reduction: tc.scatter(x, i, u, 0, r), lambda x, i, u, c=_combine: _scattered(x, i, u, c), UPDATES, DTYPES[:4], values=_ids(0))  # noqa: E501 # fmt: skip
SEARCHES: tuple[Shapes, ...] = (
    ((7,), (5,)),
    ((1,), (2, 3)),
    ((100,), (7, 1, 3)),
    ((0,), (3,)),
    ((5,), ()),
    ((3,), (0, 2)),
)
for _side in ("left", "right"):
    declare("searchsorted", lambda x, v, s=_side: tc.searchsorted(x, v, s), lambda x, v, s=_side: np.asarray(np.searchsorted(x, v, s)).astype(np.int32), SEARCHES, DTYPES, values=_sorted_row, **EXACT)  # noqa: E501 # fmt: skip
CACHES: tuple[Shapes, ...] = (((2, 3, 7, 5), (2, 3, 2, 5), (2,)), ((1, 2, 9, 8), (1, 2, 1, 8), ()), ((3, 1, 4, 4), (3, 1, 4, 4), (3,)), ((1, 1, 1, 1), (1, 1, 1, 1), (1,)), ((2, 2, 5, 3), (2, 2, 0, 3), ()))  # noqa: E501 # fmt: skip
declare("kv_cache_append", tc.kv_cache_append, _appended, CACHES, DTYPES, values=_positions, **EXACT)

SCORES: tuple[Shapes, ...] = (((1, 1),), ((3, 7),), ((2, 130),), ((2, 257),))
declare("likeliest", likeliest, lambda x: x.argmax(1)[:, None].astype(np.int32), SCORES, FLOATS, **EXACT)


def _settings(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make scores, and the settings of each row."""
    rows = shapes[0][0]
    settings = [
        rng.uniform(0.5, 2, rows),
        rng.integers(0, 9, rows),
        rng.uniform(0.5, 1.2, rows),
        rng.uniform(0, 0.1, rows),
    ]
    return [drawn(rng, dtype, shapes[0]), np.column_stack([*settings, rng.random(rows)]).astype(np.float32)]


def _text(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make scores, tokens of which some occur twice, the ends of each text, and penalties."""
    scores, (rows, capacity) = shapes[:2]
    tokens = rng.integers(0, scores[1], (rows, capacity)).astype(np.int32)
    first = rng.integers(0, 2, rows).astype(np.int32)
    end = rng.integers(max(capacity - 3, 1), capacity + 1, rows).astype(np.int32)
    return [drawn(rng, dtype, scores), tokens, first, end, rng.uniform(0.5, 2, rows).astype(np.float32)]


def _penalized(x: Any, tokens: Any, first: Any, end: Any, penalty: Any) -> Any:
    y = x.copy()
    for row in range(len(x)):
        for token in set(tokens[row, first[row] : end[row]].tolist()):
            y[row, token] = x[row, token] * penalty[row] if x[row, token] < 0 else x[row, token] / penalty[row]
    return y


declare("sample", sample, SAMPLE.reference, SCORES, FLOATS, values=_settings, **EXACT)
TEXTS: tuple[Shapes, ...] = (((1, 1), (1, 1)), ((3, 7), (3, 9)), ((2, 5000), (2, 64)))
declare("repetition_penalty", repetition_penalty, _penalized, TEXTS, FLOATS, values=_text, each=True, result="float32")
