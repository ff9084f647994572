"""Attention over keys and values in pages, against attention of each query over its own keys.

On WebGPU also as hardware computes it: in the pages, in parts of many keys, and with rotary positions inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tensorcommons.ops.paging import paged_append, paged_mask, paged_rows
from tensorcommons.tensor import realize
from tests.cases.hardware import hardware
from tests.cases.support import NAN, near, numbers, on

SIZE = 4  # tokens of a page
Lengths = Sequence[tuple[int, int]]  # tokens before this step, and new ones, of each row


def _table(lengths: Lengths, count: int, seed: int = 0) -> Any:
    """Make a table of rows that have ``count`` pages each, in no order; page 0 belongs to none."""
    pages = np.random.default_rng(seed).permutation(len(lengths) * count) + 1
    return np.concatenate([np.array(lengths, np.int32), pages.reshape(-1, count)], axis=1, dtype=np.int32)


def _pool(table: Any, heads: int, width: int, seed: int, size: int = SIZE) -> Any:
    """Make pages of numbers up to the last token of each row, and of NaN beyond."""
    pool = np.full((table[:, 2:].size + 1, heads, size, width), NAN, np.float32)
    for before, new, *pages in table.tolist():
        for token in range(min(before + new, len(pages) * size)):
            if 0 <= pages[token // size] < len(pool):
                pool[pages[token // size], :, token % size] = numbers(heads, width, seed=seed + token)
    return pool


def _attention(q: Any, keys: Any, values: Any, table: Any, window: int = 0) -> Any:
    """Attend to each key by itself; a missing page has zeros."""
    rows, heads, queries, _ = q.shape
    size, sharing = keys.shape[2], heads // keys.shape[1]
    y = np.zeros((rows, heads, queries, values.shape[3]))
    for row, head, i in np.ndindex(rows, heads, queries):
        before, new, *pages = table[row].tolist()
        own = before + i
        seen = range(max(own - window + 1, 0) if window else 0, min(own + 1, before + new, len(pages) * size))
        places = [(pages[token // size], head // sharing, token % size) for token in seen]
        none = [np.zeros(each.shape[3]) for each in (keys, values)]
        k = np.array([keys[at] if 0 <= at[0] < len(keys) else none[0] for at in places], np.float64)
        v = np.array([values[at] if 0 <= at[0] < len(keys) else none[1] for at in places], np.float64)
        if places:
            scores = k @ q[row, head, i].astype(np.float64) * q.shape[3] ** -0.5
            weights = np.exp(scores - scores.max())
            y[row, head, i] = weights @ v / weights.sum()
    return y


def attend(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, window: int = 0) -> Tensor:
    mask = paged_mask(table, q.shape[2], keys.shape[2], window)
    return tc.scaled_dot_product_attention(q, paged_rows(keys, table), paged_rows(values, table), mask)


def _ways(device: Device) -> Iterator[Any]:
    """Compile as the device does, and on WebGPU as hardware does."""
    yield nullcontext()
    if device.kind == "webgpu" and device.is_software:
        yield hardware(device)


async def _agrees(device: Device, q: Any, keys: Any, values: Any, table: Any, window: int = 0) -> None:
    wanted = _attention(q, keys, values, table, window)
    for way in _ways(device):
        with way:
            x, k, v, pages = on(device, q, keys, values, table)
            near(await attend(x, k, v, pages, window).read(), wanted)


async def rows_of_different_lengths(device: Device) -> None:
    for heads, shared, width in ((4, 2, 8), (3, 3, 20), (6, 1, 68)):
        table = _table([(0, 1), (0, 0), (6, 1), (11, 1), (3, 0)], 3)
        keys, values = (_pool(table, shared, each, seed) for each, seed in ((width, 1), (12, 100)))
        await _agrees(device, numbers(5, heads, 1, width), keys, values, table)


async def several_queries(device: Device) -> None:
    """Some queries are padding: they attend to what is there. Most keys are hidden from all queries of a row."""
    for queries in (2, 8, 9, 33):
        table = _table([(3, queries), (0, queries - 1), (0, 0), (5, 1), (120, queries)], 40)
        keys, values = _pool(table, 2, 8, 1), _pool(table, 2, 16, 100)
        await _agrees(device, numbers(5, 4, queries, 8), keys, values, table)


async def windows(device: Device) -> None:
    for window, queries in ((1, 1), (3, 2), (40, 1), (5, 17)):
        table = _table([(60, queries), (2, 1), (0, 0), (9, queries)], 20)
        keys, values = _pool(table, 1, 8, 1), _pool(table, 1, 8, 100)
        await _agrees(device, numbers(4, 2, queries, 8), keys, values, table, window)


async def pages_that_are_missing(device: Device) -> None:
    table = _table([(9, 1), (5, 1), (2, 1)], 3)
    table[0, 3], table[1, 2], table[2, 3:] = -1, 99, -1
    keys, values = _pool(table, 1, 8, 1), _pool(table, 1, 8, 100)
    await _agrees(device, numbers(3, 2, 1, 8), keys, values, table)


async def halves(device: Device) -> None:
    table = _table([(6, 1), (0, 1), (3, 0)], 2)
    arrays = numbers(3, 4, 1, 16), _pool(table, 2, 16, 1), _pool(table, 2, 8, 100)
    q, keys, values = (each.astype(np.float16) for each in arrays)
    for way in _ways(device):
        with way:
            y = await attend(*on(device, q, keys, values, table)).read()
            assert y.dtype == np.float16
            near(y, _attention(q, keys, values, table), 2e-3)


async def keys_of_float16_beside_queries_of_float32(device: Device) -> None:
    """Numbers are widened as they are read: results are those of the rounded keys and values in float32."""
    for queries, width, window in ((1, 16, 0), (5, 8, 0), (17, 12, 3), (1, 6, 0)):
        table = _table([(60, queries), (0, 1), (3, 0), (9, queries)], 20)
        keys, values = (_pool(table, 2, each, seed).astype(np.float16) for each, seed in ((width, 1), (8, 100)))
        q = numbers(4, 4, queries, width)
        for way in _ways(device):
            with way:
                x, k, v, pages = on(device, q, keys, values, table)
                found_k, found_v = (tc.astype(paged_rows(each, pages), "float32") for each in (k, v))
                y = tc.scaled_dot_product_attention(x, found_k, found_v, paged_mask(pages, queries, SIZE, window))
                near(await y.read(), _attention(q, keys, values, table, window))


async def new_tokens_are_rounded_to_float16(device: Device) -> None:
    """Numbers beyond float16 become NaN, and numbers below its normal range are rounded to subnormal ones."""
    for width, new in ((8, 5), (6, 1)):
        table = _table([(2, new), (7, 1), (0, 0)], 3)
        keys, values = (_pool(table, 2, width, seed).astype(np.float16) for seed in (1, 100))
        updates = [numbers(3, 2, new, width, seed=seed) for seed in (5, 6)]
        edges = (65519.9, 65520, -65520, 7e4, np.inf, NAN, 6e-8, -2.9e-8, 2.9e-8, 1e-5, 2049, 2051)
        for update in updates:
            update[0, :, 0, :6], update[0, :, -1, -6:] = edges[:6], edges[6:]
            if new > 1:
                update[0, :, 1, :6] = edges[6:]
        wanted = [np.array(pool) for pool in (keys, values)]
        for pool, update in zip(wanted, updates, strict=True):
            with np.errstate(over="ignore"):
                update = update.astype(np.float16)
            update[np.isinf(update)] = NAN
            for row, (before, count, *pages) in enumerate(table.tolist()):
                for i in range(count):
                    pool[pages[(before + i) // SIZE], :, (before + i) % SIZE] = update[row, :, i]
        for way in _ways(device):
            with way:
                first, second, new_keys, new_values, pages = on(device, keys, values, *updates, table)
                grown = [paged_append(first, new_keys, pages), paged_append(second, new_values, pages)]
                await realize(grown)
                for result, expected in zip(grown, wanted, strict=True):
                    np.testing.assert_array_equal(await result.read(), expected)


async def a_step_of_one_token(device: Device) -> None:
    """Products of one row around an append and attention: WebNN runs these as graphs of a decoding step."""
    for before, new, missing, window in ((6, 1, None, 0), (8, 1, None, 3), (7, 1, 0, 0), (9, 1, 1, 5), (5, 0, None, 1)):
        table = _table([(before, 0)], 4, before)
        keys, values = _pool(table, 2, 8, 1), _pool(table, 2, 12, 100)
        table[0, 1] = new
        if missing is not None:
            table[0, 2 + missing] = 99
        x, *weights = (
            numbers(*shape, seed=i) / 4 for i, shape in enumerate(((1, 1, 32), (32, 32), (16, 32), (24, 32), (5, 48)))
        )
        q, k, v = (x @ weight.T for weight in weights[:3])
        q, k, v = (each.reshape(1, 1, heads, -1).transpose(0, 2, 1, 3) for each, heads in ((q, 4), (k, 2), (v, 2)))
        filled = [np.array(each) for each in (keys, values)]
        if new and missing != before // SIZE:
            for pool, token in zip(filled, (k, v), strict=True):
                pool[table[0, 2 + before // SIZE], :, before % SIZE] = token[0, :, 0]
        wanted = (
            _attention(q, filled[0], filled[1], table, window).transpose(0, 2, 1, 3).reshape(1, 1, -1) @ weights[3].T
        )
        row, *given, first, second, pages = on(device, x, *weights, keys, values, table)

        def heads_of(number: int, count: int) -> Tensor:
            y = tc.linear(row, given[number])  # noqa: B023
            return tc.permute_dims(tc.reshape(y, (1, 1, count, -1)), (0, 2, 1, 3))

        grown = paged_append(first, heads_of(1, 2), pages), paged_append(second, heads_of(2, 2), pages)
        found = attend(heads_of(0, 4), *grown, pages, window)
        y = tc.linear(tc.reshape(tc.permute_dims(found, (0, 2, 1, 3)), (1, 1, -1)), given[3])
        await realize([y, *grown])
        near(await y.read(), wanted)
        for tensor, exact in zip(grown, filled, strict=True):
            near(await tensor.read(), exact)


async def many_keys(device: Device) -> None:
    """Hardware attends to them in parts of 256, or with fewer parts of 512; some parts have no key."""
    from tensorcommons.backends.webgpu.kernels import few_queries

    table = _table([(1022, 2), (255, 1), (256, 1), (700, 2), (0, 0)], 65)
    keys, values = _pool(table, 1, 8, 1, 16), _pool(table, 1, 12, 5000, 16)
    for most, window in ((few_queries.PARTS, 0), (2, 0), (few_queries.PARTS, 300)):
        with patch.object(few_queries, "PARTS", most):
            await _agrees(device, numbers(5, 2, 2, 8), keys, values, table, window)


def _turn(x: Any, positions: Any) -> Any:
    """Rotate x (rows, heads, n, width) as tc.rotary_embedding does, with tables of ``tc.rotary_tables``."""
    half = x.shape[-1] // 2
    angles = positions[..., None] * 10000.0 ** (-2 * np.arange(half) / x.shape[-1])
    a, b = x[..., :half].astype(np.float64), x[..., half:].astype(np.float64)
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], axis=-1)


def layer(q: Tensor, k: Tensor, v: Tensor, table: Tensor, pools: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Compute the attention of a layer of a decoder: q, k and v are (rows, new tokens, heads, width)."""
    rows, queries, device = q.shape[0], q.shape[1], q.device
    assert device is not None
    places = table[:, :1] + tc.reshape(tc.arange(queries, device=device), (1, queries))
    turns = *on(device, *tc.rotary_tables(64, q.shape[3])), tc.reshape(places, (rows, 1, queries))
    heads = [tc.permute_dims(each, (0, 2, 1, 3)) for each in (q, k, v)]
    heads[:2] = (tc.rotary_embedding(each, *turns) for each in heads[:2])
    pools = [paged_append(pool, each, table) for pool, each in zip(pools, heads[1:], strict=True)]
    keys, values = pools
    return attend(heads[0], keys, values, table), pools


async def steps_of_a_decoder(device: Device) -> None:
    """Rotate, append to the pools, which are donated, and attend; rows get 1, 2 or 0 tokens a step."""
    for way in _ways(device):
        with way:
            run = tc.compile(layer, donate_argnames=["pools"])
            table = _table([(0, 2), (3, 1), (5, 0)], 4)
            keys, values = _pool(table, 2, 8, 1), _pool(table, 2, 12, 100)
            keys[table[1, 2], :, 3] = values[table[1, 2], :, 3] = NAN  # not there yet
            pools = on(device, keys, values)
            for number in range(3):
                q, k, v = (
                    numbers(3, 2, h, w, seed=9 * number + i) for i, (h, w) in enumerate(((4, 8), (2, 8), (2, 12)))
                )
                places = table[:, None, :1] + np.arange(2)
                q_turned, k_turned = (_turn(x.transpose(0, 2, 1, 3), places) for x in (q, k))
                for row, i in np.ndindex(3, 2):
                    if i < table[row, 1]:
                        page, slot = table[row, 2 + (table[row, 0] + i) // SIZE], (table[row, 0] + i) % SIZE
                        keys[page, :, slot], values[page, :, slot] = k_turned[row, :, i], v[row, i]
                y, pools = await run(q, k, v, table.copy(), pools)
                near(await y.read(), _attention(q_turned, keys, values, table))
                table[:, 0] += table[:, 1]
                table[:, 1] = ((1, 2, 2), (2, 0, 1), (0, 0, 0))[number]
            np.testing.assert_allclose(await pools[0].read(), keys, 1e-5, 1e-6)
            np.testing.assert_array_equal(await pools[1].read(), values)
