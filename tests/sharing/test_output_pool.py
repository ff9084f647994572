"""Outputs that are free again stay with their program for its next run, as scratch that leaves when room is short."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends import output_pool
from tests.sharing.devices import Backend, Fault, manager_on

KB = 1024


class Run:
    """A program of one or two outputs of ``nbytes`` on a device under a limit, run and counted."""

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
        """Bytes of outputs, and spare ones. What the account says is what is there."""
        assert self.device.total == self.backend.nbytes
        return self.device.memory()["activations"] - self.x.nbytes, self.device.output_pool.nbytes


async def test_from_the_second_run_on_an_output_is_the_buffer_of_the_one_before():
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


async def test_of_results_that_live_side_by_side_one_becomes_spare():
    run = Run(outputs=2)
    await run()
    kept = [await run() for _ in range(3)]
    assert run.counted == (6 * KB, 0)
    kept.pop()[0].release()
    assert run.counted == (4 * KB, 2 * KB)  # the pair's second went with its tuple
    del kept
    assert run.counted == (0, 2 * KB)


async def test_spares_leave_when_room_is_short_and_their_bytes_are_not_asked_for_twice():
    run = Run(nbytes=16 * KB, limit=50 * KB)
    await run.times(2)
    assert run.counted == (0, 16 * KB)
    other = tc.asarray(np.zeros(4 * KB, np.float32), device=run.device)
    await run()  # 16 + 16 + 16 fit, since the output is the spare
    assert run.counted == (other.nbytes, 16 * KB)
    run.manager.register_shared_tensor("more", (3 * KB,), "webgpu", data=np.ones(3 * KB, np.float32))
    assert run.counted == (other.nbytes, 0)


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


async def test_what_is_freed_while_a_run_fails_goes_with_its_spares():
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


async def test_they_go_with_their_program_their_device_and_the_last_tensor():
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


async def test_what_left_for_the_host_is_no_spare_when_it_comes_back():
    run = Run()
    await run()
    (kept,) = await run()
    assert await kept.node.storage.evict()
    assert run.counted == (0, 0)
    await kept.node.storage.ensure()
    kept.release()
    assert run.counted == (0, 0)


async def test_there_are_so_many_and_the_least_recently_used_go_first(monkeypatch):
    monkeypatch.setattr(output_pool, "MOST", 3 * KB)
    run = Run()
    other, large = tc.compile(lambda x: tc.sqrt(x)), tc.compile(lambda x: tc.stack([x, x, x, x]))
    for call in (run.call, other, large, large):
        await call(run.x)
        await call(run.x)
    assert run.counted == (0, 2 * KB)  # what is too large by itself is not kept
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
