"""The memory limit: order of evictions, restores, and refusals."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.bridge.byte_buffer import ByteBuffer
from tensorcommons.errors import DeviceLost, InvalidWeights, MemoryBudgetError, TensorCommonsError
from tensorcommons.sharing.provenance import Origin
from tests.sharing.devices import DTYPES, MB, backends, budget, check, empty, manager_on, some

KB = 1024


def kb(seed: int) -> np.ndarray:
    return some((256,), seed=seed)


def fill(manager, count, kind="webgpu", **more):
    """Register ``count`` tensors of 1 KB, the first the least recently used."""
    return [manager.register_shared_tensor(f"t{i}", (256,), kind, f"m{i}", data=kb(i), **more) for i in range(count)]


def states(tensors):
    return "".join({"resident": "R", "offloaded": "o", "dropped": "d"}[t.entry.storage.state] for t in tensors)


@pytest.fixture(params=["cpu", "webgpu"])
def kind(request):
    return request.param


async def make(kind, limit, count):
    manager = manager_on(kind, limit=limit)
    return manager, fill(manager, count, kind)


# --- order ---


async def test_unheld_tensors_are_evicted_first_then_the_least_recently_used(kind):
    manager, tensors = await make(kind, 4 * KB, 4)
    tensors[2].release("m2")
    await tensors[0].read()
    for number, expected in enumerate(["RRoR", "RooR", "Rooo"], 1):
        await manager.make_room(number * KB)
        assert states(tensors) == expected
    check(manager)
    assert manager.get_stats()["evictions"] == 3 and manager.report().evicted_bytes == 3 * KB
    for i, tensor in enumerate(tensors):
        assert (await tensor.read()).tobytes() == kb(i).tobytes()
    assert manager.get_stats()["restores"] == 3 and states(tensors) == "RRRR"
    empty(manager)


async def test_idle_arenas_are_freed_before_tensors():
    manager = manager_on("cpu", limit=4 * KB)
    (x,) = fill(manager, 1, "cpu")
    device = manager.devices.choose("cpu")
    device.arena(3 * KB)
    await manager.make_room(2 * KB)
    assert device.memory()["scratch"] == 0 and x.entry.storage.is_resident
    empty(manager)


async def test_pinned_tensors_and_those_in_use_are_never_evicted(kind):
    from tensorcommons.sharing.lock import using

    manager, tensors = await make(kind, 4 * KB, 4)
    tensors[0].pin()
    done = asyncio.Event()

    async def use():
        async with using([tensors[1].entry.storage]):
            await done.wait()

    user = asyncio.create_task(use())
    await asyncio.sleep(0)
    await manager.make_room(2 * KB)
    assert states(tensors) == "RRoo"
    with pytest.raises(MemoryBudgetError):
        await manager.make_room(4 * KB)
    waiting = asyncio.create_task(manager.make_room(3 * KB))
    for _ in range(5):
        await asyncio.sleep(0)
    assert states(tensors) == "RRoo" and not waiting.done(), "it may be evicted once it is not in use"
    done.set()
    await asyncio.gather(user, waiting)
    assert states(tensors) == "Rooo"
    await manager.make_room(3 * KB)
    assert states(tensors) == "Rooo"
    tensors[0].unpin()
    empty(manager)


async def test_a_twins_pin_keeps_both(kind):
    manager, tensors = await make(kind, 4 * KB, 1)
    twin = manager.register_shared_tensor("twin", (256,), kind, data=kb(0))
    twin.pin()
    with pytest.raises(MemoryBudgetError):
        await manager.make_room(4 * KB)
    assert manager.optimize_memory_usage()["freed_tensors_count"] == 0
    twin.unpin()
    empty(manager)
    assert tensors


# --- restoring ---


@pytest.mark.parametrize("dtype", DTYPES)
async def test_every_dtype_is_restored_bit_for_bit(kind, dtype):
    manager = manager_on(kind)
    data = some((7, 13), dtype)
    x = manager.register_shared_tensor("x", (7, 13), kind, "m", dtype=dtype, data=data)
    view = x.create_view("v", (1, 1), (3, 5))
    for look, wanted in ((x, data), (view, data[1:4, 1:6])):
        assert await x.entry.storage.evict() and manager.report().by_category["weights"] == 0
        assert manager.report().tensors[0].state == "offloaded"
        check(manager)
        assert (await look.read()).tobytes() == wanted.tobytes()
    assert await x.entry.storage.evict()
    await view.write(some((3, 5), dtype, 2))
    changed = data.copy()
    changed[1:4, 1:6] = some((3, 5), dtype, 2)
    assert await x.entry.storage.evict()
    assert (await x.read()).tobytes() == changed.tobytes()
    empty(manager)


async def test_an_op_restores_its_operands(kind):
    manager = manager_on("cpu", limit=5 * KB)
    a, b, c = (manager.register_shared_tensor(n, (256,), data=np.full(256, i, np.float32)) for i, n in enumerate("abc"))
    for tensor in (a, b, c):
        assert await tensor.entry.storage.evict()
    total = a.tensor + b.tensor + c.tensor
    assert set((await total.read()).tolist()) == {3}
    del total
    check(manager)
    empty(manager)


async def test_an_origin_is_read_again_and_one_that_changed_is_refused():
    manager = manager_on("webgpu")
    x = manager.register_shared_tensor("x", (256,), "webgpu", data=kb(0))
    storage = x.entry.storage
    storage.origin = Origin.of_bytes(kb(0).tobytes())
    assert await storage.evict() and storage.state == "dropped"
    assert (await x.read()).tobytes() == kb(0).tobytes()
    storage.origin = Origin.of_bytes(b"short")
    assert await storage.evict()
    with pytest.raises(InvalidWeights, match="5 bytes"):
        await x.read()
    check(manager)
    empty(manager)


async def test_writing_a_tensor_removes_its_origin(kind):
    """A written weight must not be restored with the bytes of its file."""
    manager = manager_on(kind)
    x = manager.register_shared_tensor("x", (256,), kind, data=kb(0))
    x.entry.storage.origin = Origin.of_bytes(kb(0).tobytes())
    await x.write(kb(1))
    assert await x.entry.storage.evict()
    assert (await x.read()).tobytes() == kb(1).tobytes()
    small = tc.asarray(np.arange(4.0), device=manager.devices.choose(kind))  # keeps its bytes as origin
    y = manager.register_shared_tensor("y", (4,), kind, data=small)
    await y.create_view("v", (0,), (1,)).write([9])
    assert await y.entry.storage.evict()
    assert (await y.read()).tolist() == [9, 1, 2, 3]
    del small
    empty(manager)


async def test_a_restore_has_its_room_while_its_origin_is_read():
    manager = manager_on("webgpu", limit=2 * KB)
    a, b = fill(manager, 2)
    waiting = asyncio.Event()

    async def slow():
        data = kb(0).tobytes()
        yield ByteBuffer.of(data[:512])
        await waiting.wait()
        yield ByteBuffer.of(data[512:])

    a.entry.storage.origin = Origin(slow, True)
    assert await a.entry.storage.evict() and a.entry.storage.state == "dropped"
    reading = asyncio.create_task(a.read())
    await asyncio.sleep(0)
    assert a.entry.storage.is_restoring and manager.residency.used == 2 * KB
    again = asyncio.create_task(a.read())
    await manager.residency.make_room(KB)
    c = manager.register_shared_tensor("c", (256,), "webgpu", data=kb(7))
    assert a.entry.storage.is_restoring and b.entry.storage.state == "offloaded", (
        "a tensor that is being restored may not be evicted"
    )
    waiting.set()
    assert (await reading).tobytes() == (await again).tobytes() == kb(0).tobytes()
    assert manager.get_stats()["restores"] == 1
    for tensor, seed in ((a, 0), (b, 1), (c, 7)):
        assert (await tensor.read()).tobytes() == kb(seed).tobytes()
    check(manager)
    empty(manager)


# --- the limit ---


async def test_a_refusal_names_the_largest_holders_first_and_changes_nothing(kind):
    manager = manager_on(kind, limit=16 * KB)
    manager.register_shared_tensor("small", (256,), kind, "little", data=kb(0)).pin()
    manager.register_shared_tensor("large", (2048,), kind, "big", ["little"], data=some((2048,))).pin()
    manager.register_shared_tensor("nobody's", (512,), kind, data=some((512,))).pin()
    manager.get_shared_tensor("large", "little")
    before = manager.report()
    for refused in (
        lambda: manager.register_shared_tensor("x", (8192,), kind, "m"),
        lambda: manager.register_shared_tensor("y", (2048,), kind, "m", data=some((2048,), seed=3)),
        lambda: tc.asarray(np.ones(2048, np.float32), device=manager.devices.choose(kind)),
    ):
        with pytest.raises(MemoryBudgetError) as caught:
            refused()
        assert caught.value.holders[0] == ("little", 9 * KB) and caught.value.holders[1] == ("big", 8 * KB)
        assert caught.value.limit == manager.limit_bytes
        assert [size for _, size in caught.value.holders] == sorted((s for _, s in caught.value.holders), reverse=True)
    with pytest.raises(MemoryBudgetError):
        await manager.make_room(6 * KB)
    assert manager.report() == before and set(manager.tensors) == {"small", "large", "nobody's"}
    empty(manager)


async def test_registering_evicts_where_it_does_not_have_to_wait():
    manager = manager_on("cpu", limit=3 * KB)
    tensors = fill(manager, 9, "cpu")
    assert states(tensors) == "ooooooRRR" and manager.report().peak_bytes <= 3 * KB
    made = tc.asarray(kb(50), device=manager.devices.cpu)
    assert states(tensors) == "oooooooRR"
    check(manager, others=KB)
    del made
    empty(manager)


async def test_registering_on_a_gpu_is_an_error_where_it_would_have_to_wait():
    manager = manager_on("webgpu", limit=3 * KB)
    fill(manager, 3)
    before = manager.report()
    with pytest.raises(MemoryBudgetError):
        manager.register_shared_tensor("x", (256,), "webgpu", data=kb(9))
    assert dataclasses.replace(manager.report(), peak_bytes=0) == dataclasses.replace(before, peak_bytes=0)
    await manager.make_room(KB)
    manager.register_shared_tensor("x", (256,), "webgpu", data=kb(9))
    check(manager)
    empty(manager)


async def test_the_limit_can_be_changed(kind):
    manager, tensors = await make(kind, 8 * KB, 8)
    before = manager.limit_bytes
    await manager.set_memory_limit(budget(3 * KB, kind))
    assert states(tensors) == "oooooRRR" and manager.residency.used <= manager.limit_bytes
    for tensor in tensors[5:]:
        tensor.pin()
    with pytest.raises(MemoryBudgetError):
        await manager.set_memory_limit(budget(2 * KB, kind))
    assert manager.limit_bytes == int(budget(3 * KB, kind) * MB) and states(tensors) == "oooooRRR"
    await manager.set_memory_limit(before / MB)
    for i, tensor in enumerate(tensors):
        assert (await tensor.read()).tobytes() == kb(i).tobytes()
    assert states(tensors) == "RRRRRRRR"
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(TensorCommonsError):
            await manager.set_memory_limit(bad)
        with pytest.raises(TensorCommonsError):
            tc.TensorSharingManager(bad)
    empty(manager)


async def test_one_limit_for_all_devices():
    manager = manager_on("cpu", "webgpu", limit=400 * KB)
    size = (50 * KB,)
    a = manager.register_shared_tensor("a", size, "cpu", "m", data=some(size))
    b = manager.register_shared_tensor("b", size, "webgpu", "m", data=some(size, seed=1))
    copy = await a.copy_to("webgpu")
    assert states([a, b]) == "Ro", "200 KB each, so one must be evicted"
    assert manager.residency.used <= manager.limit_bytes and (await copy.read()).tobytes() == some(size).tobytes()
    check(manager)
    empty(manager)


async def test_a_large_tensor_is_evicted_in_pieces_through_the_reserve():
    manager = manager_on("webgpu", limit=600 * KB)
    data = some((150 * KB,))
    x = manager.register_shared_tensor("x", data.shape, "webgpu", data=data)
    assert manager.residency.limit - manager.residency.used == 64 * KB
    assert (await x.read()).tobytes() == data.tobytes()
    await manager.make_room(600 * KB)
    assert (await x.read()).tobytes() == data.tobytes()
    assert manager.report().peak_bytes <= manager.limit_bytes
    empty(manager)


# --- concurrency ---


async def test_two_calls_make_room_at_the_same_time(kind):
    manager, tensors = await make(kind, 6 * KB, 6)
    await asyncio.gather(manager.make_room(4 * KB), manager.make_room(3 * KB))
    check(manager)
    for i, tensor in enumerate(tensors):
        assert (await tensor.read()).tobytes() == kb(i).tobytes()
    empty(manager)


async def test_many_readers_of_more_than_the_limit(kind):
    manager, tensors = await make(kind, 12 * KB, 12)
    before = manager.limit_bytes
    await manager.set_memory_limit(budget(4 * KB, kind))
    for _ in range(3):
        for i, found in enumerate(await asyncio.gather(*(tensor.read() for tensor in tensors))):
            assert found.tobytes() == kb(i).tobytes()
    assert manager.report().peak_bytes <= before
    check(manager)
    empty(manager)


async def test_a_tensor_used_or_written_during_its_eviction_stays(kind):
    manager, (x, y) = await make(kind, 2 * KB, 2)
    room = asyncio.create_task(manager.make_room(KB))
    await asyncio.sleep(0)
    await x.write(kb(9))
    await room
    assert (await x.read()).tobytes() == kb(9).tobytes() and (await y.read()).tobytes() == kb(1).tobytes()
    check(manager)
    empty(manager)


async def test_a_tensor_released_during_its_eviction_is_freed():
    manager = manager_on("webgpu", limit=2 * KB)
    fill(manager, 2)
    room = asyncio.create_task(manager.make_room(KB))
    await asyncio.sleep(0)
    manager.release_model_tensors("m0")
    manager.optimize_memory_usage()
    await room
    check(manager)
    empty(manager)


async def test_a_tensor_can_be_pinned_while_it_is_restored(monkeypatch):
    manager, (a,) = await make("webgpu", 4 * KB, 1)
    assert await a.entry.storage.evict()
    arrived, checked = asyncio.Event(), asyncio.Event()

    async def check_later(handles):
        arrived.set()
        await checked.wait()

    monkeypatch.setattr(backends(manager)[0], "check", check_later)
    reading = asyncio.ensure_future(a.entry.storage.ensure())
    await arrived.wait()
    a.pin()
    checked.set()
    await reading
    assert (await a.read()).tobytes() == kb(0).tobytes()
    check(manager)
    a.unpin()
    empty(manager)


async def test_two_calls_that_wait_for_each_other_do_not_deadlock():
    """Each call uses a tensor that the other would have to evict: one is refused, and the other continues."""
    from tensorcommons.sharing.lock import using

    manager = manager_on("cpu", limit=4 * KB)
    a, b, c, d = fill(manager, 4, "cpu")
    for tensor in (c, d):
        assert await tensor.entry.storage.evict()

    async def need(mine, missing):
        storages = [mine.entry.storage, missing.entry.storage]
        async with using(storages):
            await asyncio.sleep(0)
            await manager.residency.ensure(storages, 2 * KB)

    found = await asyncio.wait_for(asyncio.gather(need(a, c), need(b, d), return_exceptions=True), 60)
    assert sum(isinstance(each, MemoryBudgetError) for each in found) == 1, found
    check(manager)
    empty(manager)


# --- a lost device ---


async def test_a_lost_device_is_a_mass_eviction():
    manager = manager_on("cpu", "webgpu")
    (gpu,) = backends(manager)[1:]
    kept = manager.register_shared_tensor("kept", (256,), "webgpu", "m", data=kb(0))
    gone = manager.register_shared_tensor("gone", (256,), "webgpu", "m", data=kb(1))
    away = manager.register_shared_tensor("away", (256,), "webgpu", "m", data=kb(2))
    here = manager.register_shared_tensor("here", (256,), "cpu", "m", data=kb(3))
    kept.entry.storage.origin = Origin.of_bytes(kb(0).tobytes())
    assert await away.entry.storage.evict()
    gpu.lose()
    for tensor, seed in ((kept, 0), (away, 2), (here, 3)):
        assert (await tensor.read()).tobytes() == kb(seed).tobytes()
    with pytest.raises(DeviceLost):
        await gone.read()
    check(manager)
    assert manager.get_tensor_memory_usage()["gone"]["state"] == "lost"
    empty(manager)


async def test_held_bytes_are_those_of_values_beside_the_given_storages():
    manager = manager_on("cpu")
    device = manager.devices.opened[0]
    weight = manager.register_shared_tensor("w", (256,), "cpu", "m", data=some((256,)))
    value = await tc.ones((512,), device=device).realize()
    storage = value.node.storage
    assert storage is not None and storage.category == "activations"
    held = manager.residency.held
    assert held() == held([weight.entry.storage]) == value.nbytes and held([storage, weight.entry.storage]) == 0
    del value, storage
    empty(manager)
