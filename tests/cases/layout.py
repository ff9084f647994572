"""Views, copies that no view can express, and concatenation."""

from __future__ import annotations

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import agree, numbers, on, refused


async def views_of_bytes_that_are_there(device: Device) -> None:
    a = numbers(4, 6, 5)
    await agree(device, lambda x: x[1:3, ::-2, 4], lambda x: x[1:3, ::-2, 4], a)
    await agree(device, lambda x: tc.reshape(x[:, 1:2], (4, -1)), lambda x: x[:, 1:2].reshape(4, -1), a)
    await agree(device, lambda x: tc.permute_dims(x, (2, 0, 1))[::-1], lambda x: x.transpose(2, 0, 1)[::-1], a)
    await agree(device, lambda x: tc.broadcast_to(x[0], (3, 6, 5)), lambda x: np.broadcast_to(x[0], (3, 6, 5)), a)
    await agree(device, lambda x: x[3, 5, 4], lambda x: x[3, 5, 4], a)
    await agree(device, lambda x: x[:, 9:], lambda x: x[:, 9:], a)


async def a_view_takes_no_bytes(device: Device) -> None:
    (x,) = on(device, numbers(40, 60))
    before = device.memory()["activations"]
    view = tc.permute_dims(x, (1, 0))[::2]
    assert (await view.read()).shape == (30, 40)
    assert device.memory()["activations"] == before


async def reshape_that_needs_a_copy(device: Device) -> None:
    a = numbers(4, 6, 5)
    flat = lambda x: tc.reshape(tc.permute_dims(x, (2, 1, 0)), (-1,))  # noqa: E731
    await agree(device, flat, lambda x: x.transpose(2, 1, 0).reshape(-1), a)
    await agree(device, lambda x: flat(x)[7:80:3] + 1, lambda x: x.transpose(2, 1, 0).reshape(-1)[7:80:3] + 1, a)
    await agree(device, lambda x: flat(x + 1) * flat(x), lambda x: ((x + 1) * x).transpose(2, 1, 0).reshape(-1), a)
    await agree(device, lambda x: tc.reshape(x[:, ::-1], (4, 30)), lambda x: x[:, ::-1].reshape(4, 30), a)
    await agree(
        device,
        lambda x: tc.reshape(tc.broadcast_to(x[:1, :, :1], (3, 6, 5)), (9, 10)),
        lambda x: np.broadcast_to(x[:1, :, :1], (3, 6, 5)).reshape(9, 10),
        a,
    )


async def reshape_of_whole_numbers(device: Device) -> None:
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    (x,) = on(device, a)
    result = await tc.reshape(tc.permute_dims(x, (1, 0)), (6, 2)).read()
    assert result.dtype == np.int32 and np.array_equal(result, a.T.reshape(6, 2))


async def concat_along_each_axis(device: Device) -> None:
    for axis in (0, 1, 2, -1):
        parts = []
        for size in (1, 3, 0, 7):
            shape = [2, 5, 3]
            shape[axis] = size
            parts.append(numbers(*shape, seed=size))
        await agree(device, lambda *xs, axis=axis: tc.concat(xs, axis), lambda *xs, axis=axis: np.concatenate(xs, axis), *parts)  # fmt: skip # noqa: E501


async def concat_of_views_and_of_one_tensor_twice(device: Device) -> None:
    a = numbers(4, 6)
    await agree(device, lambda x: tc.concat([x, x[::-1], x], 0), lambda x: np.concatenate([x, x[::-1], x]), a)
    await agree(
        device,
        lambda x: tc.concat([y := x * 2, tc.broadcast_to(y[:, :1], (4, 3))], 1) + 1,
        lambda x: np.concatenate([x * 2, np.broadcast_to(x[:, :1] * 2, (4, 3))], 1) + 1,
        a,
    )
    whole = [np.arange(3, dtype=np.int32), np.arange(5, dtype=np.int32)]
    assert (await tc.concat(on(device, *whole)).read()).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


async def wrong_shapes_are_refused(device: Device) -> None:
    a, b, whole = on(device, numbers(4, 6), numbers(5, 6), np.zeros((4, 6), np.int32))
    refused(device, ShapeMismatch, lambda: tc.reshape(a, (5, 5)))
    refused(device, ShapeMismatch, lambda: tc.reshape(a, (-1, -1)))
    refused(device, ShapeMismatch, lambda: tc.reshape(a, (-1, 7)))
    refused(device, ShapeMismatch, lambda: tc.permute_dims(a, (0, 0)))
    refused(device, ShapeMismatch, lambda: tc.permute_dims(a, (0, 2)))
    refused(device, ShapeMismatch, lambda: tc.permute_dims(a, (0,)))
    refused(device, ShapeMismatch, lambda: tc.broadcast_to(a, (4, 5)))
    refused(device, ShapeMismatch, lambda: tc.broadcast_to(a, (6,)))
    refused(device, ShapeMismatch, lambda: tc.broadcast_to(a[:1, :1], (-1, 2)))
    refused(device, ShapeMismatch, lambda: tc.zeros((2, -1), device=device))
    refused(device, TensorCommonsError, lambda: tc.pad(a, 1, mode="wrap"))
    refused(device, TensorCommonsError, lambda: tc.meshgrid(a[0], a[1], indexing="yx"))
    refused(device, TensorCommonsError, lambda: tc.gelu(a, approximate="fast"))
    refused(device, ShapeMismatch, lambda: tc.concat([a, b], 1))
    refused(device, ShapeMismatch, lambda: tc.concat([a, b], 2))
    refused(device, ShapeMismatch, lambda: tc.concat([a, b[0]]))
    refused(device, UnsupportedDtype, lambda: tc.concat([a, whole]))
    refused(device, ShapeMismatch, lambda: tc.concat([]))


async def wrong_indices_are_refused(device: Device) -> None:
    (x,) = on(device, numbers(4, 6))
    for key in (4, -5, (0, 6), (0, 0, 0), (..., ...), "a", 1.5, (True, 0)):
        try:
            x[key]
        except IndexError:
            continue
        raise AssertionError(f"x[{key!r}] was accepted")
