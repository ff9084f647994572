"""Windows of an image: clipped, padded, dilated, and of uneven sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.support import INF, NAN, near, numbers, on, refused


def _pool(x: Any, kind: str, k: Any, s: Any, p: Any, d: Any, ceil: bool, include: bool = True) -> Any:
    """Pool an image padded with NaN, which is ignored."""
    size = []
    for axis in range(2):
        room = x.shape[2 + axis] + 2 * p[axis] - d[axis] * (k[axis] - 1) - 1
        out = (math.ceil(room / s[axis]) if ceil else room // s[axis]) + 1
        size.append(out - 1 if ceil and (out - 1) * s[axis] >= x.shape[2 + axis] + p[axis] else out)
    far = [k[a] * d[a] + s[a] for a in range(2)]
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (p[0], far[0]), (p[1], far[1])), constant_values=NAN)
    end = [x.shape[2 + a] + 2 * p[a] for a in range(2)]
    y = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(*size):
        top, left = i * s[0], j * s[1]
        window = wide[:, :, top : top + d[0] * (k[0] - 1) + 1 : d[0], left : left + d[1] * (k[1] - 1) + 1 : d[1]]
        if kind == "max":
            y[:, :, i, j] = np.nanmax(window, axis=(2, 3))
        else:
            area = (min(top + k[0], end[0]) - top) * (min(left + k[1], end[1]) - left)
            y[:, :, i, j] = np.nansum(window, axis=(2, 3)) / (area if include else np.isfinite(window[0, 0]).sum())
    return y


async def every_choice_of_options(device: Device) -> None:
    x = numbers(2, 3, 9, 8)
    (a,) = on(device, x)
    for k, s, p, ceil in itertools.product(((2, 2), (3, 2)), ((1, 1), (3, 2)), ((0, 0), (1, 1)), (False, True)):
        for d in ((1, 1), (2, 1)):
            got = await tc.max_pool2d(a, k, s, p, d, ceil).read()
            near(got, _pool(x, "max", k, s, p, d, ceil), 0)
        for include in (False, True):
            got = await tc.avg_pool2d(a, k, s, p, ceil, include).read()
            near(got, _pool(x, "avg", k, s, p, (1, 1), ceil, include))
    near(
        await tc.avg_pool2d(a, 2, divisor_override=3).read(),
        _pool(x, "avg", (2, 2), (2, 2), (0, 0), (1, 1), False) * 4 / 3,
    )


async def views_and_images_without_a_batch(device: Device) -> None:
    x = numbers(9, 8, 3)
    (a,) = on(device, x)
    turned = x.transpose(2, 0, 1)[None, :, ::-1, 1:]
    view = tc.permute_dims(a, (2, 0, 1))[:, ::-1, 1:]
    near(await tc.max_pool2d(view, 2).read(), _pool(turned, "max", (2, 2), (2, 2), (0, 0), (1, 1), False)[0], 0)
    wanted = _pool(turned + 1, "avg", (3, 3), (1, 1), (1, 1), (1, 1), False)[0]
    near(await tc.avg_pool2d(view + 1, 3, 1, 1).read(), wanted)


async def adaptive(device: Device) -> None:
    x = numbers(2, 3, 7, 10)
    (a,) = on(device, x)
    for rows, columns in ((1, 1), (3, 4), (7, 10), (5, 3), (9, 12)):
        mean, largest = np.zeros((2, 3, rows, columns)), np.zeros((2, 3, rows, columns))
        for i, j in np.ndindex(rows, columns):
            top, bottom = i * 7 // rows, math.ceil((i + 1) * 7 / rows)
            left, right = j * 10 // columns, math.ceil((j + 1) * 10 / columns)
            window = x[:, :, top:bottom, left:right].astype(np.float64)
            mean[:, :, i, j], largest[:, :, i, j] = window.mean((2, 3)), window.max((2, 3))
        near(await tc.adaptive_avg_pool2d(a, (rows, columns)).read(), mean)
        near(await tc.adaptive_max_pool2d(a, (rows, columns)).read(), largest, 0)
    assert tc.adaptive_avg_pool2d(a, (None, 2)).shape == (2, 3, 7, 2)
    assert tc.adaptive_avg_pool2d(a[0], 1).shape == (3, 1, 1)


async def float16_nan_and_infinities(device: Device) -> None:
    x = numbers(1, 1, 5, 7).astype(np.float16)
    (a,) = on(device, x)
    for got, kind in ((tc.max_pool2d(a, 2, 1), "max"), (tc.avg_pool2d(a, 2, 1), "avg")):
        values = await got.read()
        assert values.dtype == np.float16
        near(values, _pool(x, kind, (2, 2), (1, 1), (0, 0), (1, 1), False), 1e-3)
    odd = np.array([[[[NAN, 1, INF, 2], [0, 1, -INF, 3], [-INF, -INF, 5, 6], [-INF, -INF, 7, 8]]]], np.float32)
    (b,) = on(device, odd)
    near(await tc.max_pool2d(b, 2).read(), np.array([[[[NAN, INF], [-INF, 8]]]]))
    near(await tc.avg_pool2d(b, 2).read(), np.array([[[[NAN, NAN], [-INF, 6.5]]]]))


async def wrong_operands_are_refused(device: Device) -> None:
    x, whole = on(device, numbers(1, 1, 4, 4), np.zeros((1, 1, 4, 4), np.int32))
    refused(device, ShapeMismatch, lambda: tc.max_pool2d(x, 5))
    refused(device, ShapeMismatch, lambda: tc.max_pool2d(x, 2, padding=2))
    refused(device, ShapeMismatch, lambda: tc.avg_pool2d(x[0, 0], 2))
    refused(device, ShapeMismatch, lambda: tc.avg_pool2d(x, (2, 2, 2)))
    refused(device, ShapeMismatch, lambda: tc.adaptive_avg_pool2d(x, 0))
    refused(device, UnsupportedDtype, lambda: tc.max_pool2d(whole, 2))
