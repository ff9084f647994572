"""Sums, means and extremes over every choice of axes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases import only
from tests.cases.support import INF, NAN, agree, near, numbers, on, refused


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Compute log-sum-exp pairwise."""
    add: Any = np.logaddexp
    if axis is None:
        return add.reduce(np.asarray(x, np.float64).reshape(-1))
    return add.reduce(np.asarray(x, np.float64), axis=axis, keepdims=keepdims)


REDUCTIONS: dict[str, Any] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "var": np.var,
    "std": np.std,
    "logsumexp": _logsumexp,
}
WHOLE: dict[str, Any] = {"any": np.any, "all": np.all, "count_nonzero": np.count_nonzero}
POSITIONS: dict[str, Any] = {"argmax": np.argmax, "argmin": np.argmin}


async def _same(tensor: Any, wanted: Any) -> None:
    """Assert equal elements; int64 of NumPy is int32 here."""
    got = await tensor.read()
    assert got.dtype == (bool if np.asarray(wanted).dtype == bool else np.int32), got.dtype
    assert got.shape == np.shape(wanted), f"{got.shape}, expected {np.shape(wanted)}"
    np.testing.assert_array_equal(got, wanted)


async def all_choices_of_axes(device: Device) -> None:
    a = numbers(3, 1, 7, 5)
    for count in range(5):
        for axes in itertools.combinations(range(4), count):
            keep = bool(count % 2)
            await agree(
                device,
                lambda x, axes=axes, keep=keep: tc.sum(x, axis=axes, keepdims=keep),
                lambda x, axes=axes, keep=keep: np.sum(x, axis=axes, keepdims=keep),
                a,
            )


async def every_reduction(device: Device) -> None:
    a = numbers(13, 17)
    for name, reference in REDUCTIONS.items():
        for axis in (None, 0, -1):
            await agree(device, lambda x, n=name, a=axis: getattr(tc, n)(x, axis=a), lambda x, r=reference, a=axis: r(x, axis=a), a)  # fmt: skip # noqa: E501


async def through_views(device: Device) -> None:
    a = numbers(6, 10, 4)
    await agree(device, lambda x: tc.sum(x[::-2, 1:9:3], axis=0), lambda x: x[::-2, 1:9:3].sum(0), a)
    await agree(device, lambda x: tc.max(tc.permute_dims(x, (2, 0, 1)), 1), lambda x: x.transpose(2, 0, 1).max(1), a)
    await agree(device, lambda x: tc.mean(tc.broadcast_to(x[0], (5, 10, 4)), (0, 2)), lambda x: x[0].mean(-1), a)
    await agree(device, lambda x: tc.sum(x + x, axis=(0, 2)) * 2, lambda x: (4 * x).sum((0, 2)), a)


async def long_rows_keep_their_digits(device: Device) -> None:
    a = numbers(3, 100_000, low=0.5, high=1.5)
    await agree(device, lambda x: tc.sum(x, axis=1), lambda x: x.sum(1), a, tolerance=1e-6)
    await agree(device, lambda x: tc.mean(x, axis=1), lambda x: x.mean(1), a, tolerance=1e-6)
    await agree(device, lambda x: tc.max(x), lambda x: x.max(), a, tolerance=0)


async def more_than_65535_workgroups(device: Device) -> None:
    await agree(device, lambda x: tc.sum(x, axis=1), lambda x: x.sum(1), numbers(300_001, 2))


async def of_no_elements(device: Device) -> None:
    (empty,) = on(device, numbers(3, 0))
    near(await tc.sum(empty, axis=1).read(), np.zeros(3))
    near(await tc.mean(empty, axis=1).read(), np.full(3, NAN))
    near(await tc.sum(empty, axis=0).read(), np.zeros(0))
    near(await tc.max(empty, axis=0).read(), np.zeros(0))
    near(await tc.sum(empty).read(), np.float64(0))
    refused(device, ShapeMismatch, lambda: tc.max(empty))
    refused(device, ShapeMismatch, lambda: tc.min(empty, axis=1))


async def of_scalars_and_single_elements(device: Device) -> None:
    for name, reference in REDUCTIONS.items():
        await agree(device, getattr(tc, name), reference, numbers())
        await agree(device, getattr(tc, name), reference, numbers(1, 1))


async def nan_and_infinities(device: Device) -> None:
    a = np.array([[1, NAN, 2], [INF, 1, 2], [-INF, INF, 0], [-INF, -INF, -INF], [3e38, 3e38, 0]], np.float32)
    for name, reference in REDUCTIONS.items():
        with np.errstate(all="ignore"):
            wanted = reference(a, axis=1)
        near(await getattr(tc, name)(on(device, a)[0], axis=1).read(), wanted)


async def wrong_axes_and_dtypes_are_refused(device: Device) -> None:
    a, truth = on(device, numbers(2, 3), np.ones(3, bool))
    refused(device, ShapeMismatch, lambda: tc.sum(a, axis=2))
    refused(device, ShapeMismatch, lambda: tc.max(a, axis=(0, -2)))
    refused(device, UnsupportedDtype, lambda: tc.max(truth))


async def truth_and_positions(device: Device) -> None:
    drawn = np.random.default_rng(0).integers(-2, 3, (5, 6, 7))
    for dtype in ("float32", "float16", "int32", "bool", "uint32"):
        a = (np.abs(drawn) if dtype == "uint32" else drawn).astype(dtype)
        (x,) = on(device, a)
        for axis in (None, 0, 1, -1, (0, 2)):
            for keep in (False, True):
                for name, reference in WHOLE.items():
                    await _same(getattr(tc, name)(x, axis=axis, keepdims=keep), reference(a, axis=axis, keepdims=keep))
        for name, reference in POSITIONS.items():
            for axis in (None, 0, 1, -1):
                if dtype != "bool":
                    await _same(getattr(tc, name)(x, axis, True), reference(a, axis, keepdims=True))
                    await _same(getattr(tc, name)(x[::-1, ::2], axis), reference(a[::-1, ::2], axis))


async def whole_numbers_and_float16(device: Device) -> None:
    drawn = np.random.default_rng(1).integers(-9, 9, (11, 13))
    for dtype in ("int32", "uint32", "float16", "bool"):
        a = (np.abs(drawn) if dtype == "uint32" else drawn).astype(dtype)
        (x,) = on(device, a)
        wide = np.int32 if dtype == "bool" else a.dtype
        for axis in (None, 0, 1):
            total = await tc.sum(x, axis).read()
            assert total.dtype == wide
            np.testing.assert_array_equal(
                total, a.sum(axis, dtype=np.int64 if dtype != "float16" else None).astype(wide)
            )
            if dtype != "bool":
                np.testing.assert_array_equal(await tc.max(x, axis).read(), a.max(axis))
                np.testing.assert_array_equal(await tc.min(x, axis).read(), a.min(axis))
    half = np.full((3, 5000), 20, np.float16)
    (x,) = on(device, half)
    assert np.isinf(await tc.sum(x, 1).read()).all()
    near(await tc.mean(x, 1).read(), np.full(3, 20.0))
    near(await tc.sum(x, 1, dtype="float32").read(), np.full(3, 1e5))
    a = numbers(7, 300).astype(np.float16)
    (x,) = on(device, a)
    for name in ("mean", "var", "std", "logsumexp"):
        got = await getattr(tc, name)(x, axis=1).read()
        assert got.dtype == np.float16
        near(got, REDUCTIONS[name](a.astype(np.float64), axis=1), 1e-3)
    near(await tc.prod(on(device, np.array([[3, -2, 5]], np.int32))[0], axis=1).read(), np.array([-30]))
    wrapped = await tc.sum(*on(device, np.array([2**31 - 1, 1], np.int32))).read()
    assert wrapped == -(2**31)


async def long_rows_of_everything(device: Device) -> None:
    a = numbers(2, 100_003, low=-1, high=1.5)
    (x,) = on(device, a)
    wide = a.astype(np.float64)
    for name in ("sum", "mean", "var", "std", "logsumexp", "max", "min"):
        near(await getattr(tc, name)(x, axis=1).read(), REDUCTIONS[name](wide, axis=1), 2e-6)
        near(
            await getattr(tc, name)(x, axis=1, keepdims=True).read(),
            REDUCTIONS[name](wide, axis=1, keepdims=True),
            2e-6,
        )
        near(await getattr(tc, name)(tc.permute_dims(x, (1, 0)), axis=0).read(), REDUCTIONS[name](wide, axis=1), 2e-6)
    near(await tc.sum(x[:, ::-1], keepdims=True).read(), wide.sum(keepdims=True), 2e-6)
    ones = numbers(2, 100_003, low=0.99, high=1.01)
    near(await tc.prod(on(device, ones)[0], axis=1).read(), np.prod(ones, axis=1, dtype=np.float64), 1e-4)
    for name, reference in {**WHOLE, **POSITIONS}.items():
        await _same(getattr(tc, name)(x, axis=1), reference(a, axis=1))
    half = a.astype(np.float16)
    near(await tc.mean(on(device, half)[0], axis=1).read(), half.astype(np.float64).mean(1), 1e-3)
    rows = np.zeros((3, 70_000), bool)
    rows[1, 69_999] = rows[2] = True
    (flags,) = on(device, rows)
    await _same(tc.any(flags, 1), rows.any(1))
    await _same(tc.all(flags, 1), rows.all(1))
    await _same(tc.sum(flags, 1), rows.sum(1).astype(np.int32))


async def rows_that_lie_in_vectors(device: Device) -> None:
    a = numbers(3, 6, 260)
    (x,) = on(device, a)
    views = (
        (x, a),
        (x[1:, ::2], a[1:, ::2]),
        (x[:, :, 4:], a[:, :, 4:]),
        (x[:, :, 3:], a[:, :, 3:]),
        (x[:, ::-1, :258], a[:, ::-1, :258]),
    )
    for tensor, array in views:
        wide = array.astype(np.float64)
        for axis in (-1, (1, 2), None):
            for name in ("sum", "max", "var"):
                near(await getattr(tc, name)(tensor, axis=axis).read(), REDUCTIONS[name](wide, axis=axis), 2e-6)
            await _same(tc.any(tensor > 1.99, axis=axis), (array > np.float32(1.99)).any(axis))
        await _same(tc.argmax(tensor, -1), array.argmax(-1))
        await _same(tc.argmin(tensor), array.argmin())
    half = a.astype(np.float16)
    near(await tc.sum(on(device, half)[0], axis=-1).read(), half.astype(np.float64).sum(-1), 1e-3)
    long = numbers(2, 80_004)
    near(await tc.sum(on(device, long)[0], axis=-1).read(), long.sum(-1, dtype=np.float64), 2e-6)
    near(await tc.max(on(device, long)[0]).read(), long.max(), 0)


async def variance_of_large_means(device: Device) -> None:
    a = numbers(3, 1000)
    for mean in (1e4, -1e6):
        shifted = (a + np.float32(mean)).astype(np.float32)
        (x,) = on(device, shifted)
        wide = shifted.astype(np.float64)
        near(await tc.var(x, axis=1).read(), wide.var(1), 1e-5)
        near(await tc.var(x, axis=0).read(), wide.var(0), 1e-5)
    (same,) = on(device, np.full((2, 500), 1e7 + 1, np.float32))
    near(await tc.var(same, axis=1).read(), np.zeros(2), 0)


async def corrections_of_a_variance(device: Device) -> None:
    a = numbers(4, 3)
    (x,) = on(device, a)
    for correction in (0, 1, 1.5, 3, 4):
        with np.errstate(all="ignore"):
            wanted = np.square(a - a.mean(1, keepdims=True, dtype=np.float64)).sum(1) / np.maximum(3 - correction, 0)
        near(await tc.var(x, axis=1, correction=correction).read(), wanted)
    near(await tc.std(x, correction=1).read(), a.astype(np.float64).std(ddof=1))
    near(await tc.var(x[:, :1], axis=1, correction=1).read(), np.full(4, NAN))


async def sums_of_exponentials_that_overflow(device: Device) -> None:
    a = np.array([[1000, 1000, 999], [-1000, -1001, -2000], [INF, 0, 1], [-INF, -INF, -INF], [NAN, INF, 0]], np.float32)
    shift = np.array([1000, -1000, 0, 0, 0])
    with np.errstate(all="ignore"):
        wanted = np.log(np.exp(a.astype(np.float64) - shift[:, None]).sum(1)) + shift
    near(await tc.logsumexp(on(device, a)[0], axis=1).read(), wanted)
    near(await tc.logsumexp(on(device, a[:, ::-1])[0], axis=1).read(), wanted)
    near(await tc.logsumexp(on(device, numbers(2, 0))[0], axis=1).read(), np.full(2, -INF))


async def nan_in_truth_and_positions(device: Device) -> None:
    a = np.array([[1, NAN, 3, NAN], [INF, -INF, INF, 0], [-0.0, 0.0, 0.0, -0.0], [2, 2, 1, 1]], np.float32)
    (x,) = on(device, a)
    for name, reference in {**WHOLE, **POSITIONS}.items():
        await _same(getattr(tc, name)(x, axis=1), reference(a, axis=1))
        await _same(getattr(tc, name)(x, axis=0), reference(a, axis=0))


async def nothing_to_reduce(device: Device) -> None:
    (x,) = on(device, numbers(3, 0))
    near(await tc.prod(x, axis=1).read(), np.ones(3))
    near(await tc.var(x, axis=1).read(), np.full(3, NAN))
    await _same(tc.any(x, axis=1), np.zeros(3, bool))
    await _same(tc.all(x, axis=1), np.ones(3, bool))
    await _same(tc.count_nonzero(x), np.int32(0))
    refused(device, ShapeMismatch, lambda: tc.argmax(x))
    refused(device, ShapeMismatch, lambda: tc.argmin(x, axis=1))


async def running_sums(device: Device) -> None:
    a = numbers(3, 4, 300)
    (x,) = on(device, a)
    for axis in (0, 1, -1):
        near(await tc.cumulative_sum(x, axis).read(), a.cumsum(axis, dtype=np.float64))
        start = np.zeros_like(np.take(a, [0], axis))
        initial = np.concatenate([start, a], axis).cumsum(axis, dtype=np.float64)
        near(await tc.cumulative_sum(x[...], axis, include_initial=True).read(), initial)
    near(await tc.cumulative_sum(x[::-1, 1, ::-3], 1).read(), a[::-1, 1, ::-3].cumsum(1, dtype=np.float64))
    for dtype in ("int32", "uint32", "bool", "float16"):
        b = np.random.default_rng(2).integers(0, 3, (5, 1030)).astype(dtype)
        got = await tc.cumulative_sum(on(device, b)[0], axis=1).read()
        assert got.dtype == (np.int32 if dtype == "bool" else b.dtype)
        np.testing.assert_array_equal(got, b.cumsum(1, dtype=np.int32))
    for size in (0, 1, 127, 128, 129, 1024, 1025):
        flat = numbers(size)
        near(await tc.cumulative_sum(*on(device, flat)).read(), flat.cumsum(dtype=np.float64))
    long = numbers(2, 100_000, low=0.5, high=1.5)
    near(await tc.cumulative_sum(on(device, long)[0], axis=1).read(), long.cumsum(1, dtype=np.float64), 1e-6)
    whole = np.concatenate([np.zeros((1, 2)), long.T.cumsum(0, dtype=np.float64)])
    near(await tc.cumulative_sum(on(device, long.T)[0], axis=0, include_initial=True).read(), whole, 1e-6)
    for dtype in ("bool", "float16"):  # of long rows, too
        b = (long > 1).astype(dtype)
        got = await tc.cumulative_sum(on(device, b)[0], axis=1).read()
        wanted = b.cumsum(1, dtype=np.float64)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(got, wanted.astype(np.int32 if dtype == "bool" else dtype))
    refused(device, ShapeMismatch, lambda: tc.cumulative_sum(x))


async def positions_in_long_rows(device: Device) -> None:
    """Positions in parts of long rows: of several equal elements, the first is returned."""
    a = np.floor(numbers(3, 70_001, low=0, high=50)).astype(np.float32)
    a[1, 60_000] = a[1, 40_000] = NAN
    for array in (a, a.T.copy(), a.astype(np.float16), np.nan_to_num(a).astype(np.int32)):
        (x,) = on(device, array)
        long = int(array.shape[0] == 3)
        for name, reference in POSITIONS.items():
            await _same(getattr(tc, name)(x, long), reference(array, long))
            await _same(getattr(tc, name)(x, long, keepdims=True), np.expand_dims(reference(array, long), long))
            await _same(getattr(tc, name)(x[::-1]), reference(array[::-1]))


@only("webgpu")
async def as_hardware_does_it(device: Device) -> None:
    """Use several lanes per result, through workgroup memory, which a software adapter would not choose."""
    backend: Any = device.backend
    chosen = backend.adapter
    backend.adapter = replace(chosen, fallback=False)
    try:
        for shape, axes in (((13, 17), (None, 0, 1)), ((3, 260, 2), (0, 1, (0, 2))), ((2, 70_001), (1,))):
            a = numbers(*shape)
            (x,) = on(device, a)
            for axis in axes:
                for name in ("sum", "var"):  # the simplest and the longest way to merge states
                    wanted = REDUCTIONS[name](a.astype(np.float64), axis=axis)
                    near(await getattr(tc, name)(x, axis=axis).read(), wanted, 2e-6)
                if not isinstance(axis, tuple):
                    await _same(tc.argmax(x, axis), np.argmax(a, axis))
            near(await tc.cumulative_sum(x, -1).read(), a.cumsum(-1, dtype=np.float64), 2e-6)
        columns = numbers(1000, 37)
        near(await tc.sum(on(device, columns)[0], axis=0).read(), columns.sum(0, dtype=np.float64))
        near(await tc.var(on(device, columns)[0], axis=0).read(), columns.var(0, dtype=np.float64))
    finally:
        backend.adapter = chosen
