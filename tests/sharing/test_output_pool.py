"""The output pool: freed outputs are reused by the next run of their program, and are evicted first."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends import output_pool
from tensorcommons.errors import MemoryBudgetError
from tests.sharing.devices import Backend, Fault, manager_on

KB = 1024


class Run:
    """Program with one or two outputs of ``nbytes`` on a device under a limit, with counts of its memory."""

    def __init__(self, nbytes: int = KB, limit: int = 64 * KB, outputs: int = 1) -> None:
        self.manager = manager_on("webgpu", limit=limit)
        self.device: Device = self.manager.devices.choose("webgpu")
        self.backend: Backend = self.device.backend  # type: ignore[assignment]
        self.x = tc.asarray(np.arange(nbytes // 4, dtype=np.float32), device=self.device)
        self.call = tc.compile(lambda x: tuple(tc.abs(x - i) for i in range(outputs)))
        self.bytes = nbytes

    async def __call__(self) -> Any:
        return await self.call(self.x)

    async def times(self, count: int) -> None:
        for _ in range(count):
            await self()

    @property
    def counted(self) -> tuple[int, int]:
        """Return the bytes of outputs and of pooled ones, and assert that the accounts match the buffers."""
        assert self.device.total == self.backend.nbytes
        return self.device.memory()["activations"] - self.x.nbytes, self.device.output_pool.nbytes


async def test_the_second_run_reuses_the_output_buffer_of_the_first():
    run = Run()
    await run()
    assert run.counted == (0, 0)
    (first,) = await run()
    assert run.counted == (KB, 0)
    del first
    assert run.counted == (0, KB)
    handle = run.device.new_handle()
    (second,) = await run()
    assert run.counted == (KB, 0) and run.device.new_handle() == handle + 2
    assert np.array_equal(await second.read(), np.arange(KB // 4))


async def test_of_simultaneous_results_one_buffer_is_pooled():
    run = Run(outputs=2)
    await run()
    kept = [await run() for _ in range(3)]
    assert run.counted == (6 * KB, 0)
    kept.pop()[0].release()
    assert run.counted == (4 * KB, 2 * KB)  # the second of the pair was freed with its tuple
    del kept
    assert run.counted == (0, 2 * KB)


async def test_pooled_outputs_are_evicted_and_their_bytes_counted_once():
    run = Run(nbytes=16 * KB, limit=50 * KB)
    await run.times(2)
    assert run.counted == (0, 16 * KB)
    other = tc.asarray(np.zeros(4 * KB, np.float32), device=run.device)
    await run()  # 16 + 16 + 16 fit, since the output reuses the pooled buffer
    assert run.counted == (other.nbytes, 16 * KB)
    run.manager.register_shared_tensor("more", (3 * KB,), "webgpu", data=np.ones(3 * KB, np.float32))
    assert run.counted == (other.nbytes, 0)


async def test_an_output_that_the_budget_refuses_to_keep_is_freed(monkeypatch):
    run = Run()
    await run()
    (result,) = await run()
    refused: list[int] = []

    def refuse(nbytes: int, category: str) -> None:
        refused.append(nbytes)
        raise MemoryBudgetError(nbytes, 0, [(category, nbytes)])

    monkeypatch.setattr(run.device.budget, "reserve", refuse)
    result.release()
    assert refused == [KB] and run.counted == (0, 0)


async def test_a_run_that_fails_or_is_cancelled_leaves_nothing():
    run = Run()
    await run.times(2)
    run.backend.fault_in = 1
    with pytest.raises(Fault):
        await run()
    assert run.counted == (0, 0)
    await run()
    assert run.counted == (0, KB)
    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    await _cancelled(task)
    assert run.counted == (0, 0)


async def test_outputs_freed_during_a_failing_run_leave_with_its_pool():
    run = Run()
    await run()
    (kept,) = await run()
    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    assert run.device.lock.locked() and not run.device.output_pool.nbytes
    kept.release()
    assert run.device.output_pool.nbytes == KB
    await _cancelled(task)
    assert run.counted == (0, 0)


async def test_the_pool_is_freed_with_its_program_device_or_last_tensor():
    run = Run()
    await run.times(2)
    next(iter(run.device.programs.values())).discard()
    assert run.counted == (0, 0)
    await run.times(2)
    assert run.counted == (0, KB)
    run.backend.lose()
    await run.device.recover()
    assert run.device.output_pool.nbytes == 0 and run.device.total == run.backend.nbytes
    run = Run()
    await run.times(2)
    run.x.release()
    assert run.device.total == run.backend.live_buffers() == 0


async def test_a_restored_tensor_does_not_use_a_pooled_buffer():
    run = Run()
    await run()
    (kept,) = await run()
    assert await kept.node.storage.evict()
    assert run.counted == (0, 0)
    await kept.node.storage.ensure()
    kept.release()
    assert run.counted == (0, 0)


async def test_the_pool_is_bounded_and_evicts_the_least_recently_used_first(monkeypatch):
    monkeypatch.setattr(output_pool, "MOST", 3 * KB)
    run = Run()
    other, large = tc.compile(lambda x: tc.sqrt(x)), tc.compile(lambda x: tc.stack([x, x, x, x]))
    for call in (run.call, other, large, large):
        await call(run.x)
        await call(run.x)
    assert run.counted == (0, 2 * KB)  # an output larger than the bound is not kept
    third, fourth = tc.compile(lambda x: x + 1), tc.compile(lambda x: tc.negative(x))
    for call in (other, run.call, third, fourth):
        await call(run.x)
        await call(run.x)
    assert run.counted == (0, 3 * KB)
    for call, bytes_now in ((run.call, 2 * KB), (other, 3 * KB)):
        tensors = await call(run.x)
        assert run.device.output_pool.nbytes == bytes_now
        del tensors
    assert run.counted == (0, 3 * KB)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
