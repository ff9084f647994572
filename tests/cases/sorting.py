"""Sorting along an axis: ties, NaN, both directions, rows of one part and of many."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch
from tests.cases.support import INF, NAN, numbers, on, refused

DTYPES = ("float32", "float16", "int32", "uint32", "bool")


def _values(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """Draw from few distinct values, so that there are ties."""
    drawn = np.random.default_rng([seed, *shape]).integers(-20, 20, shape)
    return (drawn % 2 == 0) if dtype == "bool" else (np.abs(drawn) if dtype == "uint32" else drawn).astype(dtype)


def _order(a: Any, descending: bool = False) -> Any:
    """Sort positions along the last axis, row by row in Python."""
    rows = []
    for row in a.reshape(-1, a.shape[-1]) if a.size else ():

        def key(i: int, row: Any = row) -> Any:
            nan = bool(np.isnan(row[i]))
            value = 0 if nan else float(row[i])
            return (not nan, -value, i) if descending else (nan, value, i)

        rows.append(sorted(range(a.shape[-1]), key=key))
    return np.array(rows, np.int32).reshape(a.shape)


async def _same(tensor: Any, wanted: Any) -> None:
    got = await tensor.read()
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, (got.dtype, got.shape, wanted.shape)
    np.testing.assert_array_equal(got, wanted)


async def rows_of_every_length(device: Device) -> None:
    for shape in ((1,), (2,), (7,), (3, 5), (2, 3, 64), (4, 255), (2, 256), (3, 257), (1, 1000), (2, 0), (0, 3)):
        a = _values(*shape)
        for descending in (False, True):
            (x,) = on(device, a)
            order = _order(a, descending)
            await _same(tc.argsort(x, descending=descending), order)
            await _same(tc.sort(x, descending=descending), np.take_along_axis(a, order, -1))


async def every_dtype(device: Device) -> None:
    for dtype in DTYPES:
        a = _values(3, 300, dtype=dtype)
        (x,) = on(device, a)
        await _same(tc.argsort(x), _order(a))
        values, ids = tc.topk(x, 9)
        order = _order(a, descending=True)[:, :9]
        await _same(ids, order)
        await _same(values, np.take_along_axis(a, order, -1))
    extremes = np.array([2**31 - 1, -(2**31), 0, -1, 1], np.int32)
    await _same(tc.sort(*on(device, extremes)), np.sort(extremes))
    large = np.array([2**32 - 1, 0, 2**31, 1], np.uint32)
    await _same(tc.sort(*on(device, large)), np.sort(large))


async def other_axes_and_views(device: Device) -> None:
    a = _values(6, 5, 4)
    (x,) = on(device, a)
    for axis in (0, 1, -1):
        await _same(tc.sort(x, axis), np.sort(a, axis))
        await _same(tc.argsort(x, axis), np.argsort(a, axis, kind="stable").astype(np.int32))
    await _same(tc.sort(x[::-2, :, 1:3], 1), np.sort(a[::-2, :, 1:3], 1))
    _, ids = tc.topk(tc.permute_dims(x, (2, 0, 1)), 3, axis=1, largest=False)
    turned = a.transpose(2, 0, 1)
    await _same(ids, np.argsort(turned, 1, kind="stable")[:, :3].astype(np.int32))


async def nan_infinities_and_zeros(device: Device) -> None:
    a = np.array([[NAN, 1, -INF, 0.0, -0.0, INF, NAN, -1, 3e38, -3e38, 1e-38, -1e-38]], np.float32)
    (x,) = on(device, a)
    for descending in (False, True):
        await _same(tc.argsort(x, descending=descending), _order(a, descending))
    _, ids = tc.topk(x, 5)
    await _same(ids, _order(a, descending=True)[:, :5])
    await _same(tc.sort(x), np.sort(a))


async def long_rows(device: Device) -> None:
    a = numbers(2, 20_011)
    (x,) = on(device, a)
    await _same(tc.sort(x), np.sort(a))
    await _same(tc.argsort(x, descending=True), np.argsort(-a, kind="stable").astype(np.int32))


async def the_first_few_of_long_rows(device: Device) -> None:
    a = _values(2, 50_021)
    (x,) = on(device, a)
    down = np.argsort(-a, kind="stable").astype(np.int32)
    up = np.argsort(a, kind="stable").astype(np.int32)
    for k in (0, 1, 5, 50, 128):
        await _same(tc.topk(x, k)[1], down[:, :k])
    values, ids = tc.topk(x, 200, largest=False)
    await _same(ids, up[:, :200])
    await _same(values, np.take_along_axis(a, up[:, :200], -1))
    (flat,) = on(device, np.full((1, 3000), 7, np.float32))
    await _same(tc.topk(flat, 3)[1], np.array([[0, 1, 2]], np.int32))


async def many_rows(device: Device) -> None:
    a = _values(70_000, 3)
    await _same(tc.sort(*on(device, a)), np.sort(a))


async def a_k_that_does_not_fit_is_refused(device: Device) -> None:
    (x,) = on(device, numbers(3, 4))
    refused(device, ShapeMismatch, lambda: tc.topk(x, 5))
    refused(device, ShapeMismatch, lambda: tc.topk(x, -1))
    refused(device, ShapeMismatch, lambda: tc.topk(x, 1, axis=2))
    refused(device, ShapeMismatch, lambda: tc.sort(x, axis=-3))
