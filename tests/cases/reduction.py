"""Sums, means and extremes over every choice of axes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.support import INF, NAN, agree, near, numbers, on, refused

REDUCTIONS: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}


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
        near(await getattr(tc, name)(*on(device, a), axis=1).read(), wanted)


async def wrong_axes_and_dtypes_are_refused(device: Device) -> None:
    a, whole = on(device, numbers(2, 3), np.arange(3, dtype=np.int32))
    refused(device, ShapeMismatch, lambda: tc.sum(a, axis=2))
    refused(device, ShapeMismatch, lambda: tc.max(a, axis=(0, -2)))
    refused(device, UnsupportedDtype, lambda: tc.sum(whole))
