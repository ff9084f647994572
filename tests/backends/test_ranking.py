"""The order of devices by a measurement, and the times that are kept for the next visit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

import tensorcommons as tc
from tensorcommons import Cache, Device, opening, ranking
from tensorcommons.backends.timeouts import in_time
from tensorcommons.backends.webgpu.backend import SOFTWARE
from tensorcommons.errors import DeviceLost
from tensorcommons.hub.records import Record
from tensorcommons.hub.stores import MemoryStore
from tests.sharing.devices import Backend


class Clock:
    """A clock that only the reads of the devices advance."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return 2e9


class Slow(Backend):
    """A device whose reads take ``seconds``."""

    def __init__(self, kind: str, seconds: float, clock: Clock) -> None:
        super().__init__(kind)
        self.name = f"the {kind}"
        self.seconds = seconds
        self.clock = clock
        self.reads = 0
        if kind == "webgpu":
            self.facts = SOFTWARE

    async def read(self, ranges):
        self.reads += 1
        self.clock.now += self.seconds
        return await super().read(ranges)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Cache:
    kept = Cache(MemoryStore())

    async def open_cache() -> Cache:
        return kept

    monkeypatch.setattr(ranking, "open_cache", open_cache)
    return kept


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, Slow]:
    """The backends that open_devices() opens."""
    clock = Clock()
    monkeypatch.setattr(ranking, "time", clock)
    monkeypatch.setattr(ranking, "INNER", 8)
    backends = {kind: Slow(kind, seconds, clock) for kind, seconds in (("webgpu", 0.3), ("webnn", 0.05), ("cpu", 0.01))}

    async def opens(kind: str, wishes: object) -> Device:
        return Device(backends[kind])

    monkeypatch.setattr(opening, "_open", opens)
    return backends


async def opened_kinds(prefer: Sequence[str] | None = None) -> list[str]:
    devices = await tc.open_devices(prefer)
    assert devices.choose() is devices.opened[0]
    sentence = devices.explain()
    devices.close()
    if prefer is None:
        assert sentence.startswith(f"{devices.opened[0].kind} (")
    return [device.kind for device in devices.opened]


async def test_the_fastest_device_comes_first_and_the_reason_has_the_times(cache, found):
    devices = await tc.open_devices()
    assert [device.kind for device in devices.opened] == ["cpu", "webnn", "webgpu"]
    why = "it is the fastest: 10 ms for a product of matrices, 50 on webnn and 300 on webgpu"
    assert f"no hardware GPU was found, and {why}" in devices.explain()
    assert (found["webnn"].reads, found["webgpu"].reads) == (4, 2), "a device that is far slower was measured on"
    assert all(device.total == 0 for device in devices.opened), "the measurement left tensors"
    devices.close()
    found["cpu"].seconds = 0.2
    await cache.clear()
    assert await opened_kinds() == ["webnn", "cpu", "webgpu"]


async def test_devices_of_about_the_same_speed_keep_the_order_of_their_facts(cache, found):
    found["webnn"].seconds = 0.02
    devices = await tc.open_devices()
    assert [device.kind for device in devices.opened] == ["webnn", "cpu", "webgpu"]
    assert "it takes at most 3 times as long as the fastest: 20 ms for a product of matrices, 10 on cpu and" in (
        devices.explain()
    )
    devices.close()


async def test_kept_times_are_used_on_the_next_visit_of_the_same_devices(cache, found):
    await opened_kinds()
    measured = {kind: backend.reads for kind, backend in found.items()}
    found["cpu"].seconds = 0.5
    assert await opened_kinds() == ["cpu", "webnn", "webgpu"]
    assert {kind: backend.reads for kind, backend in found.items()} == measured
    found["webgpu"].name = "another adapter"
    found["webgpu"].seconds = 0.001
    assert (await opened_kinds())[0] == "webgpu"


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"[]",
        b"{}",
        b'{"measured": "now", "milliseconds": {}}',
        b'{"measured": 1, "milliseconds": {"webgpu": 1}}',
        json.dumps({"measured": 4e9, "milliseconds": {"webgpu": 1.0}}).encode(),
        json.dumps({"measured": 2e9, "milliseconds": {"webgpu": 1.0, "webnn": 2.0}}).encode(),
        json.dumps({"measured": 2e9, "milliseconds": {"webgpu": 1.0, "webnn": 2.0, "cpu": -1.0}}).encode(),
        json.dumps({"measured": 2e9, "milliseconds": {"webgpu": 1.0, "webnn": 2.0, "cpu": 10**400}}).encode(),
        b"\xff",
    ],
)
async def test_old_and_damaged_times_are_measured_again(cache, found, kept):
    address = "device-times:" + json.dumps([[kind, found[kind].name] for kind in ("webnn", "webgpu", "cpu")])
    await cache.keep_all(Record(address, len(kept)), kept)
    assert await opened_kinds() == ["cpu", "webnn", "webgpu"]


@pytest.mark.parametrize(
    "error", [DeviceLost("the test took it"), MemoryError("the test took it"), KeyError("took it")]
)
async def test_a_device_that_fails_comes_last_with_the_reason_and_is_measured_again(
    cache, found, monkeypatch, caplog, error
):
    async def fails(ranges):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(found["cpu"], "read", fails)
        devices = await tc.open_devices()
        assert [device.kind for device in devices.opened] == ["webnn", "webgpu", "cpu"]
        assert "cpu could not be measured: " in devices.explain() and "took it" in devices.explain()
        assert "the speed of cpu could not be measured" in caplog.text
        devices.close()
    assert await opened_kinds() == ["cpu", "webnn", "webgpu"]


async def test_where_no_device_can_be_measured_the_reasons_are_given(cache, found, monkeypatch):
    async def fails(ranges):
        raise DeviceLost("the test took it")

    for backend in found.values():
        monkeypatch.setattr(backend, "read", fails)
    devices = await tc.open_devices()
    assert [device.kind for device in devices.opened] == ["webnn", "webgpu", "cpu"]
    assert "no hardware GPU was found; " in devices.explain()
    assert devices.explain().count("could not be measured") == 3
    devices.close()


async def test_the_measurement_ends_in_time_and_is_made_again(cache, found, monkeypatch):
    async def hangs(ranges):
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(found["webnn"], "read", hangs)
        patched.setattr(
            ranking, "in_time", lambda kind, work, seconds: in_time(kind, work, 0.01 if kind == "webnn" else seconds)
        )
        assert await opened_kinds() == ["cpu", "webgpu", "webnn"]
    assert await opened_kinds() == ["cpu", "webnn", "webgpu"]


async def test_all_samples_together_end_in_time(cache, found):
    found["cpu"].seconds = 4.0
    devices = await tc.open_devices(timeout=6)
    assert found["cpu"].reads == 2, "samples were taken after the end"
    assert devices.choose().kind == "cpu" and "webnn could not be measured" in devices.explain()
    devices.close()


async def test_a_device_whose_first_run_takes_all_the_time_has_no_time(cache, found):
    found["cpu"].seconds = 7.0
    devices = await tc.open_devices(timeout=6)
    assert "could not be measured: no time was left of 6 s" in devices.explain() and "inf" not in devices.explain()
    devices.close()


async def test_a_measurement_that_is_cancelled_leaves_the_cpu_device_open(cache, found, monkeypatch):
    async def hangs(ranges):
        hanging.set()
        await asyncio.Event().wait()

    hanging = asyncio.Event()
    opened = [Device(backend) for backend in found.values()]

    async def opens(kind: str, wishes: object) -> Device:
        return next(device for device in opened if device.kind == kind)

    monkeypatch.setattr(opening, "_open", opens)
    monkeypatch.setattr(found["webnn"], "read", hangs)
    task = asyncio.create_task(tc.open_devices())
    await hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {device.kind: device.is_closed for device in opened} == {"webgpu": True, "webnn": True, "cpu": False}


async def test_nothing_is_measured_with_a_hardware_gpu_or_an_order_of_the_caller(cache, found):
    assert await opened_kinds(["webgpu", "cpu"]) == ["webgpu", "cpu"]
    assert await opened_kinds(["cpu"]) == ["cpu"]
    found["webgpu"].facts = Backend("webgpu").facts
    assert await opened_kinds() == ["webgpu", "webnn", "cpu"]
    assert not any(backend.reads for backend in found.values())
