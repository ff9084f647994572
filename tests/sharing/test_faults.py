"""Failures and cancellations at every point, which must leave bytes, holders, names and buffers unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.errors import TensorCommonsError
from tests.sharing.devices import Fault, backends, budget, cancelled, check, empty, manager_on, some

KB = 1024
TINY = Path(__file__).parents[1] / "goldens"
IDS: dict[str, Any] = {"input_ids": np.array([[2, 17, 31, 5, 3]])}


def source(name="tiny-bert"):
    return {path.name: path.read_bytes() for path in (TINY / name).iterdir()}


def contents(manager):
    """Return names, bytes, holders, grants, views and pins, which may not change. The location of the bytes may."""
    found = {}
    for name, tensor in manager.tensors.items():
        storage = tensor.entry.storage
        raw = (
            storage.device.backend.arrays[storage.handle].tobytes()
            if storage.host_copy is None
            else b"".join(map(bytes, storage.host_copy))
        )
        found[name] = (
            raw,
            tuple(tensor.holders),
            frozenset(tensor.consumer_models),
            tuple(tensor.views),
            tensor.is_pinned,
        )
    return (
        found,
        set(manager.models),
        {k: v for k, v in manager.get_model_memory_usage().items() if k in manager.models},
    )


def scene(kind):
    """Register twins, one with a view, and other tensors under a limit that requires an eviction for each new one."""
    manager = manager_on(kind, limit=4 * KB)
    data = [some((256,), seed=i) for i in range(4)]
    a = manager.register_shared_tensor("a", (256,), kind, "m", ["n"], data=data[0])
    manager.register_shared_tensor("twin", (256,), kind, "n", data=data[0])
    manager.register_shared_tensor("b", (256,), kind, "m", data=data[1])
    manager.register_shared_tensor("c", (256,), kind, data=data[2])
    manager.register_shared_tensor("d", (256,), kind, data=data[3])
    a.create_view("v", (3,), (5,), "o")
    return manager


async def register(manager, kind):
    manager.register_shared_tensor("new", (256,), kind, "m", ["n"], data=some((256,), seed=9))


async def register_after_room(manager, kind):
    await manager.make_room(2 * KB)
    manager.register_shared_tensor("new", (512,), kind, "m", data=some((512,), seed=9))


async def write(manager, kind):
    await manager.tensors["b"].write(some((256,), seed=8))


async def write_a_twin(manager, kind):
    await manager.tensors["a"].write(some((256,), seed=8))


async def write_a_twins_view(manager, kind):
    await manager.tensors["a"].views["v"].write(some((5,), seed=8))


async def write_what_left(manager, kind):
    assert await manager.tensors["b"].entry.storage.evict()
    await manager.tensors["b"].write(some((256,), seed=8))


async def copy(manager, kind):
    await manager.tensors["b"].copy_to(kind)


async def make_room(manager, kind):
    await manager.make_room(3 * KB)


async def lower_the_limit(manager, kind):
    await manager.set_memory_limit(budget(2 * KB, kind))


async def restore(manager, kind):
    await manager.make_room(3 * KB)
    for tensor in list(manager.tensors.values()):
        await tensor.read()


async def compute(manager, kind):
    await manager.make_room(2 * KB)
    total = manager.tensors["a"].tensor + manager.tensors["a"].tensor
    await total.read()


OPERATIONS = [
    register,
    register_after_room,
    write,
    write_a_twin,
    write_a_twins_view,
    write_what_left,
    copy,
    make_room,
    lower_the_limit,
    restore,
    compute,
]
CHANGES = {"register", "register_after_room", "write", "write_a_twin", "write_a_twins_view", "write_what_left", "copy"}


def on(kind, operation):
    return not (operation is compute and kind != "cpu") and not (operation is register and kind != "cpu")


PAIRS = [(kind, operation) for kind in ("cpu", "webgpu") for operation in OPERATIONS if on(kind, operation)]


@pytest.mark.parametrize(("kind", "operation"), PAIRS)
async def test_a_failure_at_every_point(kind, operation):
    for point in range(1, 200):
        manager = scene(kind)
        before, limit = contents(manager), manager.limit_bytes
        backends(manager)[0].fault_in = point
        finished = False
        try:
            await operation(manager, kind)
            finished = True
        except Fault:
            assert contents(manager) == before and manager.limit_bytes == limit, f"at call {point}"
        finally:
            backends(manager)[0].fault_in = 0
        await asyncio.sleep(0)
        check(manager)
        after, _, _ = contents(manager)
        for name, (raw, *_) in after.items():
            assert (await manager.tensors[name].read()).tobytes() == raw
        empty(manager)
        if finished:
            assert (after != before[0]) == (operation.__name__ in CHANGES)
            return
    raise AssertionError("the operation never succeeded")


@pytest.mark.parametrize(("kind", "operation"), [pair for pair in PAIRS if pair[0] == "webgpu"])
async def test_cancelling_at_every_wait(kind, operation):
    for wait in range(1, 200):
        manager = scene(kind)
        before = contents(manager)
        finished, _ = await cancelled(partial(operation, manager, kind), at=wait)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        check(manager)
        if not finished:
            assert contents(manager) == before, f"at wait {wait}"
        for name, (raw, *_) in contents(manager)[0].items():
            assert (await manager.tensors[name].read()).tobytes() == raw
        empty(manager)
        if finished:
            return
    raise AssertionError("the operation never ended")


# --- models ---


async def load(manager, name="tiny-bert"):
    return await tc.from_pretrained(source(name), manager=manager, device="cpu", tokenizer=False)


async def answer(model):
    out = await model(**IDS)
    return await out["last_hidden_state"].read()


async def test_a_load_that_fails_or_is_cancelled_at_any_point_leaves_nothing():
    for point in range(1, 500, 3):
        manager = manager_on("cpu")
        manager.register_shared_tensor("kept", (4,), "cpu", "m", data=some((4,)))
        before = contents(manager)
        backends(manager)[0].fault_in = point
        try:
            await load(manager)
        except Fault:
            gc.collect()
            assert contents(manager) == before
            check(manager)
            empty(manager)
        else:
            backends(manager)[0].fault_in = 0
            assert point > 30
            empty(manager)
            break
    for wait in range(1, 2000, 5):
        manager = manager_on("cpu")
        finished, _ = await cancelled(partial(load, manager), at=wait)
        check(manager)
        if finished:
            empty(manager)
            break
        gc.collect()
        assert not manager.models and not len(manager.registry) and manager.residency.used == 0
    assert finished


async def test_a_run_that_fails_at_any_point_can_be_repeated():
    manager = manager_on("cpu")
    model = await load(manager)
    wanted = await answer(model)
    manager.activations.clear()
    gc.collect()
    constants = manager.report().by_category["activations"]
    for point in range(1, 300, 2):
        for entry in manager.registry:
            assert not entry.storage.is_resident or await entry.storage.evict()
        backends(manager)[0].fault_in = point
        found = None
        with contextlib.suppress(Fault):
            found = await answer(model)
        backends(manager)[0].fault_in = 0
        if found is not None:
            assert np.array_equal(found, wanted) and point > 40
            break
        gc.collect()
        report = manager.report()  # after a failed read, the outputs of the run exist
        held = report.by_category["activations"] - report.activation_cache_bytes
        assert held == constants, "an output of a failed run was kept"
        assert np.array_equal(await answer(model), wanted)
        manager.activations.clear()
    model.unload()
    gc.collect()
    empty(manager)


async def test_two_simultaneous_loads_upload_once():
    manager = manager_on("cpu")
    one = await load(manager)
    uploads, used = backends(manager)[0].uploads, manager.residency.used
    one.unload()
    start = backends(manager)[0].uploads
    one, two = await asyncio.gather(load(manager), load(manager))
    assert backends(manager)[0].uploads - start == uploads and manager.residency.used == used
    assert one.name != two.name
    assert np.array_equal(await answer(one), await answer(two))
    one.unload()
    assert (await answer(two)).size
    two.unload()
    empty(manager)


async def test_unloading_during_a_load():
    manager = manager_on("cpu")
    one = await load(manager)
    wanted = await answer(one)
    loading = asyncio.create_task(load(manager))
    for _ in range(3):
        await asyncio.sleep(0)
    one.unload()
    two = await loading
    assert np.array_equal(await answer(two), wanted)
    check(manager, others=1)

    def unload(event):
        for name in set(manager.models) - {two.name}:
            manager.release_model_tensors(name)

    with pytest.raises(TensorCommonsError, match="released while it was loading"):
        await tc.from_pretrained(source(), manager=manager, device="cpu", tokenizer=False, progress_callback=unload)
    assert np.array_equal(await answer(two), wanted)
    two.unload()
    empty(manager)


async def test_models_under_memory_pressure_give_the_same_bits():
    free = manager_on("cpu")
    wanted = [await answer(await load(free, name)) for name in ("tiny-bert",)] * 2
    worth = free.report().unique_weight_bytes
    manager = manager_on("cpu", limit=int(worth * 1.4))
    one = await load(manager)
    big = manager.register_shared_tensor("big", (worth // 4,), "cpu", "other", data=some((worth // 4,)))
    assert big.entry.storage.is_resident
    for _ in range(2):
        assert np.array_equal(await answer(one), wanted[0])
        assert (await big.read()).tobytes() == some((worth // 4,)).tobytes()
    assert manager.get_stats()["evictions"] > 10 and manager.report().peak_bytes <= manager.limit_bytes
    one.unload()
    for name in list(free.models):
        free.release_model_tensors(name)
    empty(manager)
