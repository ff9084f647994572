"""Guarantees of the sharing API under concurrent operations, and for bytes with several owners."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device, Devices
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.errors import DeviceMemoryError, MemoryBudgetError, NotAConsumer, TensorCommonsError
from tests.sharing.devices import MB, Backend, backends, budget, check, empty, manager_on, some
from tests.sharing.test_faults import source

KB = 1024


def kb(seed: int) -> np.ndarray:
    return some((256,), seed=seed)


@pytest.fixture
def manager():
    manager = manager_on("cpu", "webgpu")
    yield manager
    check(manager)
    empty(manager)


# --- grants ---


async def test_a_tensor_waits_for_its_listed_consumers(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", ["b", "c"], data=kb(0))
    x.release("a")
    assert not x.can_be_freed() and manager.optimize_memory_usage()["freed_tensors"] == [], (
        "b and c have not acquired it yet"
    )
    manager.get_shared_tensor("x", "b")
    x.release("b")
    assert not x.can_be_freed(), "c has not acquired it yet"
    manager.release_model_tensors("c")
    assert x.can_be_freed() and manager.optimize_memory_usage()["freed_tensors"] == ["x"]


async def test_a_tensor_waits_for_consumers_that_were_granted_later(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", data=kb(0))
    manager.share_tensor_between_models("x", "a", ["b"])
    x.release("a")
    assert manager.optimize_memory_usage()["freed_tensors_count"] == 0
    x.acquire("b")
    manager.share_tensor_between_models("x", "b", ["a", "b"])  # both have acquired it: granting again has no effect
    x.release("b")
    assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]


async def test_a_view_waits_for_its_granted_consumers(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", ["whole"], data=kb(0))
    v = manager.create_tensor_view("x", "v", (0,), (8,), "b")
    manager.share_tensor_between_models("v", "b", ["c"])
    for model in "ab":
        manager.release_model_tensors(model)
    assert not x.can_be_freed() and v.acquire("c") and v.release("c")
    assert not x.can_be_freed() and v.acquire("whole") and v.release("whole"), (
        "a consumer of the whole may acquire a part"
    )
    assert x.can_be_freed()


async def test_only_granted_consumers_acquire_a_view(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", data=kb(0))
    v = x.create_view("v", (0,), (8,))
    before = manager.report()
    for model in ("b", ""):
        with pytest.raises(NotAConsumer, match="share_tensor_between_models"):
            v.acquire(model)
    assert manager.report() == before and v.consumer_models == set() and v.holders == []
    assert v.acquire("a"), "the producer of the whole may acquire a view"


# --- pins ---


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_pinning_restores_the_bytes_where_there_is_room(kind):
    manager = manager_on(kind, limit=3 * KB)
    tensors = [manager.register_shared_tensor(f"t{i}", (256,), kind, "m", data=kb(i)) for i in range(2)]
    assert await tensors[0].entry.storage.evict()
    tensors[0].pin()
    assert tensors[0].entry.storage.is_resident and manager.get_stats()["restores"] == 1
    check(manager)
    await manager.make_room(2 * KB)
    assert tensors[0].entry.storage.is_resident and not tensors[1].entry.storage.is_resident
    assert (await tensors[0].read()).tobytes() == kb(0).tobytes()
    empty(manager)


async def test_a_pin_that_would_have_to_wait_takes_effect_at_the_next_use():
    manager = manager_on("webgpu", limit=2 * KB)
    first, second = (manager.register_shared_tensor(n, (256,), "webgpu", "m", data=kb(i)) for i, n in enumerate("ab"))
    assert await first.entry.storage.evict()
    third = manager.register_shared_tensor("c", (256,), "webgpu", "m", data=kb(2))
    first.pin()  # another has to be read back first
    assert first.is_pinned and not first.entry.storage.is_resident
    assert (await first.read()).tobytes() == kb(0).tobytes()
    for tensor, seed in ((second, 1), (third, 2)):
        assert (await tensor.read()).tobytes() == kb(seed).tobytes()
        assert first.entry.storage.is_resident
    empty(manager)


async def test_a_pinned_tensor_without_device_memory_stays_in_host_memory(monkeypatch):
    manager = manager_on("webgpu", limit=2 * KB)
    tensor = manager.register_shared_tensor("a", (256,), "webgpu", "m", data=kb(0))
    assert await tensor.entry.storage.evict()

    async def refuse(backend, handles):
        raise DeviceMemoryError("webgpu", "a buffer", "the test refuses it")

    monkeypatch.setattr(Backend, "check", refuse)
    tensor.pin()
    await asyncio.sleep(0)
    assert tensor.entry.storage.state == "offloaded" and tensor.is_pinned
    monkeypatch.undo()
    assert (await tensor.read()).tobytes() == kb(0).tobytes() and tensor.entry.storage.is_resident
    empty(manager)


async def test_pins_that_do_not_fit_together_are_refused():
    manager = manager_on("webgpu", limit=2 * KB)
    tensors = [manager.register_shared_tensor(n, (256,), "webgpu", "m", data=kb(i)) for i, n in enumerate("ab")]
    for tensor in tensors:
        assert await tensor.entry.storage.evict()
    tensors.append(manager.register_shared_tensor("c", (256,), "webgpu", "m", data=kb(2)))
    for tensor in tensors[:2]:
        tensor.pin()
    with pytest.raises(MemoryBudgetError, match="unpin"):
        tensors[2].pin()
    assert not tensors[2].is_pinned
    for seed, tensor in enumerate(tensors[:2]):
        assert (await tensor.read()).tobytes() == kb(seed).tobytes()
    empty(manager)


# --- reads, writes and runs at once ---


async def test_a_read_in_pieces_and_a_write_take_turns():
    """With little free memory, a read takes many pieces; a write in between would change some of them."""
    manager = manager_on("webgpu", limit=8 * KB)
    old, new = some((1900,)), some((1900,), seed=1)
    x = manager.register_shared_tensor("x", (1900,), "webgpu", "m", data=old)
    for steps in range(12):
        reading = asyncio.create_task(x.read())
        for _ in range(steps):
            await asyncio.sleep(0)
        writing = asyncio.create_task(x.write(new))
        again = asyncio.create_task(x.read())
        assert (await reading).tobytes() in (old.tobytes(), new.tobytes()), f"torn after {steps} steps"
        await writing
        assert (await again).tobytes() == new.tobytes(), "a read after the write must return the new values"
        old, new = new, old
    check(manager)
    empty(manager)


async def test_a_write_of_many_rows_is_seen_whole():
    manager = manager_on("webgpu")
    x = manager.register_shared_tensor("x", (16, 5), "webgpu", dtype="uint8")
    v = x.create_view("v", (0, 1), (16, 3))
    for value in range(1, 9):
        writing = asyncio.create_task(v.write(np.full((16, 3), value, np.uint8)))
        for _ in range(value * 2):
            await asyncio.sleep(0)
        assert len(set((await v.read()).ravel().tolist())) == 1
        await writing
    empty(manager)


async def test_a_write_waits_for_a_run_that_reads_the_tensor():
    manager = manager_on("cpu")
    x = manager.register_shared_tensor("x", (256,), data=np.zeros(256, np.float32))
    total = x.tensor
    for _ in range(12):
        total = total + x.tensor
    running = asyncio.create_task(total.read())
    for _ in range(6):
        await asyncio.sleep(0)
    await x.write(np.ones(256, np.float32))
    assert set((await running).tolist()) == {0}
    del total, running
    await asyncio.sleep(0)
    empty(manager)


async def test_a_load_waits_for_the_memory_of_a_run():
    manager = manager_on("cpu", limit=10 * KB)
    device = manager.devices.choose("cpu")
    x = manager.register_shared_tensor("x", (256,), "cpu", "m", data=np.ones(256, np.float32))
    big = tc.ops.concat([x.tensor, x.tensor, x.tensor, x.tensor])
    running = asyncio.create_task(tc.sum(tc.matmul(tc.reshape(big, (32, 32)), tc.reshape(big, (32, 32)))).read())
    for _ in range(50):
        await asyncio.sleep(0)
        if device.busy_bytes:
            break
    assert device.busy_bytes > 4 * KB and not device.idle_scratch_bytes
    room = asyncio.create_task(manager.make_room(6 * KB))
    await asyncio.sleep(0)
    assert not room.done()
    await asyncio.gather(running, room)
    assert device.memory()["scratch"] == 0
    with pytest.raises(MemoryBudgetError):
        await manager.make_room(11 * KB)
    del big, running
    await asyncio.sleep(0)
    empty(manager)


# --- two managers ---


async def test_two_managers_on_the_same_devices_share_one_budget():
    manager = manager_on("webgpu", limit=4 * KB)
    other = tc.TensorSharingManager(budget(64 * KB, "webgpu"), manager.devices)
    assert other.residency is manager.residency and other.limit_bytes == manager.limit_bytes, (
        "the smallest limit must apply"
    )
    mine = [manager.register_shared_tensor(f"t{i}", (256,), "webgpu", "m", data=kb(i)) for i in range(2)]
    await other.make_room(3 * KB)
    assert [t.entry.storage.state for t in mine] == ["offloaded", "resident"], (
        "the request of the other manager must evict it"
    )
    theirs = [other.register_shared_tensor(f"t{i}", (256,), "webgpu", "m", data=kb(i)) for i in range(3)]
    assert theirs[0].entry is not mine[0].entry and other.registry is not manager.registry
    for seed, tensor in [*enumerate(mine), *enumerate(theirs)]:
        assert (await tensor.read()).tobytes() == kb(seed).tobytes()
        assert manager.residency.used <= manager.limit_bytes
    assert manager.report().device_bytes == other.report().device_bytes
    await other.set_memory_limit(budget(2 * KB, "webgpu"))
    assert manager.limit_bytes == int(budget(2 * KB, "webgpu") * MB) >= manager.residency.used
    with pytest.raises(MemoryBudgetError) as caught:
        tc.TensorSharingManager(1e-4, manager.devices)
    assert caught.value.limit < 1e-4 * MB
    assert manager.limit_bytes == int(budget(2 * KB, "webgpu") * MB), "a refused manager may not leave its limit"
    await other.set_memory_limit(1)
    assert manager.limit_bytes == int(budget(4 * KB, "webgpu") * MB)
    for each in (other, manager):
        each.release_model_tensors("m")
        each.optimize_memory_usage()
    assert manager.devices.opened[0].total == 0


def test_managers_share_all_devices_or_none():
    first, second = Device(CpuBackend()), Device(CpuBackend())
    kept = tc.TensorSharingManager(1, Devices([first], {}))
    with pytest.raises(TensorCommonsError, match="another manager"):
        tc.TensorSharingManager(1, Devices([first, second], {}))
    assert second.budget is not first.budget and kept.limit_bytes == MB


# --- copies ---


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_a_copy_is_brought_up_to_date(manager, kind):
    x = manager.register_shared_tensor("x", (256,), "webgpu", "a", data=kb(0))
    copy = await x.copy_to(kind)
    copy.acquire("a")
    assert copy.name == f"x_{kind}" and await x.copy_to(kind) is copy
    await x.write(kb(1))
    assert (await copy.read()).tobytes() == kb(0).tobytes(), "a copy has its own bytes"
    assert await x.copy_to(kind) is copy and (await copy.read()).tobytes() == kb(1).tobytes()
    await x.create_view("v", (3,), (2,)).write([1, 2])
    values = await x.read()
    assert (await (await x.copy_to(kind)).read()).tobytes() == values.tobytes()


async def test_a_written_copy_is_not_overwritten(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", data=kb(0))
    copy = await x.copy_to("webgpu")
    await copy.create_view("v", (0,), (1,)).write([5])
    mine = await copy.read()
    with pytest.raises(TensorCommonsError, match="another name"):
        await x.copy_to("webgpu")
    assert (await copy.read()).tobytes() == mine.tobytes()
    second = await x.copy_to("webgpu", name="fresh")
    assert second.name == "fresh" and (await second.read()).tobytes() == kb(0).tobytes()


async def test_a_copy_does_not_take_the_name_of_another_tensor(manager):
    x = manager.register_shared_tensor("x", (256,), "cpu", "a", data=kb(0))
    manager.register_shared_tensor("x_webgpu", (256,), "webgpu", "b", data=kb(1))
    with pytest.raises(TensorCommonsError, match="the bytes"):
        await x.copy_to("webgpu")
    assert (await manager.tensors["x_webgpu"].read()).tobytes() == kb(1).tobytes()
    assert await x.copy_to("cpu", name="x") is x


# --- a Tensor given as data ---


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
@pytest.mark.parametrize("size", [8, 5000])
async def test_a_tensor_given_as_data_keeps_its_values(manager, kind, size):
    values = np.arange(size, dtype=np.float32)
    given = tc.asarray(values, device=manager.devices.choose(kind))
    part = given[2:4]
    x = manager.register_shared_tensor("x", (size,), kind, "m", data=given)
    uploads = backends(manager)[("cpu", "webgpu").index(kind)].uploads
    await x.create_view("v", (0,), (3,)).write([7, 7, 7])
    assert (await given.read()).tobytes() == values.tobytes() and (await part.read()).tolist() == [2, 3]
    assert (await x.read())[:4].tolist() == [7, 7, 7, 3]
    del given, part
    assert manager.devices.choose(kind).memory()["activations"] == 0
    await x.write(values)
    assert backends(manager)[("cpu", "webgpu").index(kind)].uploads == uploads + 2, (
        "without another holder it must be written in place"
    )


async def test_freeing_keeps_the_bytes_of_the_tensor_given_as_data(manager):
    device = manager.devices.webgpu
    given = tc.asarray(np.arange(5000, dtype=np.float32), device=device)
    x = manager.register_shared_tensor("x", (5000,), "webgpu", data=given)
    assert await x.entry.storage.evict()
    assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]
    assert (await given.read())[-1] == 4999
    assert (device.memory()["weights"], device.memory()["activations"]) == (0, 20000)
    del given, x
    await asyncio.sleep(0)  # the event loop refers to the last awaited future for one turn
    assert device.total == 0


# --- cost of reports ---


def test_a_change_costs_the_same_at_any_number_of_tensors(monkeypatch):
    """Count the entries that are visited: a report after a change of one tensor visits that one."""
    for count in (10, 300):
        manager = manager_on("cpu")
        for i in range(count):
            manager.register_shared_tensor(f"t{i}", (4,), "cpu", "m", ["n"], data=np.full(4, i, np.float32))
        told: list[tc.MemoryReport] = []
        manager.subscribe(told.append)
        manager.tensors["t3"].acquire("n")
        before = told[-1].tensors
        with monkeypatch.context() as patched:
            settled = count_changes(manager, patched)
            manager.tensors["t3"].release("n")
        assert settled == [1]
        same = sum(a is b for a, b in zip(before, told[-1].tensors, strict=True))
        assert same == count - 1, "unchanged rows must be the same objects"
        check(manager)
        empty(manager, ["n"])


def count_changes(manager, patched):
    settled: list[int] = []
    changes = manager.registry.changes

    def counted():
        found = changes()
        settled.append(len(found))
        return found

    patched.setattr(manager.registry, "changes", counted)
    return settled


def test_names_and_contents_are_counted_separately(manager):
    for name in "abc":
        manager.register_shared_tensor(name, (256,), "cpu", "m", data=kb(0))
    stats = manager.get_stats()
    assert (stats["total_tensors"], stats["unique_contents"]) == (3, 1)


# --- merged runs ---


async def test_equal_bytes_of_another_shape_are_another_input(manager):
    model = await tc.from_pretrained(source("tiny-bert"), manager=manager, device="cpu")
    ids = np.arange(32, dtype=np.int32)
    requests: list[tuple[tc.Model, dict[str, Any]]] = [
        (model, {"input_ids": ids.reshape(shape)}) for shape in ((1, 32), (2, 16))
    ]
    for (_, inputs), out in zip(requests, await manager.run_together(requests), strict=True):
        alone = await model(**inputs)
        assert out["last_hidden_state"].shape[:2] == inputs["input_ids"].shape
        assert (await out["pooler_output"].read()).tobytes() == (await alone["pooler_output"].read()).tobytes()
    model.unload()
