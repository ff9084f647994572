"""Devices for the tests of sharing: NumPy under the rules of a GPU, devices that fail on demand, and invariants."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Devices
from tensorcommons.backends.base import Spec
from tensorcommons.backends.budget import STAGING_RESERVE, Category
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.webgpu.backend import HARDWARE
from tensorcommons.backends.webnn.backend import WebNNBackend
from tensorcommons.bridge.byte_buffer import Data
from tensorcommons.errors import DeviceLost, TensorCommonsError
from tests.cases.rules import cancelled, consistent, parts_of, some

__all__ = ["cancelled", "some"]
Array = np.ndarray[Any, Any]
MB = 2**20
DTYPES = tuple(tc.dtypes.ALL)


class Fault(TensorCommonsError):
    """Failure requested by a test."""


class Backend(CpuBackend):
    """NumPy backend that fails at the ``fault_in``-th call, or never if it is 0.

    As "webgpu" it has that device's rules: a read waits, a write takes whole words of 4 bytes at offsets of whole words
    (the bridge pads the last one with zeros), and the device can be lost with everything on it.
    """

    def __init__(self, kind: str = "cpu") -> None:
        super().__init__()
        self.kind = kind
        self.facts = {"webgpu": HARDWARE, "webnn": WebNNBackend.facts, "cpu": CpuBackend.facts}[kind]
        self.keeps_spares = kind == "webgpu"
        self._spares: dict[tuple[int, int], Array] = {}
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

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        self._call()
        assert handle not in self.arrays
        super().allocate(handle, nbytes, spec)

    def write(self, handle: int, offset: int, data: Data) -> None:
        self._call()
        self.uploads += 1
        if self.kind != "cpu":
            assert offset % 4 == 0, "a write within a word"
            room = self.arrays[handle].nbytes - offset
            data = memoryview((bytes(data) + bytes(-data.nbytes % 4))[:room])
        super().write(handle, offset, data)

    async def read(self, ranges):
        self._call()
        if self.kind != "cpu":
            await asyncio.sleep(0)
        if self.lost:
            raise DeviceLost("the test took the device away")
        return await super().read(ranges)

    async def run(self, executable, arena, host, leaves, outputs) -> None:
        self._call()
        taken = {number: self._spares.pop((id(executable), number), None) for number in range(len(outputs))}
        await super().run(executable, arena, host, leaves, outputs)
        for number, spare in taken.items():
            if spare is not None:
                spare[:] = self.arrays[outputs[number]]
                self.arrays[outputs[number]] = spare

    def spare(self, executable, number: int, handle: int) -> None:
        assert (id(executable), number) not in self._spares
        if self.lost:
            return
        self._spares[id(executable), number] = self.arrays.pop(handle)

    def drop_spares(self, executable) -> None:
        self._spares = {key: spare for key, spare in self._spares.items() if key[0] != id(executable)}

    def discard(self, executable) -> None:
        self.drop_spares(executable)

    def lose(self) -> None:
        self.lost = True
        self.arrays.clear()
        self._spares.clear()

    def free(self, handle: int) -> None:
        if not self.lost:
            super().free(handle)

    async def reopen(self) -> None:
        await asyncio.sleep(0)
        self.lost = False
        self.arrays.clear()

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in [*self.arrays.values(), *self._spares.values()])

    def live_buffers(self) -> int:
        return len(self.arrays) + len(self._spares)


class WatchedDevice(Device):
    """A device that fails the test the moment its manager's bytes pass the limit."""

    manager: tc.TensorSharingManager | None = None

    def charge(self, nbytes: int, category: Category) -> None:
        super().charge(nbytes, category)
        if self.manager is not None:
            assert self.manager.residency.used <= self.manager.residency.limit, "the limit is exceeded"


def budget(usable: int, *kinds: str) -> float:
    """Return the limit in MB that leaves ``usable`` bytes for tensors beside the reserve for reads of a GPU."""
    reserve = min(STAGING_RESERVE, usable // 12 * 4) if any(kind != "cpu" for kind in kinds) else 0
    return (usable + reserve) / MB


def manager_on(*kinds: str, limit: int = 64 * MB) -> tc.TensorSharingManager:
    """Make a manager of test devices of these kinds, with ``limit`` bytes for tensors."""
    devices = [WatchedDevice(Backend(kind)) for kind in kinds or ("cpu",)]
    missing = {kind: f"{kind} is not for this test" for kind in ("cpu", "webgpu", "webnn") if kind not in kinds}
    manager = tc.TensorSharingManager(budget(limit, *kinds), Devices(devices, missing))
    for device in devices:
        device.manager = manager
    return manager


def backends(manager: tc.TensorSharingManager) -> list[Backend]:
    return [device.backend for device in manager.devices.opened]  # type: ignore[misc]


def check(manager: tc.TensorSharingManager, *, others: int = 0) -> None:
    """Assert the invariants of a manager; ``others`` bytes on the devices are not its weights."""
    consistent(manager)
    for device in manager.devices.opened:
        resident = [e for e in manager.registry if e.storage.device is device and e.storage.state == "resident"]
        memory = device.memory()
        assert memory["total"] == device.backend.nbytes  # type: ignore[attr-defined]
        assert memory["weights"] == sum(e.storage.nbytes for e in resident)
        assert memory["staging"] == 0
        if not others:
            assert device.backend.live_buffers() == len(resident) + bool(device.idle_scratch_bytes)


def empty(manager: tc.TensorSharingManager, models: Sequence[str] = ()) -> None:
    """Release and free everything, and assert that no device holds anything."""
    awaited = {name for tensor in manager.tensors.values() for part in parts_of(tensor) for name in part.awaited}
    for name in {*models, *awaited, *manager.models, *(m.name for m in manager.report().models)}:
        manager.release_model_tensors(name)
    for tensor in list(manager.tensors.values()):
        tensor.unpin()
    manager.optimize_memory_usage()
    if any(device.total for device in manager.devices.opened):
        gc.collect()
    assert not manager.tensors and not len(manager.registry)
    for device in manager.devices.opened:
        assert device.total == 0 and device.backend.live_buffers() == 0, device.memory()
