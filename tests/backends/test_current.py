"""Selection of an opened device by kind, and the default device."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends import current
from tensorcommons.errors import DeviceUnavailable, ReadRequired


@pytest.fixture(autouse=True)
def nothing_opened() -> Iterator[None]:
    """No device was opened and none was made on demand, before and after."""

    def forget() -> None:
        state = current._Current  # noqa: SLF001 - a page never goes back to the state before any device
        state.devices = state.own_cpu = state.default = None

    forget()
    yield
    forget()


def test_the_numpy_device_is_created_on_demand():
    x = tc.asarray([1, 2, 3])
    assert x.device is not None and x.device.kind == "cpu" and x.device is tc.asarray(1.5, device="cpu").device
    assert np.asarray(x + 1).tolist() == [2, 3, 4] and tc.zeros(2).numpy().tolist() == [0, 0]
    assert tc.add([1, 2], [3, 4]).numpy().tolist() == [4, 6]


def test_other_kinds_must_be_opened_first():
    for kind in ("webgpu", "webnn"):
        with pytest.raises(DeviceUnavailable, match="open_devices"):
            tc.asarray([1.0], device=kind)
        with pytest.raises(DeviceUnavailable, match="open_devices"):
            tc.set_default_device(kind)
    assert tc.asarray([1]).device is current.default_device()


async def test_opened_devices_include_the_one_created_on_demand():
    before = tc.asarray([1.0, 2])
    devices = await tc.open_devices(prefer=["cpu"])
    assert before.device is devices.cpu is tc.asarray([1], device="cpu").device
    assert (await (before + tc.asarray([1.0, 1], device=devices.cpu)).read()).tolist() == [2, 3]
    others = await tc.open_devices(prefer=["cpu"])
    assert others.cpu is not devices.cpu and tc.asarray([1]).device is others.cpu
    others.close()
    assert tc.asarray([1]).device not in (devices.cpu, others.cpu), "a closed device was chosen"
    devices.close()


async def test_a_missing_device_is_an_error_with_the_reason():
    devices = await tc.open_devices()
    with pytest.raises(DeviceUnavailable, match="does not run in a browser"):
        tc.asarray([1.0], device="webgpu")
    with pytest.raises(DeviceUnavailable, match="not one of the devices"):
        devices.choose(current.device_of(tc.Device(devices.opened[0].backend)))
    devices.close()


@pytest.mark.parametrize("prefer", ["cpu", 7, [], ["CPU"], [["cpu"]], ["webgpu" * 99], "cpu" * 99])
async def test_devices_that_do_not_exist_are_refused_with_what_is_allowed(prefer):
    expected = DeviceUnavailable if isinstance(prefer, list) else tc.errors.TensorCommonsError
    with pytest.raises(expected, match="kinds of devices") as refused:
        await tc.open_devices(prefer=prefer)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("limit", [0, -1, True, "12", float("nan"), 1e30])
async def test_limits_that_are_not_sizes_are_refused(limit):
    with pytest.raises(tc.errors.TensorCommonsError, match="max_memory_mb must be a number above 0"):
        tc.TensorSharingManager(max_memory_mb=limit)


async def test_a_synchronous_read_during_a_run_is_refused():
    """A synchronous read raises while a program runs on the device, and works afterwards."""
    x = tc.asarray(np.ones(4, np.float32))
    assert x.device is not None
    async with x.device.lock:
        with pytest.raises(ReadRequired, match="busy"):
            np.asarray(x * 2)
        assert np.asarray(x).tolist() == [1] * 4
    assert np.asarray(x * 2).tolist() == [2] * 4
    running = asyncio.create_task((x + 1).read())
    assert np.asarray(x * 3).tolist() == [3] * 4
    assert (await running).tolist() == [2] * 4
    device = x.device
    del x, running
    gc.collect()
    assert device.total == 0 and not device.lock.locked()
