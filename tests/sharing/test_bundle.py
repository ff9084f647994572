"""Bundles of storages, which are locked as one and checked one by one after a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.bridge.byte_buffer import ByteBuffer
from tensorcommons.errors import TensorReleased
from tensorcommons.sharing.lock import Bundle, using
from tensorcommons.sharing.provenance import Origin
from tensorcommons.sharing.storage import Storage
from tests.sharing.devices import empty, manager_on


def _bundle(count: int = 3) -> tuple[Bundle, list[Storage]]:
    device = manager_on("cpu").devices.choose("cpu")
    data = np.arange(64, dtype=np.float32).view(np.uint8).data
    storages = [Storage.upload(device, data, "activations") for _ in range(count)]
    return Bundle(device, [*storages, None]), storages


async def test_a_storage_released_during_a_use_is_freed_at_its_end():
    bundle, (first, *_) = _bundle()
    bundle.settle()
    live = bundle.device.backend.live_buffers()
    async with using([], (), bundle):
        assert bundle.is_settled and first.in_use
        first.release()
        assert not bundle.is_settled and bundle.device.backend.live_buffers() == live
    assert not first.in_use and bundle.device.backend.live_buffers() == live - 1
    with pytest.raises(TensorReleased):
        async with using([], (), bundle):
            pass


async def test_a_write_and_uses_of_the_bundle_wait_for_each_other():
    bundle, (first, *_) = _bundle()
    bundle.settle()
    order = []

    async def use(name: str) -> None:
        async with using([], (), bundle):
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    async def write() -> None:
        async with using([first], [first]):
            order.append("write")
            await asyncio.sleep(0)
            order.append("write")

    await asyncio.gather(use("a"), write(), use("b"))
    assert order == ["a", "a", "write", "write", "b", "b"]
    bundle.settle()
    assert bundle.is_settled


async def test_a_use_of_the_bundle_is_a_use_of_each_storage():
    bundle, storages = _bundle()
    before = [storage.last_used for storage in storages]
    bundle.touch()
    assert all(storage.last_used > was for storage, was in zip(storages, before, strict=True))
    await bundle.device.budget.ensure([], 0, bundle)
    assert bundle.is_settled
    await storages[1].evict()
    assert not bundle.is_settled
    await bundle.device.budget.ensure([], 0, bundle)
    assert bundle.is_settled and storages[1].is_resident


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_releasing_a_weight_that_a_run_waits_for_ends_the_run(kind):
    """Release the last hold of an evicted weight while a run waits for its bytes.

    From its third run on a program locks its weights as one bundle, which once missed the release: the kernel
    read a freed handle.
    """
    manager = manager_on(kind)
    weight = manager.register_shared_tensor("w", (64,), kind, "m", data=np.ones(64, np.float32))
    double = tc.compile(lambda x: x * weight.tensor)
    x = tc.asarray(np.ones(64, np.float32), device=manager.devices.choose(kind))
    for _ in range(3):
        assert (await (await double(x)).read()).sum() == 64
    storage, asked, coming = weight.entry.storage, asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncGenerator[ByteBuffer]:
        asked.set()
        await coming.wait()
        yield ByteBuffer.of(np.ones(64, np.float32).tobytes())

    storage.origin = Origin(chunks, is_local=True)
    assert await storage.evict()
    running = asyncio.create_task(double(x))
    await asked.wait()
    manager.release_model_tensors("m")
    manager.optimize_memory_usage()
    coming.set()
    answers = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(answers[0], TensorReleased)
    del answers, running, double, x
    await asyncio.sleep(0)
    empty(manager)
