"""Manipulation and creation of arrays against NumPy, in every dtype."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import ReadRequired, ShapeMismatch, UnsupportedDtype
from tensorcommons.samples import DTYPES, drawn
from tensorcommons.tensor import realize
from tests.cases.support import on, refused

SHAPES = ((1,), (7,), (2, 3), (5, 1, 4), (0, 3))


def _none(x: Any) -> Any:
    return [(0, 0)] * (x.ndim - 1)


CASES: dict[str, Any] = {  # functions of the namespace and an array, for both libraries
    "flip": lambda xp, x: xp.flip(x),
    "flip an axis": lambda xp, x: xp.flip(x, axis=-1),
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=-1),
    "squeeze": lambda xp, x: xp.squeeze(xp.expand_dims(x, axis=1), axis=1),
    "moveaxis": lambda xp, x: xp.moveaxis(x, 0, -1),
    "stack": lambda xp, x: xp.stack([x, xp.flip(x), x], axis=-1),
    "concat flat": lambda xp, x: (xp.concat if xp is tc else np.concatenate)([x, xp.flip(x)], axis=None),
    "split": lambda xp, x: (xp.concat if xp is tc else np.concatenate)(xp.split(x, [1, 2], axis=-1)[::-1], axis=-1),
    "unstack": lambda xp, x: xp.stack(list(x)[::-1] or [x]),
    "tile": lambda xp, x: xp.tile(x, (2, 3)),
    "tile with fewer": lambda xp, x: xp.tile(x, (3,)),
    "repeat": lambda xp, x: xp.repeat(x, 3, axis=0),
    "repeat flat": lambda xp, x: xp.repeat(x, 2),
    "roll": lambda xp, x: xp.roll(x, -2, axis=-1),
    "roll flat": lambda xp, x: xp.roll(x, 3),
    "roll two axes": lambda xp, x: xp.roll(x, (1, 1), axis=(0, -1)),
    "pad edge": lambda xp, x: xp.pad(x, [(1, 2)] * x.ndim, mode="edge") if 0 not in x.shape else x,
    "pad reflect": lambda xp, x: (
        xp.pad(x, [(0, 0)] * (x.ndim - 1) + [(2, 1)], mode="reflect") if x.shape[-1] > 2 else x
    ),
    "broadcast_arrays": lambda xp, x: xp.stack(xp.broadcast_arrays(x, x[:1])),
    "tril": lambda xp, x: xp.tril(x, k=1) if x.ndim > 1 else x,
    "triu": lambda xp, x: xp.triu(x, k=-1) if x.ndim > 1 else x,
    "like": lambda xp, x: xp.stack([xp.zeros_like(x), xp.ones_like(x), xp.full_like(x, True), x]),
}


async def arrangements(device: Device) -> None:
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        tensors, wanted = [], []
        for name, function in CASES.items():
            for shape in SHAPES:
                a = drawn(rng, dtype, shape)
                tensors.append(function(tc, on(device, a)[0]))
                wanted.append((name, np.asarray(function(np, a))))
        await realize(tensors)
        for tensor, (name, array) in zip(tensors, wanted, strict=True):
            got = await tensor.read()
            assert (got.dtype, got.shape) == (array.dtype, array.shape), f"{name} {dtype}: {got.shape} {array.shape}"
            np.testing.assert_array_equal(got, array, err_msg=f"{name} {dtype}")


async def views_take_no_bytes(device: Device) -> None:
    (x,) = on(device, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    before = device.memory()["activations"]
    for view in (x.mT, tc.flip(x), tc.moveaxis(x, 0, 2), tc.expand_dims(x), *tc.unstack(x), *tc.split(x, 2, axis=2)):
        await view.read()
    assert device.memory()["activations"] == before


async def creation(device: Device) -> None:
    pairs: list[tuple[Any, Any]] = [
        (tc.arange(5, device=device), np.arange(5, dtype=np.int32)),
        (tc.arange(2, -9, -3, device=device), np.arange(2, -9, -3, dtype=np.int32)),
        (tc.arange(9, 2, -2, dtype="uint32", device=device), np.arange(9, 2, -2, dtype=np.uint32)),
        (tc.arange(0.5, 3, 0.25, device=device), np.arange(0.5, 3, 0.25, dtype=np.float32)),
        (tc.arange(3, 1, device=device), np.arange(0, dtype=np.int32)),
        (tc.linspace(-1, 1, 5, device=device), np.linspace(-1, 1, 5, dtype=np.float32)),
        (tc.linspace(2, 7, 1, device=device), np.array([2], np.float32)),
        (tc.linspace(0, 1, 4, endpoint=False, device=device), np.linspace(0, 1, 4, False, dtype=np.float32)),
        (tc.eye(4, 6, k=1, device=device), np.eye(4, 6, 1, np.float32)),
        (tc.eye(3, dtype="bool", device=device), np.eye(3, dtype=bool)),
        (tc.zeros((2, 3), device=device), np.zeros((2, 3), np.float32)),
        (tc.ones(4, dtype="float16", device=device), np.ones(4, np.float16)),
        (tc.full((2, 2), 7, device=device), np.full((2, 2), 7, np.int32)),
        (tc.full((), -2.5, device=device), np.float32(-2.5)),
        (tc.full((3,), True, device=device), np.ones(3, bool)),
        (tc.empty((0, 3), device=device), np.zeros((0, 3), np.float32)),
        *zip(
            tc.meshgrid(tc.arange(3, device=device), tc.arange(4, device=device)),
            np.meshgrid(*(np.arange(n, dtype=np.int32) for n in (3, 4))),
            strict=True,
        ),
    ]
    for made, wanted in pairs:
        got = await made.read()
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(got, wanted)
    (x,) = on(device, np.ones(3, np.float32))
    np.testing.assert_array_equal(await (x + tc.arange(3, dtype="float32")).read(), [1, 2, 3])
    joined = await tc.read_together([tc.zeros(3), x + 1])  # numbers take the dtype of the others
    np.testing.assert_array_equal(joined, [[0, 0, 0], [2, 2, 2]])


async def operators(device: Device) -> None:
    a, b = np.array([-7, 7, 5, 0], np.int32), np.array([2, -2, 0, 3], np.int32)
    x, y = on(device, a, b)
    with np.errstate(all="ignore"):
        pairs: list[tuple[Any, Any]] = [
            (x // y, a // b), (x % y, a % b), (x**2, a**2), (2**abs(x), 2 ** abs(a)), (9 // y, 9 // b), (9 % y, 9 % b),
            (x & y, a & b), (x | 6, a | 6), (6 ^ x, 6 ^ a), (~x, ~a), (abs(x) << 2, abs(a) << 2), (x >> 1, a >> 1),
            (1 << abs(y), 1 << abs(b)), (x == y, a == b), (x != 5, a != 5), (x < y, a < b), (x >= 0, a >= 0),
            (x > 1, a > 1), (y >= x, b >= a), (+x, a), (-x, -a), (x + b, a + b), (b - x, b - a), (a * y, a * b),
        ]  # fmt: skip
    for got, wanted in pairs:
        result = await got.read()
        assert result.dtype == wanted.dtype
        np.testing.assert_array_equal(result, wanted)
    doubled: tuple[Any, ...] = (np.int64(2) * x, x * np.int32(2), [2, 2, 2, 2] * x)  # a NumPy scalar counts as a number
    for got in doubled:
        np.testing.assert_array_equal(await got.read(), 2 * a)
    (f,) = on(device, np.array([1.5, -2, 0], np.float32))
    np.testing.assert_array_equal(await (np.float64(2) * f - np.int64(1)).read(), np.array([2, -5, -1], np.float32))
    np.testing.assert_array_equal(await (1 / f).read(), np.array([1 / 1.5, -0.5, np.inf], np.float32))
    np.testing.assert_array_equal(await (f**2).read(), np.array([2.25, 4, 0], np.float32))
    assert [float(await row.read()) for row in f] == [1.5, -2, 0]


async def what_numbers_do_not_fit(device: Device) -> None:
    whole, positive, truth, half = on(device, *(np.ones(3, d) for d in ("int32", "uint32", "bool", "float16")))
    for wrong in (
        lambda: whole + 0.5, lambda: positive - (-1), lambda: whole * 2**31, lambda: truth + 1, lambda: truth * 0.5,
        lambda: whole + half, lambda: truth & whole,
        lambda: tc.sin(whole), lambda: half & half, lambda: -truth, lambda: tc.where(whole, half, half),
        lambda: tc.logical_not(whole), lambda: tc.arange(3, dtype="bool"), lambda: tc.full(3, 0.5, dtype="int32"),
        lambda: tc.linspace(0, 1, 3, dtype="int32"),
    ):  # fmt: skip
        refused(device, UnsupportedDtype, wrong)
    for wrong in (
        lambda: tc.squeeze(whole, 0), lambda: tc.split(whole, 2), lambda: tc.stack([whole, whole[1:]]),
        lambda: tc.stack([]), lambda: tc.matrix_transpose(whole), lambda: tc.moveaxis(whole, 0, 1),
        lambda: tc.pad(whole, [(1, 1), (1, 1)]), lambda: tc.pad(whole, -1), lambda: tc.pad(whole, 3, mode="reflect"),
        lambda: tc.tile(whole, (-1,)), lambda: tc.repeat(whole, -1), lambda: tc.tril(whole), lambda: tc.arange(1, 2, 0),
    ):  # fmt: skip
        refused(device, ShapeMismatch, wrong)
    if device.kind == "cpu" or can_suspend():
        assert bool(whole[0]) and float(whole[0]) == int(whole[0]) == operator.index(whole[0]) == 1
    else:
        for function in (bool, float, int, complex, operator.index):
            refused(device, ReadRequired, functools.partial(function, whole[0]))
