"""Dtypes smaller than a word: bytes equal to NumPy's for every position in a word and any adjacent values."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import UnsupportedOp
from tests.cases import only
from tests.cases.support import on, raises

DTYPES = ("float16", "bool", "int32", "uint32", "float32")
SIZES = (0, 1, 2, 3, 5, 7, 64, 1027)
ANY = slice(None)


def values(size: int, dtype: str) -> Any:
    """Return numbers that every dtype can represent."""
    drawn = np.random.default_rng(size).uniform(0, 9, size)
    return drawn > 4 if dtype == "bool" else drawn.astype(dtype)


def same(actual: Any, expected: Any) -> None:
    """Assert equal dtype, shape and bytes."""
    expected = np.ascontiguousarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes(), f"{actual} instead of {expected}"


async def parts_at_every_offset(device: Device) -> None:
    for dtype, size in itertools.product(DTYPES, SIZES):
        a = values(size, dtype)
        (x,) = on(device, a)
        for part in (slice(None, None, -1), slice(1, None, 2), slice(1, None)):
            same(await tc.concat([x[part], x, x[part]]).read(), np.concatenate([a[part], a, a[part]]))
            wide = np.broadcast_to(a[part], (3, a[part].size))
            turned = tc.permute_dims(tc.broadcast_to(x[part], wide.shape), (1, 0))
            same(await tc.reshape(turned, (-1,)).read(), wide.T.reshape(-1))


async def columns_beside_each_other(device: Device) -> None:
    for dtype, columns in itertools.product(DTYPES, itertools.product((1, 2, 3, 4, 8), repeat=2)):
        parts = [values(5 * n, dtype).reshape(5, n) for n in columns]
        same(await tc.concat(on(device, *parts), 1).read(), np.concatenate(parts, 1))


async def casts_between_all(device: Device) -> None:
    for source, target, size in itertools.product(DTYPES, DTYPES, (0, 1, 3, 1027)):
        a = values(size, source)
        same(await tc.astype(on(device, a)[0], target).read(), a.astype(target))


async def every_float16(device: Device) -> None:
    a = np.arange(65536, dtype=np.uint16).view(np.float16)
    (x,) = on(device, a)
    wide = tc.astype(x, "float32")
    np.testing.assert_array_equal(await wide.read(), a.astype(np.float32))
    np.testing.assert_array_equal(await tc.astype(wide, "float16").read(), a)
    np.testing.assert_array_equal(await tc.reshape(x[::-1], (256, 256)).read(), a[::-1].reshape(256, 256))


async def float32_rounds_to_the_nearest_float16(device: Device) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(-1, 1, 100_000) * 2.0 ** rng.integers(-30, 17, 100_000)
    halves = np.arange(31743, dtype=np.uint16).view(np.float16).astype(np.float64)
    between = (halves[:-1] + halves[1:]) / 2  # ties, which are exact in float32
    edge = [65519.99, 65520, 1e6, 3e38, np.inf, -np.inf, np.nan, 0.0, -0.0]
    a = np.concatenate([drawn, between, -between, edge]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = a.astype(np.float16)
    got = await tc.astype(on(device, a)[0], "float16").read()
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


async def float16_computes_in_float32(device: Device) -> None:
    a = np.array([0.1, 1.5, -2, 200, 1e-4], np.float16)
    (x,) = on(device, a)
    same(await (x * x).read(), (a.astype(np.float32) ** 2).astype(np.float16))
    mixed = await (x + on(device, a.astype(np.float32))[0]).read()
    same(mixed, a + a.astype(np.float32))


async def floats_outside_an_ints_range_become_its_ends(device: Device) -> None:
    a = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 2147483520, 2147483648, 5e9, -0.9, -1.1], np.float32)
    (x,) = on(device, a)
    top, low = 2**31 - 1, -(2**31)
    assert (await tc.astype(x, "int32").read()).tolist() == [0, top, low, top, low, 2147483520, top, top, 0, -1]
    top = 2**32 - 1
    assert (await tc.astype(x, "uint32").read()).tolist() == [0, top, 0, 3000000000, 0, 2147483520, 2**31, top, 0, 0]
    assert (await tc.astype(x, "bool").read()).tolist() == [True] * 10


@only("webgpu")
async def what_wgsl_cannot_compute_is_refused(device: Device) -> None:
    for dtype in ("int64", "int8", "uint8"):
        (x,) = on(device, np.arange(5).astype(dtype))
        before = device.total
        (ints,) = on(device, np.zeros(3, np.int32))
        for work in (tc.astype(x, "float32"), tc.concat([x, x]), tc.astype(ints, dtype)):
            await raises(UnsupportedOp, work.read(), dtype)
        assert device.total - before <= 16
        same(await x[::-2].read(), np.arange(5).astype(dtype)[::-2])
