"""Tensors apart from their numbers: unchanged dtypes, several results at once, and release."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends import current
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import (
    DeviceMismatch,
    DeviceUnavailable,
    ShapeMismatch,
    TensorReleased,
    UnsupportedDtype,
)
from tensorcommons.samples import SAMPLES
from tensorcommons.tensor import realize
from tests.cases import only, slow
from tests.cases.harness import held, real_bytes
from tests.cases.support import near, numbers, on, raises, refused

DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint32", "uint8", "bool")


async def every_dtype_travels_unchanged(device: Device) -> None:
    for name in DTYPES:
        for size in (0, 1, 5, 1027):
            array = (np.arange(size) % 251).astype(name)
            (x,) = on(device, array)
            assert (x.dtype.name, x.shape, x.size, x.nbytes) == (name, (size,), size, array.nbytes)
            back = await x.read()
            assert back.dtype == array.dtype and np.array_equal(back, array)
            assert np.array_equal(await x[3:1:-1].read(), array[3:1:-1])


async def lists_and_numbers(device: Device) -> None:
    assert (await tc.asarray([[1.5, 2], [3, 4]], device=device).read()).tolist() == [[1.5, 2], [3, 4]]
    assert (await tc.asarray(7.0, device=device).read()).shape == ()
    assert (await tc.asarray([1, 2], dtype="float32", device=device).read()).dtype == np.float32
    for numbers_given, dtype in (
        ([[1, 2]], "int32"),
        (7, "int32"),
        ([], "float32"),
        ([True], "bool"),
        ([1, 0.5], "float32"),
    ):
        assert tc.asarray(numbers_given, device=device).dtype.name == dtype
    assert tc.asarray([2**40], dtype="int64", device=device).dtype.name == "int64"
    refused(device, UnsupportedDtype, lambda: tc.asarray([2**40], device=device))


async def what_is_read_is_the_readers_own(device: Device) -> None:
    (x,) = on(device, numbers(3))
    first = await x.read()
    first[:] = 0
    assert (await x.read()).any()


async def changing_the_array_afterwards_changes_nothing(device: Device) -> None:
    array = numbers(5)
    (x,) = on(device, array)
    wanted = array.copy()
    array[:] = 0
    near(await (x + 0).read(), wanted)


async def several_results_at_once(device: Device) -> None:
    a = numbers(4, 6)
    (x,) = on(device, a)
    y = x * 2
    results = [y, y[1:], tc.permute_dims(y, (1, 0)), tc.reshape(y, (24,)), y, x, x[::-1], tc.sum(y), tc.exp(y)]
    wanted = [2 * a, 2 * a[1:], 2 * a.T, 2 * a.reshape(24), 2 * a, a, a[::-1], (2 * a).sum(), np.exp(2 * a)]
    await realize(results)
    for result, value in zip(results, wanted, strict=True):
        near(await result.read(), value)


async def a_result_is_computed_once(device: Device) -> None:
    (x,) = on(device, numbers(2000))
    y = await (x + 1).realize()
    calls, programs = device.backend.calls, len(device.programs)
    assert "not computed" not in repr(y)
    await y.realize()
    assert (device.backend.calls, len(device.programs)) == (calls, programs)
    near(await (y * 2).read(), 2 * (numbers(2000) + 1))


async def released_twice_and_used_after(device: Device) -> None:
    for size in (5, 5000):
        (x,) = on(device, numbers(size))
        view, later = x[1:], x + 1
        x.release()
        x.release()
        view.release()
        for lost in (x, view, later, x + 1, tc.sum(view)):
            await raises(TensorReleased, lost.read())


async def equal_numbers_do_not_share_a_release(device: Device) -> None:
    """Small arrays are identified by content; releasing one must not release another."""
    a, b = on(device, numbers(5), numbers(5))
    near(await (a + 1).read(), numbers(5) + 1)
    a.release()
    near(await (b + 1).read(), numbers(5) + 1)
    (c,) = on(device, numbers(5))
    near(await (c + 1).read(), numbers(5) + 1)


async def dropped_tensors_free_their_bytes(device: Device) -> None:
    before = held(device)
    for size in (3, 3000):
        (x,) = on(device, numbers(size))
        y = (x + 1) * x
        await y.read()
        assert device.total >= before["bytes"] + 8 * size
        del x, y
        gc.collect()
        assert held(device) == before, f"{size} numbers: {held(device)}, before: {before}"


async def a_view_keeps_its_bytes_alive(device: Device) -> None:
    (x,) = on(device, numbers(3000))
    view = x[10:20]
    del x
    gc.collect()
    near(await view.read(), numbers(3000)[10:20])


@slow
async def the_same_op_many_times_stays_flat(device: Device) -> None:
    (x,) = on(device, numbers(2000))
    counts = []
    for _ in range(20):
        x = await (x * 0.5 + 1).realize()
        gc.collect()
        counts.append(held(device))
    counts = counts[2:]  # from the second run on, an unused output stays in the pool
    assert all(count == counts[0] for count in counts), counts


async def tensors_say_what_they_cannot(device: Device) -> None:
    (x,) = on(device, numbers(3))
    refused(device, ShapeMismatch, lambda: bool(x))
    refused(device, DeviceUnavailable, lambda: tc.asarray([1.0], device="abacus"))
    assert (await tc.asarray(x, dtype="int32").read()).dtype == np.int32
    assert tc.asarray(x) is x
    assert len(x) == 3


@only("webgpu")
async def the_buffer_that_reads_go_through_is_kept_and_counted(device: Device) -> None:
    x = tc.asarray(np.arange(5000, dtype=np.float32), device=device)
    assert device.memory()["staging"] == 0
    assert (await x[:7].read()).tolist() == list(range(7))
    small = device.memory()["staging"]
    assert 28 <= small == device.idle_scratch_bytes and real_bytes(device) == device.total
    calls = device.backend.calls
    assert (await x[3:900].read()).tolist() == list(range(3, 900))
    assert device.memory()["staging"] == small and device.backend.calls == calls + 1
    assert (await x.read()).tolist() == list(range(5000))
    assert device.memory()["staging"] > small and real_bytes(device) == device.total
    device.free_scratch()
    assert device.memory()["staging"] == 0 and real_bytes(device) == device.total
    assert (await x[4990:].read()).tolist() == list(range(4990, 5000))


@only("webgpu")
async def a_read_that_is_cancelled_leaves_the_next_one_a_buffer_of_its_own(device: Device) -> None:
    x = tc.asarray(np.arange(5000, dtype=np.float32), device=device)
    await x.read()
    reading = asyncio.create_task(x.read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    again = asyncio.create_task(x[1:3].read())
    with suppress(asyncio.CancelledError):
        await reading
    assert (await again).tolist() == [1, 2]
    assert (await x.read()).tolist() == list(range(5000))
    assert real_bytes(device) == device.total


@only("webgpu")
async def what_was_read_is_the_readers(device: Device) -> None:
    x = tc.asarray(np.arange(12, dtype=np.float32).reshape(3, 4), device=device)
    first, second = await x.read(), await x.read()
    first += 1
    assert (
        first.flags.writeable and second.tolist() == (await x.read()).tolist() == np.arange(12).reshape(3, 4).tolist()
    )


NUMPY_CALLS: tuple[Callable[[tc.Tensor, tc.Tensor], Any], ...] = (
    lambda x, y: np.asarray(x),
    lambda x, y: np.array([x, y]),
    lambda x, y: np.array((x, [1, 2])),
    lambda x, y: np.array([[x[0], x[1]], [1, 2]]),
    lambda x, y: np.array(list(x)),
    lambda x, y: np.array([tuple(x), tuple(y)]),
    lambda x, y: np.stack([x, y]),
    lambda x, y: np.concatenate([x, y * 2]),
    lambda x, y: np.vstack([x, x + y]),
    lambda x, y: np.mean(x),
    lambda x, y: np.float32(x[0]),
    lambda x, y: np.isin(x, [1]),
    lambda x, y: float(x[0]) + int(y[1]),
    lambda x, y: np.arange(2)[y > 3],
)


async def numpy_never_makes_an_array_of_tensors(device: Device) -> None:
    """NumPy gets the values, computed or not, or where they must be waited for, a TypeError names the alternative."""
    x, y = on(device, np.array([1, 2], np.float32), np.array([3, 4], np.float32))
    a, b = await tc.read_together([x, y])
    for number, call in enumerate(NUMPY_CALLS):
        for lazy in (x, x + 0):
            if device.kind == "cpu" or can_suspend():
                got = np.asarray(call(lazy, y))
                assert got.dtype.kind != "O", number
                np.testing.assert_array_equal(got, call(a, b))  # type: ignore[arg-type]  # the same call in NumPy
                continue
            complaint = _numpy_refuses(call, lazy, y)
            assert isinstance(complaint, TypeError) and "await t.read()" in str(complaint), number
    assert len(x) == 2 and [part.shape for part in x] == [(), ()]


async def numpy_leaves_operators_to_tensors(device: Device) -> None:
    a = np.array([1, 2], np.float32)
    (x,) = on(device, a)
    for made in (a + x, x + a, a * x, a @ x, a == x, np.float32(2) - x, a < x):
        assert isinstance(made, tc.Tensor)
    for call in (np.exp, lambda x: np.add(a, x)):
        complaint = _numpy_refuses(call, x)
        assert isinstance(complaint, TypeError) and "__array_ufunc__" in str(complaint)


def _numpy_refuses(call: Callable[..., Any], *arguments: Any) -> Exception:
    try:
        made = call(*arguments)
    except Exception as complaint:
        return complaint.with_traceback(None)  # its frames refer to tensors
    raise AssertionError(f"NumPy made {made!r}")


async def a_kind_stands_for_the_device_that_was_opened_last(device: Device) -> None:
    state, kind = current._Current, device.kind  # noqa: SLF001 - the case puts back what it found
    before = state.devices
    current.use_devices(tc.Devices([device], {"abacus": "nobody has one"}))
    try:
        made = [
            tc.asarray([1.0, 2], device=kind),
            tc.ones(2, device=kind) + tc.arange(2, dtype="float32"),
            tc.linspace(1, 2, 2, device=kind),
            tc.full((2,), 1.0, device=kind),
            tc.reshape(tc.eye(1, 2, device=kind), (2,)),
            await tc.compile(lambda x: x + 1, device=kind)(np.array([0, 1], np.float32)),
            await tc.asarray([1.0, 2], device="cpu").to(kind),
        ]
        assert all(each.device is device for each in made)
        assert [each.tolist() for each in await tc.read_together(made)][:3] == [[1, 2]] * 3
        tc.set_default_device(kind)
        assert tc.asarray([1, 2]).device is device and tc.add([1], [2]).device is device
        await raises(DeviceUnavailable, tc.asarray([1.0], device=kind).to("abacus"), "abacus")
        for wrong in ("abacus", 5, "", "x" * 1000):
            for call in (
                lambda wrong=wrong: tc.asarray([1.0], device=wrong),
                lambda wrong=wrong: tc.zeros(3, device=wrong),
                lambda wrong=wrong: tc.arange(3, device=wrong),
                lambda wrong=wrong: tc.compile(abs, device=wrong),
                lambda wrong=wrong: tc.set_default_device(wrong),
            ):
                assert len(str(refused(device, DeviceUnavailable, call))) < 400
        assert tc.asarray([1, 2]).device is device
    finally:
        tc.set_default_device(None)
        state.devices = before


async def nothing_is_not_moved(device: Device) -> None:
    """Tensors without elements take every path of bytes; the harness counts calls that move none."""
    (empty, x) = on(device, np.zeros((0, 3), np.float32), numbers(4, 3))
    assert (await empty.read()).shape == (0, 3)
    for made in (
        empty + 1,
        tc.concat([empty, x[:0]]),
        tc.sum(empty, axis=1),
        x[2:2] * 2,
        tc.zeros((0,), device=device),
    ):
        assert (await made.read()).size == 0
    assert (await tc.sum(empty).read()).item() == 0
    read = await tc.read_together([empty, x, empty * 2, x[1:1]])
    assert [each.size for each in read] == [0, 12, 0, 0]
    double = tc.compile(lambda a, b: (a * 2, b + 1))
    for _ in range(3):
        answers = await double(empty, np.zeros((0, 2), np.float32))
        assert [each.size for each in await tc.read_together(answers)] == [0, 0]
        answers = await double(x, np.zeros((0, 2), np.float32))
        near((await answers[0].read()), numbers(4, 3) * 2)
    manager = tc.TensorSharingManager(64, tc.Devices([device], {}))
    shared = manager.register_shared_tensor("none", (0, 4), device.kind, "m", data=np.zeros((0, 4), np.float32))
    await shared.write(np.zeros((0, 4), np.float32))
    assert (await shared.read()).shape == (0, 4)
    manager.release_model_tensors("m")
    manager.optimize_memory_usage()


async def no_op_mixes_devices(device: Device) -> None:
    async def called(function: Callable[[], Any]) -> Any:
        return function()

    other, rng = tc.Device(CpuBackend()), np.random.default_rng(0)
    samples = {sample.op: sample for sample in SAMPLES if len(sample.shapes[0]) > 1}
    for sample in samples.values():
        arrays = sample.operands(rng, sample.dtypes[0], sample.shapes[0])
        for place in range(len(arrays)):
            mixed = [tc.asarray(array, device=other if i == place else device) for i, array in enumerate(arrays)]
            await raises(DeviceMismatch, called(partial(sample.call, *mixed)))
    (x,) = on(device, numbers(3))
    stranger = tc.asarray(numbers(3), device=other)
    await raises(DeviceMismatch, tc.compile(lambda y: [y + 1, stranger])(x), device.kind)
    await raises(DeviceMismatch, realize([x + 1, stranger + 1]))
    near(await (x + await stranger.to(device)).read(), 2 * numbers(3))
