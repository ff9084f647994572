"""Attributes at the extremes of numbers, and windows as wide as the image, for every op that takes one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import MemoryBudgetError, ShapeMismatch, TensorCommonsError
from tests.cases.support import INF, NAN, near, numbers, on, refused

F = tc.nn.functional
VALUES = (INF, -INF, NAN, 1e300, -1e300, 3.4e38)  # infinite in float32 if it is out of range
ROW = np.array([[1.5, -2.0, 0.25, -0.5], [-1.0, 3.0, 1e-3, -7.0]], np.float32)


def _norm(x: Any, v: Any, centre: bool) -> Any:
    y = x - x.mean(-1, keepdims=True) if centre else x
    return y / np.sqrt((y * y).mean(-1, keepdims=True) + v)


#: Each op with a number ``v``, and its equivalent in NumPy, where ``v`` is a float32.
TABLE: dict[str, tuple[Callable[[Any, float], Any], Callable[[Any, Any], Any]]] = {
    "full": (lambda x, v: x + tc.full_like(x, v), lambda x, v: x + v),
    "add": (lambda x, v: x + v, lambda x, v: x + v),
    "multiply": (lambda x, v: x * v, lambda x, v: x * v),
    "divide": (lambda x, v: v / x, lambda x, v: v / x),
    "where": (lambda x, v: tc.where(x > 0, x, v), lambda x, v: np.where(x > 0, x, v)),
    "clip": (lambda x, v: tc.clip(x, v, None), np.maximum),
    "pad": (lambda x, v: F.pad(x, (1, 2), value=v), lambda x, v: np.pad(x, ((0, 0), (1, 2)), constant_values=v)),
    "pad_ends": (
        lambda x, v: tc.pad(x, ((1, 0), (0, 1)), constant_values=v),
        lambda x, v: np.pad(x, ((1, 0), (0, 1)), constant_values=v),
    ),
    "leaky_relu": (lambda x, v: tc.leaky_relu(x, v), lambda x, v: np.where(x >= 0, x, v * x)),
    "elu": (lambda x, v: tc.elu(x, v), lambda x, v: np.where(x > 0, x, v * np.expm1(x))),
    "layer_norm": (lambda x, v: F.layer_norm(x, (4,), eps=v), lambda x, v: _norm(x, v, True)),
    "rms_norm": (lambda x, v: F.rms_norm(x, (4,), eps=v), lambda x, v: _norm(x, v, False)),
}


async def numbers_that_json_does_not_have(device: Device) -> None:
    (x,) = on(device, ROW)
    found = [(name, v, ours(x, v), numpys) for name, (ours, numpys) in TABLE.items() for v in VALUES]
    for (name, v, _, numpys), got in zip(found, await tc.read_together([each[2] for each in found]), strict=True):
        with np.errstate(all="ignore"):
            wanted = numpys(ROW, np.asarray(v).astype(np.float32))
        try:
            near(got, wanted)
        except AssertionError as error:
            error.add_note(f"{name} with {v}")
            raise


async def norms_of_every_order(device: Device) -> None:
    (x,) = on(device, ROW)
    for p, wanted in ((0, 4.0), (INF, np.abs(ROW).max(1)), (-INF, np.abs(ROW).min(1))):
        near(await F.normalize(x, p=p).read(), ROW / np.reshape(wanted, (-1, 1)))


async def windows_as_wide_as_the_image(device: Device) -> None:
    size = 3000
    a = numbers(1, 2, 1, size).astype(np.float64)
    (x,) = on(device, a.astype(np.float32))
    for kernel, stride, padding in ((9, 1, 4), (1000, 1, 0), (2999, 1, 700), (3000, 7, 1500), (16, 16, 0)):
        wide = np.pad(a, ((0, 0),) * 3 + ((padding, padding),), constant_values=NAN)
        windows = np.lib.stride_tricks.sliding_window_view(wide, kernel, -1)[..., ::stride, :]
        whole: dict[str, Any] = {"stride": (1, stride), "padding": (0, padding)}
        near(await F.max_pool2d(x, (1, kernel), **whole).read(), np.nanmax(windows, -1))
        near(await F.avg_pool2d(x, (1, kernel), **whole).read(), np.nansum(windows, -1) / kernel)
        got = await F.avg_pool2d(x, (1, kernel), **whole, count_include_pad=False).read()
        near(got, np.nanmean(windows, -1))
    spread = await F.max_pool2d(x, (1, 1000), stride=1, dilation=(1, 2)).read()
    near(spread, np.stack([a[..., i : i + 1999 : 2].max(-1) for i in range(size - 1998)], -1))
    for out in (1, 7, 1000, 1999, 3000, 3500):
        parts = [a[..., i * size // out : -(-(i + 1) * size // out)] for i in range(out)]
        near(await F.adaptive_avg_pool2d(x, (1, out)).read(), np.stack([part.mean(-1) for part in parts], -1))
        near(await F.adaptive_max_pool2d(x, (1, out)).read(), np.stack([part.max(-1) for part in parts], -1))


async def filters_as_wide_as_the_image(device: Device) -> None:
    size = 3000
    a = numbers(1, 2, 1, size)
    (x,) = on(device, a)
    for out in (1, 3, 1500, 2600):  # by a matrix and by neighbours
        scale = size / out
        centres = (np.arange(out) + 0.5) * scale - 0.5
        weights = np.maximum(1 - np.abs(np.arange(size) - centres[:, None]) / max(scale, 1), 0)
        weights /= weights.sum(1, keepdims=True)
        got = await F.interpolate(x, size=(1, out), mode="bilinear", antialias=True).read()
        near(got, a.astype(np.float64) @ weights.T)


async def attributes_take_no_memory(device: Device) -> None:
    """Padding and windows far beyond the image: the computation stays small for numbers of any size."""
    a = numbers(1, 3, 4, 4)
    x, few, many = on(device, a, numbers(2, 3, 1, 1), numbers(32, 3, 1, 1))
    far = 2**20
    whole = np.broadcast_to(a.sum((2, 3), keepdims=True, dtype=np.float64) / 16, (1, 3, 5, 5))
    near(await F.avg_pool2d(x, far, stride=1, padding=far // 2, divisor_override=16).read(), whole)
    near(await F.max_pool2d(x, far, stride=far, padding=far // 2).read(), a.max((2, 3), keepdims=True))
    for weight in (few, many):  # directly, and as patches
        y = await tc.conv2d(x, weight, stride=far, padding=far).read()
        wanted = np.zeros((1, weight.shape[0], 3, 3))
        wanted[:, :, 1, 1] = a[:, :, 0, 0].astype(np.float64) @ (await weight.read())[:, :, 0, 0].T
        near(y, wanted)


async def what_no_device_holds_is_refused_at_the_call(device: Device) -> None:
    x, image, ids, weight = on(device, ROW, numbers(1, 1, 2, 4), np.zeros(3, np.int32), numbers(1, 1, 1, 1))
    for call in (
        lambda: tc.tile(x, (2**40, 1)),
        lambda: tc.repeat(x, 2**40, 0),
        lambda: tc.pad(x, 2**40),
        lambda: tc.arange(2**40, dtype="float32", device=device),
        lambda: tc.arange(0, 5, 1e-300, device=device),
        lambda: tc.linspace(0, 1, 2**40, device=device),
        lambda: F.one_hot(ids, 2**31 - 1),
        lambda: F.interpolate(image, scale_factor=1e12),
        lambda: F.interpolate(image, scale_factor=1e300, mode="bilinear"),
        lambda: F.interpolate(image, size=2**40, mode="area"),
        lambda: F.adaptive_max_pool2d(image, 2**30),
        lambda: tc.conv2d(image, weight, padding=2**30),
        lambda: tc.conv_transpose2d(image, weight, stride=2**30),
    ):
        refused(device, MemoryBudgetError, call)
    for call in (lambda: tc.arange(NAN, device=device), lambda: tc.arange(INF, device=device)):
        refused(device, ShapeMismatch, call)
    for scale in (INF, NAN, -1.0, 0.0):
        refused(device, TensorCommonsError if scale != scale or scale == INF else ShapeMismatch,
                partial(F.interpolate, image, scale_factor=scale))  # fmt: skip
    refused(device, ShapeMismatch, lambda: F.max_pool2d(image, 1, stride=2**40))
