"""Key/value caches: appended to in place if they are donated, and never if they have another use."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Tensor
from tensorcommons.errors import ShapeMismatch, TensorCommonsError, TensorReleased, UnsupportedDtype
from tests.cases import Place, only
from tests.cases.support import near, numbers, on, raises, refused

SHAPE = (1, 2, 16, 8)


def _step(x: Tensor, position: Tensor, cache: list[Tensor]) -> Any:
    appended = [tc.kv_cache_append(each, x, position) for each in cache]
    return tc.sum(appended[0]), appended


@only("cpu", "webgpu")  # results on WebNN are always separate values
async def steps_write_into_the_cache_that_was_given_up(device: Device) -> None:
    step = tc.compile(_step, donate_argnames=["cache"])
    wanted, cache = np.zeros(SHAPE, np.float32), on(device, np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32))
    first, held = cache[0], device.memory()["activations"]
    for position in range(5):
        row = numbers(1, 2, 1, 8, seed=position)
        wanted[:, :, position] = row[:, :, 0]
        before = device.backend.calls
        total, cache = await step(row, np.array(position, np.int32), cache)
        if position:
            assert device.backend.calls <= before + 2, "one run, and the release of the last total"
        near(await total.read(), wanted.sum())
        assert device.memory()["activations"] == held + 4
    assert step.traces == 1
    assert np.array_equal(await cache[0].read(), wanted)
    await raises(TensorReleased, first.read())
    first.release()


async def a_cache_that_is_not_given_up_stays_what_it_was(device: Device) -> None:
    held, row = numbers(*SHAPE), numbers(1, 2, 1, 8)
    wanted = held.copy()
    wanted[:, :, 3] = row[:, :, 0]
    (cache,) = on(device, held)
    kept = tc.compile(_step)
    for _ in range(2):
        _, (result,) = await kept(row, np.array(3, np.int32), [cache])
        assert np.array_equal(await result.read(), wanted)
        assert np.array_equal(await cache.read(), held)
    given = tc.compile(_step, donate_argnames=["cache"])
    _, results = await given(row, np.array(3, np.int32), [cache, cache])  # one tensor under two names
    for result in results:
        assert np.array_equal(await result.read(), wanted)
    assert np.array_equal(await cache.read(), held)
    wide = on(device, numbers(1, 2, 32, 8))[0]
    _, (result,) = await given(row, np.array(3, np.int32), [wide[:, :, 8:24]])  # a part of a larger value
    part = numbers(1, 2, 32, 8)[:, :, 8:24].copy()
    part[:, :, 3] = row[:, :, 0]
    assert np.array_equal(await result.read(), part)
    assert np.array_equal(await wide.read(), numbers(1, 2, 32, 8))


async def what_is_read_besides_is_read_before_the_write(device: Device) -> None:
    def both(x: Tensor, cache: Tensor) -> Any:
        new = tc.kv_cache_append(cache, x, 3)
        return new, tc.kv_cache_append(new, x, 5), cache * 2

    held, row = numbers(*SHAPE), numbers(1, 2, 1, 8)
    (cache,) = on(device, held)
    once, twice, doubled = await tc.compile(both, donate_argnames=["cache"])(row, cache)
    wanted = held.copy()
    wanted[:, :, 3] = row[:, :, 0]
    assert np.array_equal(await once.read(), wanted)
    wanted[:, :, 5] = row[:, :, 0]
    assert np.array_equal(await twice.read(), wanted)
    assert np.array_equal(await doubled.read(), held * 2)


async def what_a_manager_keeps_is_copied(place: Place) -> None:
    manager, held, row = place.manager(), numbers(*SHAPE), numbers(1, 2, 1, 8)
    shared = manager.register_shared_tensor("cache", SHAPE, place.device.kind, data=held)
    step = tc.compile(_step, donate_argnames=["cache"])
    _, (result,) = await step(row, np.array(0, np.int32), [shared.tensor])
    assert np.array_equal(await shared.read(), held)
    assert np.array_equal((await result.read())[:, :, :1], row)


@only("webgpu")
async def a_step_that_is_cancelled_leaves_nothing(device: Device) -> None:
    def slow(x: Tensor, cache: Tensor) -> Any:
        new = tc.kv_cache_append(cache, x, 3)
        for _ in range(40):
            x = tc.softmax(x) + new[:, :, :1]
        return x, new

    step = tc.compile(slow, donate_argnames=["cache"])
    row, (cache,) = numbers(1, 2, 1, 8), on(device, numbers(*SHAPE))
    _, cache = await step(row, cache)
    live = device.backend.live_buffers()
    running = asyncio.ensure_future(step(row, cache))
    for _ in range(3):  # until the first parts of the run are queued
        await asyncio.sleep(0)
    running.cancel()
    done = (await asyncio.gather(running, return_exceptions=True))[0]
    assert isinstance(done, (asyncio.CancelledError, tuple))
    del done, running
    cache.release()
    assert device.backend.live_buffers() <= live


async def wrong_caches_are_refused(device: Device) -> None:
    cache, row, short = on(device, numbers(*SHAPE), numbers(1, 2, 1, 8), numbers(2, 1, 8))
    (half,) = on(device, np.zeros((1, 2, 1, 8), np.float16))
    refused(device, ShapeMismatch, lambda: tc.kv_cache_append(cache, short, 0))
    refused(device, ShapeMismatch, lambda: tc.kv_cache_append(row, cache, 0))
    refused(device, UnsupportedDtype, lambda: tc.kv_cache_append(cache, half, 0))
    positions = on(device, np.zeros(2, np.int32), np.zeros((), np.float32))
    refused(device, ShapeMismatch, lambda: tc.kv_cache_append(cache, row, positions[0]))
    refused(device, UnsupportedDtype, lambda: tc.kv_cache_append(cache, row, positions[1]))
    for names in (["other"], "cache"):
        refused(device, TensorCommonsError, lambda: tc.compile(_step, donate_argnames=names))  # noqa: B023
