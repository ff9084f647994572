"""Elementwise ops with operands of every kind and extremes; conformance.py covers each op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype, UnsupportedOp
from tests.cases import only
from tests.cases.support import INF, NAN, agree, near, numbers, on, raises, refused

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + _erf(x / np.sqrt(2)))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


REFERENCES: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
}


async def operators_and_python_numbers(device: Device) -> None:
    a, b = numbers(2, 3), numbers(3, seed=1)
    await agree(device, lambda x, y: -x + y * 2 - 1 / (abs(y) + 1), lambda x, y: -x + y * 2 - 1 / (abs(y) + 1), a, b)
    (x,) = on(device, a)
    near(await (b + x).read(), b + a)
    near(await (x / 2).read(), a / 2)
    near(await (True - x).read(), 1 - a)


async def operands_through_any_layout(device: Device) -> None:
    a, b = numbers(6, 10), numbers(10, 6, seed=1)
    views = [
        lambda x: x[1:, 2:],
        lambda x: x[::2, ::3],
        lambda x: x[::-1, ::-2],
        lambda x: x[4:1:-1],
        lambda x: x[2:2],
        lambda x: x[3],
        lambda x: x[..., -1],
        lambda x: x[None, :, None],
    ]
    for view in views:
        await agree(device, lambda x, view=view: view(x) + 1, lambda x, view=view: view(x) + 1, a)
    await agree(device, lambda x, y: x + tc.permute_dims(y, (1, 0)), lambda x, y: x + y.T, a, b)
    await agree(device, lambda x, y: (x * 2)[::-1] + tc.permute_dims(y * 2, (1, 0)), lambda x, y: (2 * x)[::-1] + 2 * y.T, a, b)  # fmt: skip # noqa: E501
    wide = np.broadcast_to(numbers(6, 1), (4, 6, 10))
    await agree(device, lambda x: tc.broadcast_to(x, (4, 6, 10)) - x, lambda x: wide - x, numbers(6, 1))


async def neighbours_that_are_vectors_or_not(device: Device) -> None:
    """Rows of four and of others, and operands that begin at a multiple of four or not, or are one row or column."""
    for columns in (4, 8, 6, 12):
        for dtype in (np.float32, np.float16, np.int32):
            a: Any = np.round(numbers(5, 5, columns + 4) * 8).astype(dtype)
            (x,) = on(device, a)
            for first in (0, 4, 1):
                part, own = x[..., first : first + columns], a[..., first : first + columns]
                pairs = (
                    (part[1], own[1]),  # a slice
                    (x[0, 0, :columns], a[0, 0, :columns]),  # one row
                    (x[:, :, first : first + 1], a[:, :, first : first + 1]),  # one column
                    (tc.permute_dims(part, (1, 0, 2))[:1], own.transpose(1, 0, 2)[:1]),
                    (x[0, 0, first], a[0, 0, first]),  # one number
                )
                for other, array in pairs:
                    np.testing.assert_array_equal(await (part + other).read(), own + array)
                both = await tc.concat([part, part[:, :, ::-1], part], axis=-1).read()
                np.testing.assert_array_equal(both, np.concatenate([own, own[:, :, ::-1], own], -1))
                flags = await (tc.permute_dims(part, (1, 0, 2)) > 0).read()
                np.testing.assert_array_equal(flags, own.transpose(1, 0, 2) > 0)


async def arrays_that_are_not_contiguous(device: Device) -> None:
    a = numbers(8, 6)
    for array in (a.T, a[::2, ::-3], np.broadcast_to(a[0], (3, 6)), a.astype(">f4"), a.astype(np.float64)):
        await agree(device, tc.negative, np.negative, array)


async def one_tensor_twice(device: Device) -> None:
    a = numbers(5, 7)
    await agree(device, lambda x: x + x, lambda x: x + x, a)
    await agree(device, lambda x: x * x[::-1], lambda x: x * x[::-1], a)
    await agree(device, lambda x: (x + 1) * (x + 1), lambda x: (x + 1) ** 2, a)
    await agree(device, lambda x: tc.add(y := x * 3, y), lambda x: 6 * x, a)


async def more_axes_than_a_shader_has(device: Device) -> None:
    a = numbers(*[2] * 10)
    await agree(device, lambda x: x + 1, lambda x: x + 1, a)
    order = (9, 8, 1, 0, 2, 3, 4, 5, 7, 6)
    await agree(device, lambda x: x + tc.permute_dims(x, order), lambda x: x + x.transpose(order), a)


async def extreme_values(device: Device) -> None:
    x = np.array([-1e30, -200, -104, -88, -20, -1e-7, 1e-7, 20, 88, 89, 200, 1e30], np.float32)
    for name in ("exp", "tanh", "sigmoid", "gelu", "relu"):
        result = await getattr(tc, name)(*on(device, x)).read()
        with np.errstate(all="ignore"):
            wanted = REFERENCES[name](np.float64(x)).astype(np.float32)
        np.testing.assert_allclose(
            result, wanted, rtol=1e-5, atol=1e-6
        )  # compared elementwise: a norm hides the small ones
    small = np.array([1e-7, -1e-7, 1e-5, 3e-4, -0.5], np.float32)
    for name in ("log1p", "gelu"):
        result = await getattr(tc, name)(*on(device, small)).read()
        for got, value in zip(result, REFERENCES[name](np.float64(small)), strict=True):
            near(got, value, 1e-6)


async def functions_that_are_made_of_others(device: Device) -> None:
    a = np.array([0.0, -0.0, 1, -2, 3e38, -3e38, 1e-30, INF, -INF, NAN, 5, -5], np.float32)
    x, y = on(device, a[:, None], a)
    sign = np.signbit(np.where(np.isnan(a), 0, a))
    np.testing.assert_array_equal(await tc.signbit(y).read(), sign)
    with np.errstate(all="ignore"):
        wide, other = a.astype(np.float64)[:, None], a.astype(np.float64)
        near(await tc.copysign(x, y).read(), np.where(sign, -np.abs(wide), np.abs(wide)))
        near(await tc.hypot(x, y).read(), np.hypot(wide, other).astype(np.float32))
        near(await tc.logaddexp(x, y).read(), np.logaddexp(wide, other))
    await agree(device, lambda x: tc.hypot(x, 3), lambda x: np.hypot(x, 3), numbers(5))
    await agree(device, lambda x: tc.logaddexp(0.5, x), lambda x: np.logaddexp(0.5, x), numbers(2, 3))


async def wrong_operands_are_refused(device: Device) -> None:
    a, b, whole = on(device, numbers(2, 3), numbers(4), np.arange(3, dtype=np.int32))
    refused(device, ShapeMismatch, lambda: a + b)
    refused(device, UnsupportedDtype, lambda: a + whole)
    refused(device, UnsupportedDtype, lambda: tc.exp(whole))
    refused(device, UnsupportedDtype, lambda: tc.astype(a, "complex64"))
    refused(device, UnsupportedDtype, lambda: tc.asarray(np.array(["text"]), device=device))


@only("webgpu")
async def a_cast_without_a_wgsl_type_is_refused(device: Device) -> None:
    x = tc.astype(tc.asarray(numbers(3), device=device), "int8")
    before = device.total
    await raises(UnsupportedOp, x.read(), "int8")
    assert device.total == before
