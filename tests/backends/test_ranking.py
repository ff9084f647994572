"""The order of devices by a measurement, and the times that are kept for the next visit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

import tensorcommons as tc
from tensorcommons import Cache, Device, opening, ranking
from tensorcommons.backends.select import MATRICES, ROW
from tensorcommons.backends.timeouts import in_time
from tensorcommons.backends.webgpu.backend import SOFTWARE
from tensorcommons.errors import DeviceLost
from tensorcommons.hub.records import Record
from tensorcommons.hub.stores import MemoryStore
from tests.sharing.devices import Backend

ROW_COLUMNS = 16


class Clock:
    """A clock that only the reads of the devices advance."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def time(self) -> float:
        return 2e9


class Slow(Backend):
    """A device whose reads take ``seconds`` for a product of matrices, and ``row_seconds`` for one of a row."""

    def __init__(self, kind: str, seconds: float, clock: Clock) -> None:
        super().__init__(kind)
        self.name = f"the {kind}"
        self.seconds = self.row_seconds = seconds
        self.clock = clock
        self.reads = 0
        if kind == "webgpu":
            self.facts = SOFTWARE

    async def read(self, ranges):
        self.reads += 1
        self.clock.now += self.row_seconds if ranges[0][2] == 4 * ROW_COLUMNS else self.seconds
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
    monkeypatch.setattr(ranking, "PRODUCTS", {MATRICES: (128, 8, 384), ROW: (1, 8, ROW_COLUMNS)})
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
    assert (found["webnn"].reads, found["webgpu"].reads) == (8, 4), "a device that is far slower was measured on"
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


async def test_models_that_generate_run_on_the_device_that_is_fastest_for_one_row(cache, found):
    found["webnn"].seconds, found["webnn"].row_seconds = 0.005, 0.03
    for _ in range(2):  # measured, and as it was kept
        devices = await tc.open_devices()
        assert [devices.decide(product=product).device.kind for product in (MATRICES, ROW)] == ["webnn", "cpu"]
        assert devices.decide_for("m", {}, product=ROW).why == devices.decide(product=ROW).why
        row = "it is the fastest: 10 ms for a product of one row, 30 on webnn and 300 on webgpu"
        assert row in devices.decide(product=ROW).why and row not in devices.decide().why
        assert f"; models that generate run on cpu, because no hardware GPU was found, and {row}; " in devices.explain()
        assert "models that generate" not in devices.explain("webnn")
        webgpu = devices.choose("webgpu")
        assert [devices.after(webgpu, {}, product) for product in (MATRICES, ROW)] == [
            devices.webnn,
            devices.cpu,
        ]
        devices.pin("webgpu")
        assert devices.decide(product=ROW).device.kind == "webgpu"
        assert "models that generate" not in devices.explain()
        devices.close()
    assert found["webnn"].reads == 8


async def test_a_device_that_takes_all_the_time_leaves_the_cpu_device_its_own(cache, found, caplog):
    found["webnn"].seconds = found["webnn"].row_seconds = 100
    devices = await tc.open_devices(timeout=6)
    assert devices.decide(product=ROW).device.kind == "cpu"
    assert "cpu could not be measured" not in devices.explain() + caplog.text
    devices.close()


async def test_a_device_without_a_time_for_one_row_keeps_that_for_matrices(cache, found, caplog):
    found["webnn"].seconds, found["webgpu"].row_seconds = 0.02, 10.0
    devices = await tc.open_devices(timeout=6)
    assert [device.kind for device in devices.opened] == ["webnn", "cpu", "webgpu"]
    assert "300 on webgpu" in devices.decide().why and "could not be measured" not in devices.decide().why
    assert "webgpu could not be measured: no time was left of 6 s" in devices.decide(product=ROW).why
    devices.close()
    found["webgpu"].row_seconds = 0.3
    devices = await tc.open_devices()
    assert "300 on webgpu" in devices.decide(product=ROW).why, "an incomplete measurement was kept"
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


def kept_times(measured: object = 2e9, drop: str = "", **changed: object) -> bytes:
    """Return a record, which is valid if nothing is changed or dropped."""
    times = {"webgpu": 1.0, "webnn": 2.0, "cpu": 3.0, **changed}
    products = {product: times for product in (MATRICES, ROW) if product != drop}
    return json.dumps({"measured": measured, "milliseconds": products}).encode()


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"[]",
        b"{}",
        kept_times("now"),
        kept_times(1),
        kept_times(4e9),
        kept_times(webgpu=None),
        kept_times(cpu=-1.0),
        kept_times(cpu=10**400),
        kept_times(drop=ROW),
        json.dumps({"measured": 2e9, "milliseconds": {"webgpu": 1.0, "webnn": 2.0, "cpu": 3.0}}).encode(),
        b"\xff",
    ],
)
async def test_old_and_damaged_times_are_measured_again(cache, found, kept):
    address = "device-times:" + json.dumps([[kind, found[kind].name] for kind in ("webnn", "webgpu", "cpu")])
    await cache.keep_all(Record(address, len(kept)), kept)
    assert await opened_kinds() == ["cpu", "webnn", "webgpu"]


async def test_a_valid_record_is_not_measured_again(cache, found):
    address = "device-times:" + json.dumps([[kind, found[kind].name] for kind in ("webnn", "webgpu", "cpu")])
    await cache.keep_all(Record(address, len(kept_times())), kept_times())
    assert await opened_kinds() == ["webnn", "webgpu", "cpu"]
    assert not any(backend.reads for backend in found.values())


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
