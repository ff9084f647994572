"""Closing of managers: everything is freed, the limit is removed, and later calls are errors."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Devices
from tensorcommons.errors import ManagerClosed, MemoryBudgetError, TensorCommonsError, TensorReleased
from tests.sharing.devices import Backend, manager_on
from tests.sharing.test_faults import IDS, TINY, source
from tests.sharing.test_migration import load

KB, MB = 1024, 2**20
UNLIMITED = 2**62


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, so that everything freed in the block is freed by reference counts."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def limit_of(device: tc.Device) -> int:
    return device.budget.limit  # type: ignore[attr-defined]


def nothing_on(devices: Devices) -> None:
    for device in devices.opened:
        device.free_scratch()
        device.drop_programs()
        assert device.total == 0 and device.backend.live_buffers() == 0, device.memory()


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_a_closed_manager_holds_nothing_and_refuses_calls(kind):
    manager = manager_on(kind, "cpu") if kind != "cpu" else manager_on("cpu")
    devices = manager.devices
    model = await load(manager, device="auto")
    tensor = manager.register_shared_tensor("x", (8,), kind, "m", ["n"], data=np.ones(8, np.float32))
    tensor.pin()
    view = tensor.create_view("v", (0,), (4,))
    answer = await model(**IDS)
    heard: list[Any] = []
    manager.subscribe(heard.append)
    manager.close()
    manager.close()
    assert heard[-1].device_bytes == sum(device.total for device in devices.opened) and not heard[-1].models
    assert limit_of(devices.opened[0]) == UNLIMITED and manager.is_closed
    assert all([(await each.read()).size for each in answer.values()]), "results must stay readable"
    del answer
    calls = [
        lambda: model(**IDS), lambda: model.to("cpu"), lambda: model.compile([(1, 4)]),
        lambda: tensor.read(), lambda: tensor.write(np.ones(8)), lambda: view.read(),
        lambda: tensor.copy_to("cpu", "y"),
        lambda: load(manager, device="auto"), lambda: manager.set_memory_limit(5), lambda: manager.make_room(5),
        lambda: manager.run_together([(model, IDS)]), lambda: manager.compile_together([(model, IDS)]),
        lambda: tc.pipeline("fill-mask", {}, manager=manager), lambda: manager.__aenter__(),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((ManagerClosed, TensorReleased)):
            await call()
    for refuse in [
        lambda: manager.register_shared_tensor("x", (8,)), lambda: manager.get_shared_tensor("x"),
        lambda: manager.create_tensor_view("x", "w", (0,), (1,)), lambda: manager.subscribe(heard.append),
        lambda: manager.share_tensor_between_models("x", "m", ["n"]), lambda: manager.optimize_memory_usage(),
        lambda: tensor.pin(), lambda: tensor.acquire("n"), lambda: tensor.create_view("w", (0,), (1,)),
        lambda: manager.__enter__(), lambda: manager.add_model("m", devices.opened[0]),
    ]:  # fmt: skip
        with pytest.raises((ManagerClosed, TensorReleased)):
            refuse()
    assert manager.report().tensors == () and manager.get_stats()["total_models"] == 0
    assert manager.release_model_tensors("m") == 0
    model.unload()
    gc.collect()
    nothing_on(devices)


async def test_a_manager_closes_at_the_end_of_its_block():
    for kind in ("cpu", "webgpu"):
        with manager_on(kind) as manager:
            manager.register_shared_tensor("x", (8,), kind, "m")
        assert manager.is_closed and limit_of(manager.devices.opened[0]) == UNLIMITED
        nothing_on(manager.devices)
        manager = manager_on(kind)
        with suppress(ZeroDivisionError):
            async with manager as same:
                assert same is manager
                await load(manager, device="auto")
                raise ZeroDivisionError
        assert manager.is_closed
        nothing_on(manager.devices)


async def test_closing_ends_a_running_load_and_run():
    for turns in range(0, 60, 3):
        manager = manager_on("webgpu")
        model = await load(manager, device="auto")
        work = [asyncio.create_task(load(manager, device="auto")), asyncio.create_task(model(**IDS))]
        for _ in range(turns):
            await asyncio.sleep(0)
        manager.close()
        for done in await asyncio.gather(*work, return_exceptions=True):
            assert isinstance(done, (ManagerClosed, TensorReleased, tc.Model, dict)), repr(done)
            if isinstance(done, tc.Model):
                with pytest.raises(ManagerClosed):
                    await done(**IDS)
        del work, done, model
        await asyncio.sleep(0)
        gc.collect()
        nothing_on(manager.devices)


async def test_a_load_whose_tensors_were_released_does_not_affect_the_next():
    for turns in range(0, 150, 5):
        manager = manager_on("webgpu")
        before = asyncio.create_task(tc.from_pretrained(str(TINY / "tiny-bert"), manager=manager))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = before.done()
        for name in list(manager.models):
            manager.release_model_tensors(name)
        after = await tc.from_pretrained(str(TINY / "tiny-bert"), manager=manager)
        (ended,) = await asyncio.gather(before, return_exceptions=True)
        if not was_done:
            assert isinstance(ended, TensorReleased) or getattr(ended, "name", "") != after.name, repr(ended)
        assert all([(await each.read()).size for each in (await after(**IDS)).values()])
        manager.close()


async def test_closing_one_of_two_managers_keeps_the_other_working():
    small = manager_on("cpu", limit=4 * KB)
    large = tc.TensorSharingManager(1, small.devices)
    kept = large.register_shared_tensor("x", (512,), "cpu", "m", data=np.ones(512, np.float32))
    with pytest.raises(MemoryBudgetError):
        large.register_shared_tensor("y", (4096,), "cpu", "m")
    small.close()
    large.register_shared_tensor("y", (4096,), "cpu", "m")
    assert (await kept.read()).sum() == 512
    large.close()
    nothing_on(large.devices)


async def test_dropping_a_manager_removes_its_limit_at_once():
    """Includes loaded models and registered tensors, and a traceback of a failed load that is still referenced."""

    async def loaded(given):
        model = await load(given.pop(), device="auto")
        await model(**IDS)
        model.manager.analyze_sharing_opportunities()

    async def unloaded(given):
        model = await load(given.pop(), device="auto")
        await model(**IDS)
        model.unload()

    async def failed(given):
        with pytest.raises(TensorCommonsError) as caught:
            await tc.from_pretrained({"config.json": b'{"model_type": "abacus"}'}, manager=given.pop())
        return caught.value

    async def failed_late(given):
        with pytest.raises(TensorCommonsError) as caught:
            await tc.pipeline("fill-mask", {"config.json": b'{"model_type": "bert"}'}, manager=given.pop())
        return caught.value

    async def failed_in_the_middle(given):
        files = source("tiny-bert")
        files["model.safetensors"] = files["model.safetensors"][:-4000]
        with pytest.raises(TensorCommonsError) as caught:
            await tc.from_pretrained(files, manager=given.pop())
        return caught.value

    async def refused(given):
        with pytest.raises(MemoryBudgetError) as caught:
            await tc.from_pretrained(source("tiny-bert"), manager=given.pop())
        return caught.value

    async def registered(given):
        manager = given.pop()
        tensor = manager.register_shared_tensor("x", (8,), "cpu", "m", data=np.ones(8, np.float32))
        tensor.create_view("v", (0,), (4,))
        return tensor

    for what in (loaded, unloaded, failed, failed_late, failed_in_the_middle, refused, registered):
        given = [manager_on("cpu", limit=KB if what is refused else MB)]
        device = given[0].devices.opened[0]
        del device.manager  # type: ignore[attr-defined]
        with no_garbage_collection():
            kept = await what(given)
            await asyncio.sleep(0)  # the event loop refers to its last callback for one turn
            assert limit_of(device) == UNLIMITED, what.__name__
        if what is registered:
            assert kept is not None and (await kept.read()).sum() == 8, "its bytes must live as long as the tensor"
            with pytest.raises(ManagerClosed, match="is gone"):
                kept.pin()
        del kept


async def test_a_model_may_be_unloaded_while_it_waits_to_move():
    for turns in range(12):
        manager = manager_on("webgpu", "cpu")
        first, second = await load(manager), await load(manager)
        moves = [asyncio.create_task(first.to("cpu")), asyncio.create_task(second.to("cpu"))]
        for _ in range(turns):
            await asyncio.sleep(0)
        second.unload()
        again = await load(manager) if turns % 2 else None  # another model of its name
        moved = await asyncio.gather(*moves, return_exceptions=True)
        assert moved[0] is first and (moved[1] is second or isinstance(moved[1], TensorReleased)), moved
        if again is not None:
            assert await again(**IDS)
        manager.close()
        del first, second, again, moved, moves
        gc.collect()
        nothing_on(manager.devices)


def test_devices_must_come_from_open_devices():
    for wrong in ("webgpu", tc.Device(Backend()), [tc.Device(Backend())]):
        with pytest.raises(TensorCommonsError, match="open_devices"):
            tc.TensorSharingManager(5, wrong)  # type: ignore[arg-type]


async def test_closing_drops_subscribers_and_unloading_drops_weights() -> None:
    manager = manager_on("cpu")
    model = await load(manager, device="cpu")
    storages = [weakref.ref(entry.storage) for entry in manager.registry]
    reports: list[Any] = []

    def callback(report: Any) -> None:
        reports.append(report)

    manager.subscribe(callback)
    subscriber = weakref.ref(callback)
    del callback
    model.unload()
    gc.collect()
    assert storages and not any(storage() for storage in storages)
    manager.close()
    gc.collect()
    assert reports and subscriber() is None
