"""Fused attention against its formula computed in three steps."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.support import INF, NAN, agree, combinations, compiles_slowly, near, numbers, on, refused

LOWEST = float(np.finfo(np.float32).min)
attention = tc.scaled_dot_product_attention


def _attention(q: Any, k: Any, v: Any, mask: Any = 0, scale: float | None = None) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def _qkv(batch: int, heads: int, queries: int, keys: int, size: int) -> Any:
    return [numbers(batch, heads, rows, size, seed=i) for i, rows in enumerate((queries, keys, keys))]


async def head_sizes(device: Device) -> None:
    for size in (1, 64, 96) if compiles_slowly(device) else (1, 5, 24, 40, 64, 96):
        await agree(device, attention, _attention, *_qkv(2, 3, 7, 7, size))


async def key_and_query_counts(device: Device) -> None:
    for queries, keys in ((1, 1), (1, 9), (9, 1), (17, 5), (4, 4), (3, 130), (0, 4)):
        await agree(device, attention, _attention, *_qkv(1, 2, queries, keys, 8))
    await agree(device, attention, _attention, *_qkv(0, 2, 3, 3, 8))


async def masks_of_every_broadcast(device: Device) -> None:
    qkv = _qkv(2, 3, 5, 7, 12)
    for shape in ((7,), (2, 1, 1, 7), (1, 1, 5, 7), (1, 3, 1, 7), (2, 3, 5, 7), (5, 1), ()):
        await agree(device, attention, _attention, *qkv, numbers(*shape, seed=9))


async def masked_keys(device: Device) -> None:
    for low in (LOWEST, -INF, -1e9):
        mask = np.where(np.arange(7) < np.array([3, 7])[:, None], 0, low).astype(np.float32).reshape(2, 1, 1, 7)
        await agree(device, attention, _attention, *_qkv(2, 3, 5, 7, 12), mask)
    first = np.where(np.arange(11) < 9, -INF, 0).astype(np.float32)  # the first blocks of keys are masked
    await agree(device, attention, _attention, *_qkv(1, 1, 3, 11, 8), first)
    causal = np.triu(np.full((9, 9), -INF, np.float32), 1)
    await agree(device, attention, _attention, *_qkv(1, 2, 9, 9, 8), causal)


async def fully_masked_rows(device: Device) -> None:
    q, k, v = _qkv(1, 1, 2, 5, 8)
    lowest = np.array([[0] * 5, [LOWEST] * 5], np.float32)
    result = await attention(*on(device, q, k, v, lowest)).read()
    near(result[0, 0, 1], v[0, 0].mean(0, dtype=np.float64))  # equal weights for all keys, as in PyTorch
    near(result[:, :, :1], _attention(*(np.float64(a) for a in (q[:, :, :1], k, v))))
    result = await attention(*on(device, q, k, v, np.where(lowest == 0, 0, -INF).astype(np.float32))).read()
    near(result[0, 0, 1], np.zeros(8))  # no keys
    near(result[:, :, :1], _attention(*(np.float64(a) for a in (q[:, :, :1], k, v))))


async def queries_without_keys_among_others(device: Device) -> None:
    """Masked by a float or a bool, together with ``is_causal``, at the edges of the kernels' tiles."""
    sizes = ((2, 2, 2), (5, 7, 12), (70, 131, 40), (33, 65, 5))
    kinds = list(product((False, True), (False, True)))
    for (queries, keys, size), (is_causal, of_bools) in combinations(device, sizes, kinds):
        q, k, v = (a.astype(np.float64) for a in _qkv(1, 2, queries, keys, size))
        keep = np.random.default_rng(keys).random((queries, keys)) < 0.3
        keep[:: 3 if queries > 3 else 1] = False
        keep[1, 0] = True
        seen = keep & np.tril(np.ones_like(keep)) if is_causal else keep
        blind = np.logical_not(seen.any(-1, keepdims=True))[:, 0]
        wanted = _attention(q, k, v, np.where(seen | blind[:, None], 0, -INF))
        wanted[:, :, blind] = 0
        mask = keep if of_bools else np.where(keep, 0, -INF).astype(np.float32)
        *qkv, bias = on(device, *_qkv(1, 2, queries, keys, size), mask)
        near(await attention(qkv[0], qkv[1], qkv[2], bias, is_causal=is_causal).read(), wanted)


def _shared_by_two(q: Any, k: Any, v: Any) -> Any:
    return _attention(q, k.repeat(2, 1), v.repeat(2, 1))


async def values_of_another_width(device: Device) -> None:
    widths = ((8, 3), (5, 70), (72, 64), (4, 0), (3, 8), (8, 40), (40, 8), (4, 1), (1, 100))
    for size, width in widths[:4] if compiles_slowly(device) else widths:
        q, k, v = numbers(2, 4, 7, size), numbers(2, 2, 9, size, seed=1), numbers(2, 2, 9, width, seed=2)
        await agree(device, attention, _shared_by_two, q, k, v)
        await agree(
            device, lambda *a: attention(*a)[:, 1:, ::-2] * 2, lambda *a: 2 * _shared_by_two(*a)[:, 1:, ::-2], q, k, v
        )


async def masks_of_bools(device: Device) -> None:
    qkv = _qkv(2, 3, 5, 7, 12)
    for shape in ((7,), (2, 1, 1, 7), (1, 1, 5, 7), (5, 1)):
        keep = numbers(*shape, seed=9) > -1
        keep[..., 0] = True
        result = await attention(*on(device, *qkv, keep)).read()
        q, k, v = (a.astype(np.float64) for a in qkv)
        near(result, _attention(q, k, v, np.where(keep, 0, -INF)))
    nothing = await attention(*on(device, *qkv, np.zeros((5, 7), bool))).read()
    near(nothing, np.zeros((2, 3, 5, 12)))


async def tiles_that_a_mask_hides(device: Device) -> None:
    """The mask of a prompt's piece in a larger cache: tiles before and after the keys that queries attend to."""
    for size, window in ((8, 150), (32, 30)):
        q, k, v = _qkv(1, 2, 70, 300, size)
        own, keys = np.arange(70)[:, None] + 130, np.arange(300)
        keep = (keys <= own) & (keys > own - window)
        got = await attention(*on(device, q, k, v, keep)).read()
        q, k, v = (a.astype(np.float64) for a in (q, k, v))
        near(got, _attention(q, k, v, np.where(keep, 0, -INF)))


def _causal(q: Any, k: Any, v: Any, mask: Any = 0) -> Any:
    earlier = np.tril(np.ones((q.shape[2], k.shape[2]), np.bool_))
    return _attention(q, k, v, np.where(earlier, mask, -INF))


async def causal(device: Device) -> None:
    def ours(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        return attention(q, k, v, mask, is_causal=True)

    for queries, keys, size in ((1, 1, 4), (9, 9, 8), (70, 130, 40), (7, 3, 5), (3, 9, 8)):
        await agree(device, ours, _causal, *_qkv(1, 2, queries, keys, size))
    await agree(device, ours, _causal, *_qkv(1, 2, 9, 9, 8), numbers(9, 9, seed=5))


async def grouped_queries(device: Device) -> None:
    for heads, shared in ((6, 2), (4, 1), (3, 3)):
        q, k, v = numbers(2, heads, 5, 8), numbers(2, shared, 7, 8, seed=1), numbers(2, shared, 7, 8, seed=2)
        each = heads // shared
        await agree(device, attention, lambda q, k, v, n=each: _attention(q, k.repeat(n, 1), v.repeat(n, 1)), q, k, v)


async def packed_attention(device: Device) -> None:
    """float16 in memory, sums in float32."""
    for size in (8, 5):
        half = [a.astype(np.float16) for a in _qkv(2, 3, 5, 7, size)]
        result = await attention(*on(device, *half)).read()
        assert result.dtype == np.float16
        near(result.astype(np.float32), _attention(*(a.astype(np.float64) for a in half)), 2e-3)


async def many_keys(device: Device) -> None:
    await agree(device, attention, _attention, *_qkv(1, 1, 37, 300, 72))


async def extreme_scores(device: Device) -> None:
    q, k, v = _qkv(1, 2, 5, 7, 8)
    await agree(
        device, attention, _attention, q * 100, k * 100, v, tolerance=1e-3
    )  # a score of 1e5 has 8e-3 of rounding
    assert np.isnan(await attention(*on(device, np.full_like(q, NAN), k, v)).read()).all()


async def scale(device: Device) -> None:
    q, k, v = _qkv(1, 2, 5, 7, 8)
    a, b, c = on(device, q, k, v)
    near(await attention(a, b, c, scale=0.3).read(), _attention(q, k, v, scale=0.3))


async def one_tensor_in_every_place(device: Device) -> None:
    for size, computed in combinations(device, (8, 5), (False, True)):
        x = numbers(2, 3, 7, size)
        if computed:
            await agree(device, lambda x: attention(y := x * 2, y, y), lambda x: _attention(2 * x, 2 * x, 2 * x), x)
        else:
            await agree(device, lambda x: attention(x, x, x), lambda x: _attention(x, x, x), x)
    square = numbers(1, 1, 8, 8)
    await agree(device, lambda x: attention(x, x, x, x), lambda x: _attention(x, x, x, x), square)
    await agree(device, lambda x: attention(y := x * 2, y, y, y) * 2, lambda x: 2 * _attention(*[2 * x] * 4), square)


async def packed_projections(device: Device) -> None:
    """Query, key and value are adjacent columns of one value, aligned to vectors of four or not."""
    for starts, computed in combinations(device, ((0, 4, 8), (0, 2, 6), (1, 5, 0)), (False, True)):

        def part(x: Any, function: Any, starts: Any = starts) -> Any:
            return function(*(x[..., start : start + 4] for start in starts))

        x = numbers(1, 2, 7, 12)
        if computed:
            await agree(
                device, lambda x, p=part: p(x * 2, attention) * 2, lambda x, p=part: 2 * p(2 * x, _attention), x
            )
        else:
            await agree(device, lambda x, p=part: p(x, attention), lambda x, p=part: p(x, _attention), x)


async def heads_split_and_merged_by_views(device: Device) -> None:
    x = numbers(2, 7, 24)

    def split(x: Any, permute: Any, reshape: Any) -> Any:
        return permute(reshape(x, (2, 7, 3, 8)), (0, 2, 1, 3))

    def ours(x: Any) -> Any:
        q = split(x, tc.permute_dims, tc.reshape)
        return tc.reshape(tc.permute_dims(attention(q, q * 2, q), (0, 2, 1, 3)), (2, 7, 24))

    def numpys(x: Any) -> Any:
        q = split(x, np.transpose, np.reshape)
        return _attention(q, 2 * q, q).transpose(0, 2, 1, 3).reshape(2, 7, 24)

    await agree(device, ours, numpys, x)
    await agree(device, lambda x: ours(x + 1) * 2, lambda x: 2 * numpys(x + 1), x)


async def heads_of_products_with_biases(device: Device) -> None:
    """Views split rows of products into heads and turn them; the devices may turn the products instead."""
    x, ws, bs = numbers(2, 7, 24), [numbers(24, 24) / 5 for _ in range(4)], [numbers(24) for _ in range(4)]

    def layer(x: Any, ws: Any, bs: Any, linear: Any, permute: Any, reshape: Any, attend: Any) -> Any:
        heads = [
            permute(reshape(linear(x, w, b), (2, 7, 3, 8)), (0, 2, 1, 3)) for w, b in zip(ws[:3], bs[:3], strict=True)
        ]
        rows = reshape(permute(attend(*heads), (0, 2, 1, 3)), (2, 7, 24))
        odd = permute(reshape(linear(x, ws[3], bs[3]), (14, 4, 6)), (2, 0, 1))
        return linear(rows, ws[3], bs[3]) + reshape(permute(odd, (1, 2, 0)), (2, 7, 24)) * 2

    await agree(
        device,
        lambda x, *more: layer(x, more[:4], more[4:], tc.linear, tc.permute_dims, tc.reshape, attention),
        lambda x, *more: layer(
            x, more[:4], more[4:], lambda x, w, b: x @ w.T + b, np.transpose, np.reshape, _attention
        ),
        x, *ws, *bs,
    )  # fmt: skip


async def transposed_heads(device: Device) -> None:
    q, k, v = _qkv(1, 2, 6, 6, 6)
    turned = (0, 1, 3, 2)
    await agree(
        device,
        lambda q, k, v: attention(tc.permute_dims(q, turned), k[:, :, ::-1], v[..., ::-1]),
        lambda q, k, v: _attention(q.transpose(turned), k[:, :, ::-1], v[..., ::-1]),
        q, k, v,
    )  # fmt: skip


async def results_in_memory_order(device: Device) -> None:
    """The kernel writes heads next to each other; reads return the order of the shape."""
    q, k, v = _qkv(2, 3, 5, 5, 8)
    await agree(device, lambda *a: attention(*a)[:, 1:, ::-2], lambda *a: _attention(*a)[:, 1:, ::-2], q, k, v)
    await agree(device, lambda *a: attention(*a) + a[0], lambda *a: _attention(*a) + a[0], q, k, v)
    await agree(device, lambda *a: tc.sum(attention(*a), (1, 3)), lambda *a: _attention(*a).sum((1, 3)), q, k, v)
    await agree(
        device, lambda *a: attention(attention(*a), *a[1:]), lambda *a: _attention(_attention(*a), *a[1:]), q, k, v
    )


async def many_batches(device: Device) -> None:
    await agree(device, attention, _attention, *_qkv(65_537, 1, 1, 1, 4))


async def wrong_shapes_are_refused(device: Device) -> None:
    q, k, short, flat, mask, whole, batch = on(
        device, numbers(2, 3, 5, 8), numbers(2, 3, 7, 8), numbers(2, 3, 7, 4), numbers(8), numbers(2, 7),
        np.zeros((2, 3, 7, 8), np.int32), numbers(3, 3, 7, 8),
    )  # fmt: skip
    refused(device, ShapeMismatch, lambda: attention(q, short, short))
    refused(device, ShapeMismatch, lambda: attention(q, k, k[:, :, :6]))
    refused(device, ShapeMismatch, lambda: attention(flat, flat, flat))
    refused(device, ShapeMismatch, lambda: attention(q, k, k, mask))
    refused(device, ShapeMismatch, lambda: attention(q, k, k, tc.reshape(q, (1, *q.shape))))
    refused(device, ShapeMismatch, lambda: attention(q, batch, batch))
    refused(device, UnsupportedDtype, lambda: attention(q, k, whole))
    refused(device, UnsupportedDtype, lambda: attention(q, k[:, :, :0], whole[:, :, :0]))
    refused(device, UnsupportedDtype, lambda: attention(q, k, k, whole[0, 0, :5, :7]))
    refused(device, ShapeMismatch, lambda: attention(q, k[:, :2], k[:, :2]))
