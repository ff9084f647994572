"""Properties of resized images. tests/cases/torch_calls.py compares with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import near, numbers, on, refused


def _bilinear(x: Any, rows: int, columns: int, align: bool) -> Any:
    """Interpolate rows, then columns, by np.interp."""

    def places(size: int, out: int) -> Any:
        if align:
            return np.linspace(0, size - 1, out) if out > 1 else np.zeros(1)
        return np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)

    def along(values: Any, out: int) -> Any:
        at = places(values.shape[-1], out)
        flat = values.reshape(-1, values.shape[-1])
        lines = [np.interp(at, np.arange(values.shape[-1]), line) for line in flat]
        return np.array(lines).reshape(*values.shape[:-1], out)

    return np.swapaxes(along(np.swapaxes(along(x, columns), -1, -2), rows), -1, -2)


SIZES = ((1, 1), (5, 7), (10, 14), (3, 4), (11, 2), (9, 9))


async def bilinear(device: Device) -> None:
    x = numbers(2, 3, 5, 7)
    (a,) = on(device, x)
    for size in SIZES:
        for align in (False, True):
            got = await tc.interpolate(a, size, mode="bilinear", align_corners=align).read()
            near(got, _bilinear(x.astype(np.float64), *size, align))


async def nearest(device: Device) -> None:
    x = numbers(2, 1, 5, 7)
    (a,) = on(device, x)
    for rows, columns in SIZES:
        wanted = x[:, :, np.arange(rows) * 5 // rows][..., np.arange(columns) * 7 // columns]
        near(await tc.interpolate(a, (rows, columns)).read(), wanted, 0)
        exact = [(2 * np.arange(out) + 1) * size // (2 * out) for size, out in ((5, rows), (7, columns))]
        near(await tc.interpolate(a, (rows, columns), mode="nearest-exact").read(), x[:, :, exact[0]][..., exact[1]], 0)


async def a_constant_stays_constant(device: Device) -> None:
    (a,) = on(device, np.full((1, 2, 13, 8), 3.5, np.float32))
    for mode in ("nearest", "bilinear", "bicubic", "area"):
        for size in ((4, 3), (20, 31)):
            near(await tc.interpolate(a, size, mode=mode).read(), np.full((1, 2, *size), 3.5))
            if mode.startswith("bi"):
                near(await tc.interpolate(a, size, mode=mode, antialias=True).read(), np.full((1, 2, *size), 3.5))


async def factors_views_and_float16(device: Device) -> None:
    x = numbers(1, 6, 5, 2)
    (a,) = on(device, x)
    turned = x.transpose(0, 3, 1, 2)[:, :, ::-1]
    view = tc.permute_dims(a, (0, 3, 1, 2))[:, :, ::-1]
    got = await tc.interpolate(view, scale_factor=2, mode="bilinear").read()
    near(got, _bilinear(turned.astype(np.float64), 12, 10, False))
    half = await tc.interpolate(on(device, turned.astype(np.float16))[0], (9, 3), mode="bilinear").read()
    assert half.dtype == np.float16
    near(half, _bilinear(turned.astype(np.float16).astype(np.float64), 9, 3, False), 2e-3)
    line = numbers(2, 3, 8)
    wanted = _bilinear(line[:, :, None].astype(np.float64), 1, 5, False)[:, :, 0]
    near(await tc.interpolate(on(device, line)[0], 5, mode="linear").read(), wanted)
    assert tc.interpolate(a, scale_factor=(0.5, 1.5)).shape == (1, 6, 2, 3)
    same = await tc.interpolate(a, (5, 2), mode="bicubic").read()
    near(same, x, 0)


async def wrong_options_are_refused(device: Device) -> None:
    x, whole = on(device, numbers(1, 1, 4, 4), np.zeros((1, 1, 4, 4), np.int32))
    refused(device, TensorCommonsError, lambda: tc.interpolate(x))
    refused(device, TensorCommonsError, lambda: tc.interpolate(x, 2, scale_factor=2))
    refused(device, TensorCommonsError, lambda: tc.interpolate(x, 2, mode="lanczos"))
    refused(device, TensorCommonsError, lambda: tc.interpolate(x, 2, mode="nearest", align_corners=True))
    refused(device, ShapeMismatch, lambda: tc.interpolate(x, 2, mode="linear"))
    refused(device, ShapeMismatch, lambda: tc.interpolate(x, (2, 2, 2)))
    refused(device, ShapeMismatch, lambda: tc.interpolate(x, 0))
    refused(device, ShapeMismatch, lambda: tc.interpolate(x[0], (2, 2), mode="bilinear"))
    refused(device, UnsupportedDtype, lambda: tc.interpolate(whole, 2))
