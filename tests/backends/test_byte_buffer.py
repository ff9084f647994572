"""Blocks of a pool of arrays: allocation, reuse after a free, and no reuse of a block that was dropped unfreed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.bridge import byte_buffer
from tensorcommons.bridge.byte_buffer import CHUNK, KEPT, LEAST, ByteBuffer, Pool, room_of
from tensorcommons.hub.cache import Cache
from tensorcommons.hub.stores import MemoryStore
from tests.hub.counting import counted
from tests.models.server import TINY
from tests.sharing.devices import manager_on, some


@pytest.fixture
def pool(monkeypatch):
    fresh = Pool()
    monkeypatch.setattr(byte_buffer, "pool", fresh)
    return fresh


def test_blocks_do_not_overlap_and_freed_arrays_are_used_again(pool):
    sizes = (0, 1, LEAST, LEAST + 1, CHUNK // 2, CHUNK // 4, CHUNK)
    taken = [ByteBuffer(nbytes) for nbytes in sizes]
    for number, block in enumerate(taken):
        block.write(0, memoryview(bytes([number]) * block.nbytes))
    assert all(set(bytes(block)) <= {number} for number, block in enumerate(taken)), "blocks overlap"
    assert pool.taken == len(taken) and not pool.free
    for block in taken:
        block.free()
        block.free()
    assert not pool.taken
    assert pool.free == sum(map(room_of, sizes))
    again = [ByteBuffer(nbytes) for nbytes in sizes]
    assert not pool.free, "freed arrays were not reused"
    assert len(again) == len(sizes)


def test_the_pool_keeps_few_bytes_and_the_small_arrays_first(pool):
    many = [ByteBuffer(LEAST), *(ByteBuffer(CHUNK) for _ in range(KEPT // CHUNK + 3)), ByteBuffer(LEAST)]
    for block in many:
        block.free()
    assert pool.free == KEPT - CHUNK + 2 * LEAST


def test_the_array_of_a_block_that_was_never_freed_is_not_reused(pool):
    dropped = ByteBuffer(CHUNK // 4)
    written = dropped.raw  # by a task that nothing awaits
    del dropped
    others = [ByteBuffer(CHUNK // 4) for _ in range(4)]
    assert not any(np.shares_memory(np.asarray(written), np.asarray(other.raw)) for other in others)
    for block in others:
        block.free()
    assert pool.taken == 1


def test_parts_share_the_array_of_a_block_that_the_last_one_returns(pool):
    whole = ByteBuffer.of(b"abcde")
    assert whole.is_alone
    parts = whole.split([2, 3])
    assert [bytes(part) for part in parts] == [b"ab", b"cde"]
    assert not (whole.is_alone or parts[0].is_alone)
    parts[1].free()
    assert pool.taken == 1
    parts[0].free()
    assert not pool.taken


async def test_a_copy_that_is_superseded_by_a_use_is_freed(pool):
    manager = manager_on("webgpu", limit=1 << 20)
    tensor = manager.register_shared_tensor("t", (256,), "webgpu", "m", data=some((256,), seed=0))
    storage = tensor.entry.storage
    leaving = asyncio.ensure_future(storage.evict())
    await asyncio.sleep(0)
    storage.touch()
    assert not await leaving and storage.is_resident
    assert await storage.evict()
    await tensor.read()
    assert not pool.taken, "the copies were not returned"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_loads_evictions_and_restores_free_every_block(pool, dtype):
    store, ids = MemoryStore(), np.arange(6)[None]
    with counted(TINY) as server:
        for cache in (None, Cache(store), Cache(store)):  # from the network, then from the cache
            manager = manager_on("webgpu")
            model = await tc.from_pretrained(server.url + "tiny-bert", manager=manager, dtype=dtype, cache=cache)
            wanted = (await (await model(input_ids=ids))["last_hidden_state"].read()).tobytes()
            for entry in manager.registry:
                assert await entry.storage.evict()
            assert (await (await model(input_ids=ids))["last_hidden_state"].read()).tobytes() == wanted
            model.unload()
            manager.close()
    assert not pool.taken, "a block was dropped or is still in use"


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 4097, 5000, 7 << 10, (1 << 20) + 3, (1 << 23) - 1, 9 << 20])
def test_weights_on_the_host_waste_little_memory(nbytes: int) -> None:
    data = np.random.default_rng(0).bytes(nbytes)
    parts = ByteBuffer.of(data).packed()
    assert b"".join(map(bytes, parts)) == data
    assert sum(room_of(len(part)) for part in parts) <= max(8 * nbytes / 7, 0) + LEAST or nbytes > CHUNK
    for part in parts:
        part.free()
