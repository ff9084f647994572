"""Limit on the memory of compiled programs, which the memory report does not count."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tests.graph.graph_device import GraphBackend, Kept
from tests.sharing.devices import manager_on


class Spacious(GraphBackend):
    """Device with room for 350 bytes of programs of 100 bytes each."""

    def __init__(self, bound: str) -> None:
        super().__init__(())
        self.bound = bound
        setattr(self, f"most_{bound}", 350)
        self.discarded: list[Any] = []

    async def compile(self, plan):
        self.make_way(*(100 if name == self.bound else 0 for name in ("hidden", "reserved")))
        return Kept(1, 0, plan, **{self.bound: 100})

    def discard(self, executable) -> None:
        self.discarded.append(executable)


@pytest.mark.parametrize("bound", ["hidden", "reserved"])
async def test_the_least_recently_used_programs_are_evicted_and_compiled_again(bound):
    device = Device(Spacious(bound))
    backend = cast(Spacious, device.backend)
    x = tc.asarray(np.arange(12, dtype=np.float32), device=device)
    for size in (2, 3, 4, 5, 6, 2, 6):
        np.testing.assert_array_equal(await (x[:size] * 2).read(), np.arange(size) * 2)
        assert sum(sum(program.uncounted) for program in device.programs.values()) <= 350
    assert len(device.programs) == 3 and len(backend.discarded) == 3


@pytest.mark.parametrize("evicted", [False, True])
async def test_programs_are_dropped_with_the_last_tensor(evicted):
    manager = manager_on("cpu")
    device = manager.devices.opened[0]
    tensor = manager.register_shared_tensor("t", (8,), "cpu", "m", data=np.arange(8, dtype=np.float32))
    np.testing.assert_array_equal(await (tensor.tensor * 2).read(), np.arange(8) * 2)
    assert len(device.programs) == 1
    if evicted:
        assert await tensor.entry.storage.evict()
    manager.release_model_tensors("m")
    manager.optimize_memory_usage()
    assert len(device.programs) == 0
