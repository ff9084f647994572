"""Devices for the tests of sharing: NumPy under the rules of a GPU, devices that fail on demand, and what must hold."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Devices
from tensorcommons.backends.cpu import CpuBackend
from tensorcommons.backends.device import STAGING_RESERVE, Category
from tensorcommons.errors import DeviceLost, TensorCommonsError
from tensorcommons.sharing.registry import REGISTERED

MB = 2**20
DTYPES = tuple(tc.dtypes.ALL)


class Fault(TensorCommonsError):
    """The failure that a test asked for."""


class Backend(CpuBackend):
    """NumPy bytes that fail at the ``fault_in``-th call; 0 never.

    As "webgpu" it has that device's rules: a read waits, a write takes whole words of 4 bytes at offsets of whole words
    (the bridge pads the last one with zeros), and the device can be lost with everything on it.
    """

    def __init__(self, kind: str = "cpu") -> None:
        super().__init__()
        self.kind = kind
        self.fault_in = 0
        self.uploads = 0
        self.lost = False

    @property
    def is_lost(self) -> bool:
        return self.lost

    def _call(self) -> None:
        if self.lost:
            raise DeviceLost("the test took the device away")
        self.fault_in -= 1
        if self.fault_in == 0:
            raise Fault("an injected failure")

    def allocate(self, handle: int, nbytes: int) -> None:
        self._call()
        assert handle not in self._bytes
        super().allocate(handle, nbytes)

    def write(self, handle: int, offset: int, data: memoryview) -> None:
        self._call()
        self.uploads += 1
        if self.kind != "cpu":
            assert offset % 4 == 0, "a write at a part of a word"
            room = self._bytes[handle].nbytes - offset
            data = memoryview((bytes(data) + bytes(-data.nbytes % 4))[:room])
        super().write(handle, offset, data)

    async def read(self, ranges):
        self._call()
        if self.kind != "cpu":
            await asyncio.sleep(0)
        if self.lost:
            raise DeviceLost("the test took the device away")
        return await super().read(ranges)

    async def run(self, *args, **kwargs) -> None:
        self._call()
        await super().run(*args, **kwargs)

    def lose(self) -> None:
        self.lost = True
        self._bytes.clear()

    def free(self, handle: int) -> None:
        if not self.lost:
            super().free(handle)

    async def reopen(self) -> None:
        await asyncio.sleep(0)
        self.lost = False
        self._bytes.clear()

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._bytes.values())


class WatchedDevice(Device):
    """A device that fails the test the moment its manager's bytes pass the limit."""

    manager: tc.TensorSharingManager | None = None

    def charge(self, nbytes: int, category: Category) -> None:
        super().charge(nbytes, category)
        if self.manager is not None:
            assert self.manager.residency.used <= self.manager.residency.limit, "over the limit"


def budget(usable: int, *kinds: str) -> float:
    """The limit in MB that leaves ``usable`` bytes for tensors, beside the reserve that only reads of a GPU take."""
    reserve = min(STAGING_RESERVE, usable // 12 * 4) if any(kind != "cpu" for kind in kinds) else 0
    return (usable + reserve) / MB


def manager_on(*kinds: str, limit: int = 64 * MB) -> tc.TensorSharingManager:
    """A manager over test devices of these kinds, with ``limit`` bytes for tensors."""
    devices = [WatchedDevice(Backend(kind)) for kind in kinds or ("cpu",)]
    missing = {kind: f"{kind} is not for this test" for kind in ("cpu", "webgpu", "webnn") if kind not in kinds}
    manager = tc.TensorSharingManager(budget(limit, *kinds), Devices(devices, missing))
    for device in devices:
        device.manager = manager
    return manager


def backends(manager: tc.TensorSharingManager) -> list[Backend]:
    return [device.backend for device in manager.devices.opened]  # type: ignore[misc]


def check(manager: tc.TensorSharingManager, *, others: int = 0) -> None:
    """What must hold of a manager whenever it can be looked at; ``others`` bytes on the devices are not its weights."""
    registry, report = manager.registry, manager.report()
    entries = list(registry)
    assert manager.residency.used <= manager.residency.limit
    for device in manager.devices.opened:
        own = [e for e in entries if e.storage.device is device]
        resident = [e for e in own if e.storage.state == "resident"]
        memory = device.memory()
        assert memory["total"] == device.backend.nbytes  # type: ignore[attr-defined]
        assert memory["weights"] == sum(e.storage.nbytes for e in resident)
        assert memory["staging"] == 0
        for entry in own:
            assert registry.find(device, entry.storage.identity) is entry
            assert not entry.storage.in_use and not entry.is_written
            assert entry.names or entry.registered, "an entry that nothing keeps"
            assert entry.storage.nbytes == entry.spec.nbytes
        if not others:
            assert device.backend.live_buffers() == len(resident) + bool(device.idle_arena_bytes)
    for name, tensor in manager.tensors.items():
        assert name == tensor.name and not tensor.is_freed
        assert name in tensor.entry.registered
        assert registry.find(tensor.entry.storage.device, tensor.identity) is tensor.entry
        assert tensor.reference_count == len(tensor.holders) + sum(len(v.holders) for v in tensor.views.values())
    for entry in entries:
        known = {t.name for t in manager.tensors.values() if t.entry is entry}
        assert entry.registered == known and entry.pins <= known | {"test"}
        keys = {t.key for t in manager.tensors.values() if t.entry is entry}
        keys |= {v.key for t in manager.tensors.values() if t.entry is entry for v in t.views.values()}
        for names in entry.names.values():
            assert names, "a holder of nothing"
            assert {name for name in names if name.startswith(REGISTERED)} <= keys
    total = sum(model.attributed_bytes for model in report.models) + report.unheld_bytes
    assert abs(total - report.by_category["weights"]) < 1e-3
    assert sum(report.by_category.values()) == report.device_bytes


def empty(manager: tc.TensorSharingManager, models: Sequence[str] = ()) -> None:
    """Release and free everything: nothing may be left on any device."""
    for name in {*models, *manager.models, *(m.name for m in manager.report().models)}:
        manager.release_model_tensors(name)
    for tensor in list(manager.tensors.values()):
        tensor.unpin()
    manager.optimize_memory_usage()
    if any(device.total for device in manager.devices.opened):
        gc.collect()
    assert not manager.tensors and not len(manager.registry)
    for device in manager.devices.opened:
        assert device.total == 0 and device.backend.live_buffers() == 0, device.memory()


def some(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Values of any dtype, every bit pattern among them."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    kind = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(rng.bytes(count * kind.itemsize), kind).reshape(shape)


def steps_of(make, *, cancel_at: int):
    """Run ``make()`` as a task that is cancelled at its ``cancel_at``-th wait. Gives (finished, result or None)."""

    async def drive():
        work = make()
        waits = 0

        class Counted:
            def __await__(self):
                nonlocal waits
                inner = work.__await__()
                try:
                    value = None
                    while True:
                        yielded = inner.send(value)
                        waits += 1
                        if waits == cancel_at:
                            inner.throw(asyncio.CancelledError())
                            raise AssertionError("it went on after it was cancelled")
                        value = yield yielded
                except StopIteration as done:
                    return done.value

        async def body():
            return await Counted()

        try:
            return True, await asyncio.create_task(body())
        except asyncio.CancelledError:
            return False, None

    return drive()
