"""Elementwise ops and casts against NumPy, with every kind of operand."""

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


UNARY: dict[str, Callable[..., Any]] = {
    "negative": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
}
BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
SHAPES = [(), (1,), (0,), (3, 0, 2), (7,), (13, 17), (1, 1, 1), (5, 3, 1, 11)]
PAIRS = [
    ((), (3, 5)),
    ((5,), (3, 5)),
    ((3, 1), (3, 5)),
    ((3, 1), (1, 5)),
    ((2, 1, 7), (3, 1)),
    ((1,), (0,)),
    ((4, 0), (1, 1)),
    ((2, 3, 1, 5, 1), (3, 7, 1, 2)),
    ((1, 1), ()),
]


async def unary_ops(device: Device) -> None:
    for name, reference in UNARY.items():
        x = numbers(13, 17, low=0.01 if name in ("log", "sqrt") else -0.99 if name == "log1p" else -9, high=9)
        await agree(device, getattr(tc, name), reference, x)


async def unary_shapes(device: Device) -> None:
    for shape in SHAPES:
        await agree(device, lambda x: tc.abs(x * 3.0), lambda x: abs(x * 3), numbers(*shape))


async def binary_ops(device: Device) -> None:
    a, b = numbers(13, 17), numbers(13, 17, seed=1)
    for name, reference in BINARY.items():
        await agree(device, getattr(tc, name), reference, a, b)


async def binary_broadcasts(device: Device) -> None:
    for first, second in PAIRS:
        a, b = numbers(*first), numbers(*second, seed=1)
        await agree(device, tc.subtract, np.subtract, a, b)
        await agree(device, tc.subtract, np.subtract, b, a)


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


async def nan_and_infinities(device: Device) -> None:
    x = np.array([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 3e38, 2e-38], np.float32)
    for name, reference in UNARY.items():
        await agree(device, getattr(tc, name), reference if name != "gelu" else _gelu_limits, x)
    a, b = np.repeat(x, len(x)), np.tile(x, len(x))
    for name, reference in BINARY.items():
        with np.errstate(all="ignore"):
            wanted = reference(a, b)
        near(await getattr(tc, name)(*on(device, a, b)).read(), wanted)


def _gelu_limits(x: Any) -> Any:
    return np.where(x == -INF, NAN, _gelu(x))  # -inf * 0, as PyTorch's


async def extreme_values(device: Device) -> None:
    x = np.array([-1e30, -200, -104, -88, -20, -1e-7, 1e-7, 20, 88, 89, 200, 1e30], np.float32)
    for name in ("exp", "tanh", "sigmoid", "gelu", "relu"):
        result = await getattr(tc, name)(*on(device, x)).read()
        with np.errstate(all="ignore"):
            wanted = UNARY[name](np.float64(x)).astype(np.float32)
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)  # each by itself: a norm hides the small ones
    small = np.array([1e-7, -1e-7, 1e-5, 3e-4, -0.5], np.float32)
    for name in ("log1p", "gelu"):
        result = await getattr(tc, name)(*on(device, small)).read()
        for got, value in zip(result, UNARY[name](np.float64(small)), strict=True):
            near(got, value, 1e-6)


async def more_than_65535_workgroups(device: Device) -> None:
    a = numbers(1_100_003)
    await agree(device, lambda x: x[::-1] * 2, lambda x: x[::-1] * 2, a)


async def casts(device: Device) -> None:
    x = np.array([-2.7, -0.5, 0.0, 0.5, 2.7, 1e9], np.float32)
    whole = await tc.astype(tc.asarray(x, device=device), "int32").read()
    assert whole.dtype == np.int32 and whole.tolist() == [-2, 0, 0, 0, 2, 1_000_000_000]
    back = await tc.astype(tc.astype(tc.asarray(x, device=device), tc.dtypes.int32), "float32").read()
    assert back.dtype == np.float32 and back.tolist() == [-2, 0, 0, 0, 2, 1e9]
    near(
        await (tc.astype(tc.asarray(np.arange(7, dtype=np.int32), device=device), "float32") * 0.5).read(),
        np.arange(7) / 2,
    )


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
