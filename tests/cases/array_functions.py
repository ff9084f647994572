"""Functions of arrays that are composed of ops, or read values, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import ReadRequired, ShapeMismatch, TensorCommonsError, UnsupportedDtype, UnsupportedOp
from tensorcommons.samples import DTYPES, FLOATS, drawn
from tensorcommons.tensor import realize
from tests.cases.support import INF, NAN, near, on, raises, refused

SPECIALS = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, -7.0, 1e4, INF, -INF, NAN)


async def _compare(pairs: list[tuple[str, Any, Any]], tolerance: float = 0) -> None:
    """Compare tensors with arrays by name: dtype, shape and values, within ``tolerance`` of each."""
    await realize([tensor for _, tensor, _ in pairs])
    for name, tensor, wanted in pairs:
        got, expected = await tensor.read(), np.asarray(wanted)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), f"{name}: {got.dtype}{got.shape}"
        if tolerance:
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(got, expected, err_msg=name)


def _all_pairs(dtype: str, numbers: Any) -> list[Any]:
    grid = np.meshgrid(np.array(numbers).astype(dtype), np.array(numbers).astype(dtype))
    return [each.reshape(-1) for each in grid]


async def closeness(device: Device) -> None:
    pairs: list[tuple[str, Any, Any]] = []
    with np.errstate(all="ignore"):
        for dtype in FLOATS:
            a, b = _all_pairs(dtype, (*SPECIALS, 1.00001, 1.001))
            x, y = on(device, a, b)
            wide = [each.astype(np.float32) for each in (a, b)]
            for nan in (False, True):
                wanted = np.isclose(wide[0], wide[1], rtol=1e-3, atol=1e-3, equal_nan=nan)
                pairs.append((f"{dtype} {nan}", tc.isclose(x, y, 1e-3, 1e-3, nan), wanted))
        for dtype, ints in (
            ("int32", (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**24, 2**24 + 1)),
            ("uint32", (0, 5, 2**32 - 1)),
        ):
            a, b = _all_pairs(dtype, ints)
            x, y = on(device, a, b)
            pairs.append((dtype, tc.isclose(x, y, 0, 0), a == b))
            pairs.append((f"{dtype} 2", tc.isclose(x, y, 0, 2), np.abs(a.astype(np.int64) - b.astype(np.int64)) <= 2))
    x, y = on(device, np.array([[True, False]]), np.array([[True], [False]]))
    pairs += [
        ("bool", tc.isclose(x, y), [[True, False], [False, True]]),
        ("all", tc.allclose(on(device, np.ones((2, 3), np.float32))[0], 1.000001), True),
        ("not all", tc.allclose(on(device, np.ones((2, 3), np.float32))[0], 1.1), False),
        ("none", tc.allclose(*on(device, np.ones((0, 3), np.float32), np.zeros((0, 3), np.float32))), True),
    ]
    await _compare(pairs)
    refused(device, UnsupportedDtype, lambda: tc.isclose(x, on(device, np.ones(2, np.float32))[0]))


async def remainders_as_in_c(device: Device) -> None:
    pairs = []
    with np.errstate(all="ignore"):
        a, b = _all_pairs("float32", SPECIALS)
        x, y = on(device, a, b)
        pairs.append(("float32", tc.fmod(x, y), np.fmod(a, b)))
        for dtype, ints in (
            ("int32", (0, 1, -1, 7, -7, 3, -3, 2**31 - 1, -(2**31))),
            ("uint32", (0, 1, 7, 3, 2**32 - 1)),
        ):
            a, b = _all_pairs(dtype, ints)
            x, y = on(device, a, b)
            pairs.append((dtype, tc.fmod(x, y), np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))).astype(dtype)))
    await _compare(pairs)


async def neighbours(device: Device) -> None:
    for dtype in FLOATS:
        info = np.finfo(dtype)
        edges = [1.0, 2.0, 1.5, 1000.0, float(info.max), float(info.tiny) * 4, float(info.tiny) * 7.5, 0.1, 2.0**-10]
        if dtype == "float16" or device.kind == "cpu":
            least = float(info.smallest_subnormal)
            edges += [float(info.tiny), float(info.tiny) - least, least, 5 * least]
        a, b = _all_pairs(dtype, [*edges, *(-edge for edge in edges), 0.0, -0.0, INF, -INF, NAN])
        x, y = on(device, a, b)
        with np.errstate(all="ignore"):
            wanted = np.nextafter(a, b)
        got = await tc.nextafter(x, y).read()
        if dtype == "float32" and device.kind != "cpu":  # subnormal neighbours of 0 may be 0
            from_zero = (a == 0) & np.isfinite(b)
            assert (np.abs(got[from_zero]) <= np.abs(wanted[from_zero])).all()
            a, b, got, wanted = (each[~(a == 0)] for each in (a, b, got, wanted))
        np.testing.assert_array_equal(got, wanted, err_msg=dtype)
        moved = a != b  # of 0 and -0 NumPy returns the one or the other, by the dtype
        np.testing.assert_array_equal(np.signbit(got[moved & (got == 0)]), np.signbit(wanted[moved & (got == 0)]))
    refused(device, UnsupportedDtype, lambda: tc.nextafter(*on(device, np.ones(2, np.int32), np.ones(2, np.int32))))


async def rounding_to_decimals(device: Device) -> None:
    a = np.array([0.0, -0.0, 1.006, -2.346, 0.126, 12345.678, -3e38, 3e38, 1e-30, INF, -INF, NAN], np.float32)
    (x,) = on(device, a)
    pairs = []
    with np.errstate(all="ignore"):
        for decimals in (1, 2, -1, -3):
            exact = np.round(a.astype(np.float64), decimals)
            pairs.append((f"{decimals}", tc.round(x, decimals), exact.astype(np.float32)))
    await _compare(pairs, 1e-6)
    half = np.array([1000.0, 6.25, -65504, 0.2], np.float16)
    await _compare([("half", tc.round(on(device, half)[0], 2), half.astype(np.float32).round(2).astype(np.float16))])
    ints = np.array([0, 5, 15, 25, -5, -15, 14, 16, 2**31 - 8, -(2**31) + 8, 149, 151], np.int32)
    (x,) = on(device, ints)
    await _compare(
        [(f"{d}", tc.round(x, d), np.round(ints.astype(np.float64), d).astype(np.int32)) for d in (2, -1, -2)]
    )
    await _compare([("beyond", tc.round(x, -11), np.zeros_like(ints))])


async def replacements(device: Device) -> None:
    pairs = []
    for dtype in FLOATS:
        a = np.array([SPECIALS], dtype)
        (x,) = on(device, a)
        pairs.append((dtype, tc.nan_to_num(x), np.nan_to_num(a)))
        pairs.append((dtype, tc.nan_to_num(x, 7.0, 8.0, -9.0), np.nan_to_num(a, nan=7, posinf=8, neginf=-9)))
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        a, mask = drawn(rng, dtype, (3, 5)), rng.random(5) < 0.5
        x, m = on(device, a, mask)
        pairs.append(
            (dtype, tc.masked_fill(x[:, ::-1], m, True), np.where(mask, np.array(True).astype(dtype), a[:, ::-1]))
        )
    await _compare(pairs)
    x, wide = on(device, np.ones(3, np.float32), np.ones((2, 3), bool))
    refused(device, ShapeMismatch, lambda: tc.masked_fill(x, wide, 0))
    refused(device, ShapeMismatch, lambda: tc.masked_fill(x, wide[0], x))
    refused(device, UnsupportedDtype, lambda: tc.masked_fill(x, x, 0))
    refused(device, UnsupportedDtype, lambda: tc.masked_fill(on(device, np.ones(3, np.int32))[0], wide[0], 0.5))


async def differences(device: Device) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for dtype in DTYPES:
        a = drawn(rng, dtype, (3, 6, 2))
        (x,) = on(device, a)
        for axis, n in ((-1, 1), (1, 2), (0, 3), (1, 0), (1, 9)):
            pairs.append((f"{dtype} {axis} {n}", tc.diff(x, axis=axis, n=n), np.diff(a, n, axis)))
        first, last = a[:, :1], a[:, :2]
        pairs.append((dtype, tc.diff(x, axis=1, prepend=first, append=last), np.diff(a, 1, 1, first, last)))
    await _compare(pairs)
    (x,) = on(device, np.ones(3, np.float32))
    refused(device, ShapeMismatch, lambda: tc.diff(x, n=-1))


async def positions_in_many_axes(device: Device) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for dtype in DTYPES:
        a = drawn(rng, dtype, (3, 4, 5))
        (x,) = on(device, a)
        for depth, shape in ((1, (2, 3)), (2, ()), (3, (7,)), (2, (0, 2))):
            ids = np.stack([rng.integers(-n, n, shape) for n in a.shape[:depth]], -1).astype(np.int32)
            for given in (ids, on(device, ids)[0]):
                pairs.append((f"{dtype} {depth}", tc.gather_nd(x, given), a[tuple(np.moveaxis(ids, -1, 0))]))
    await _compare(pairs)
    (x,) = on(device, np.ones((2, 2), np.float32))
    refused(device, ShapeMismatch, lambda: tc.gather_nd(x, np.zeros((2, 3), np.int32)))
    refused(device, ShapeMismatch, lambda: tc.gather_nd(x, np.zeros((2, 0), np.int32)))


async def quantiles(device: Device) -> None:
    rng = np.random.default_rng(0)
    for dtype, tolerance in (("float32", 1e-6), ("float16", 1e-3)):
        a = rng.uniform(-3, 3, (4, 1, 9)).astype(dtype)
        a[2, 0, 3] = NAN
        wide = a.astype(np.float64)
        x, y = on(device, a, np.array([INF, INF, 1, -INF], dtype))
        pairs = []
        for method in ("linear", "lower", "higher", "nearest", "midpoint", "hazen", "weibull", "median_unbiased"):
            wanted = np.quantile(wide, [0, 0.3, 0.5, 1], axis=-1, method=method).astype(dtype)
            pairs.append((method, tc.quantile(x, [0, 0.3, 0.5, 1], -1, method), wanted))
        pairs += [
            ("median", tc.median(x, axis=(0, 2)), np.median(wide, (0, 2)).astype(dtype)),
            ("all", tc.median(x[:2]), np.median(wide[:2]).astype(dtype)),
            ("kept", tc.quantile(x, 0.25, 2, keepdims=True), np.quantile(wide, 0.25, 2, keepdims=True).astype(dtype)),
            ("0-d", tc.median(x[0, 0, 0]), a[0, 0, 0]),
            ("infinite", tc.quantile(y, [0, 0.9]), np.array([-INF, INF], dtype)),
        ]  # fmt: skip
        await _compare(pairs, tolerance)
    (x,) = on(device, np.ones((0, 3), np.float32))
    near(await tc.median(x, axis=1).read(), np.zeros(0))
    refused(device, ShapeMismatch, lambda: tc.median(x, axis=0))
    refused(device, TensorCommonsError, lambda: tc.quantile(x, 1.5, 1))
    refused(device, TensorCommonsError, lambda: tc.quantile(x, 0.5, 1, "inverted_cdf"))


async def a_sorter(device: Device) -> None:
    a = np.array([30, 10, 20, 20], np.int32)
    x, values = on(device, a, np.array([[20, 5], [31, 10]], np.int32))
    order = tc.argsort(x)
    for side in ("left", "right"):
        wanted = np.searchsorted(np.sort(a), [[20, 5], [31, 10]], side)
        np.testing.assert_array_equal(await tc.searchsorted(x, values, side, order).read(), wanted)
    refused(device, ShapeMismatch, lambda: tc.searchsorted(values, x))
    refused(device, TensorCommonsError, lambda: tc.searchsorted(x, x, "middle"))


async def shapes_from_values(device: Device) -> None:
    """Functions that read values read where they can wait, and elsewhere raise an error with the remedy."""
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        a = drawn(rng, dtype, (3, 4)) if dtype == "bool" else rng.integers(0, 4, (3, 4)).astype(dtype)
        if dtype in FLOATS:
            a[0, :2] = NAN
        (x,) = on(device, a)
        functions: dict[str, Callable[[], Any]] = {
            "np.nonzero(": partial(tc.nonzero, x),
            "np.unique(": partial(tc.unique_all, x),
            "repeats.read(": partial(tc.repeat, x, on(device, np.array([2, 0, 1], np.int32))[0], axis=0),
        }
        if device.kind != "cpu" and not can_suspend():
            for remedy, function in functions.items():
                assert remedy in str(refused(device, ReadRequired, function))
            continue
        found = [function() for function in functions.values()]
        ids = [each.astype(np.int32) for each in np.nonzero(a)]
        await _compare([(dtype, got, wanted) for got, wanted in zip(found[0], ids, strict=True)])
        values, first, inverse, counts = np.unique(a, True, True, True, equal_nan=False)
        numbers = [n.astype(np.int32) for n in (first, inverse.reshape(a.shape), counts)]
        await _compare([(dtype, got, wanted) for got, wanted in zip(found[1], (values, *numbers), strict=True)])
        await _compare([
            ("values", tc.unique_values(x), values),
            ("counts", tc.unique_counts(x).counts, numbers[2]),
            ("inverse", tc.unique_inverse(x).inverse_indices, numbers[1]),
            ("repeat", found[2], np.repeat(a, [2, 0, 1], 0)),
        ])  # fmt: skip


async def repeats_of_each_element(device: Device) -> None:
    a = np.arange(6, dtype=np.int32).reshape(2, 3)
    (x,) = on(device, a)
    await _compare([
        ("columns", tc.repeat(x, [1, 0, 2], axis=1), np.repeat(a, [1, 0, 2], 1)),
        ("flat", tc.repeat(x, np.arange(6)), np.repeat(a, np.arange(6))),
        ("one", tc.repeat(x, [2], axis=0), np.repeat(a, [2], 0)),
    ])  # fmt: skip
    refused(device, ShapeMismatch, lambda: tc.repeat(x, [1, 2], axis=1))
    refused(device, ShapeMismatch, lambda: tc.repeat(x, [1, -2, 3], axis=1))
    refused(device, UnsupportedDtype, lambda: tc.repeat(x, [1.5, 2, 3], axis=1))


async def products_of_rows(device: Device) -> None:
    a = np.array([[2, 3, 0], [1, -1, 5]], np.int32)
    (x,) = on(device, a)
    await _compare([
        ("columns", tc.cumulative_prod(x, axis=0), np.cumprod(a, 0, dtype=np.int32)),
        ("bool", tc.cumulative_prod(x, axis=1, dtype="bool"), np.cumprod(a, 1, dtype=np.int32) != 0),
        ("like", tc.empty_like(x), np.zeros_like(a)),
    ])  # fmt: skip
    many = np.full((3, 700), 1e30, np.float32)
    many[0, 2], many[2, 650] = 0, NAN
    many[1, np.arange(700) // 9 % 2 == 1] = 1e-30
    (y,) = on(device, many)
    with np.errstate(all="ignore"):
        wanted = np.cumprod(many.astype(np.float64), 1).astype(np.float32)
    got = await tc.cumulative_prod(y, axis=1).read()
    assert (got[0, 2:] == 0).all() and np.isinf(got[1, 2:9]).all() and np.isnan(got[2, 650:]).all()
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-37)
    refused(device, ShapeMismatch, lambda: tc.cumulative_prod(x))


async def small_ints(device: Device) -> None:
    """Reductions, sorts and searches of every integer dtype; WebGPU refuses them, as WGSL has none of these."""
    if device.kind == "webgpu":
        (x,) = on(device, np.arange(5, dtype=np.int64))
        functions: tuple[Any, ...] = (tc.sort, tc.sum, tc.argmax, tc.mean, tc.cumulative_prod)
        for function in functions:
            await raises(UnsupportedOp, function(x).read(), "int64")
        await raises(UnsupportedOp, tc.searchsorted(x, x).read(), "int64")
        return
    rng = np.random.default_rng(0)
    for dtype in ("int8", "uint8", "int64"):
        a = rng.integers(0, 100, (3, 300)).astype(dtype)
        (x,) = on(device, a)
        sevens = np.arange(0, 100, 7, dtype=dtype)
        wide = {"int8": np.int32, "uint8": np.uint32, "int64": np.int64}[dtype]
        await _compare([
            ("sum", tc.sum(x, axis=1), a.sum(1, dtype=wide)),
            ("prod", tc.prod(x[:, :3], axis=1), a[:, :3].prod(1, dtype=wide)),
            ("cumulative", tc.cumulative_sum(x, axis=1), a.cumsum(1, dtype=wide)),
            ("max", tc.max(x), a.max()), ("argmin", tc.argmin(x, axis=1), a.argmin(1).astype(np.int32)),
            ("any", tc.any(x, axis=0), a.any(0)), ("count", tc.count_nonzero(x), np.int32(np.count_nonzero(a))),
            ("sort", tc.sort(x), np.sort(a)), ("mean", tc.mean(x, axis=1), a.mean(1).astype(np.float32)),
            ("order", tc.argsort(x), np.argsort(a, 1, kind="stable").astype(np.int32)),
            ("search", tc.searchsorted(sevens, x), np.searchsorted(sevens, a).astype(np.int32)),
            ("isclose", tc.isclose(x, x[:1], 0, 3), np.abs(a.astype(np.int64) - a[:1]) <= 3),
        ], 1e-6)  # fmt: skip
