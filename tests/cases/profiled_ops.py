"""Profiles of operations on tensors: costs of known shapes, times, and unchanged results."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.budget import Budget
from tensorcommons.errors import TensorCommonsError
from tests.cases.support import numbers, on, raises


async def a_product_and_a_norm_cost_what_their_shapes_say(device: Device) -> None:
    a, b, weight, bias = on(device, numbers(6, 8), numbers(8, 16), numbers(16), numbers(16))
    expected = await (a @ b).read()
    async with tc.profile() as profile:
        np.testing.assert_array_equal(await (a @ b).read(), expected)
        normed = await tc.layer_norm(a @ b, weight, bias).read()
    product, *both = profile.rows
    assert (product.flops, product.nbytes) == (2 * 6 * 8 * 16, 4 * (6 * 8 + 8 * 16 + 6 * 16)), product
    assert product.device == device.kind and product.models == () and product.step == 0, product
    assert sum(row.flops for row in both) == product.flops + 7 * 6 * 16, both
    assert sum(row.nbytes for row in both) == product.nbytes + 4 * (2 * 6 * 16 + 2 * 16), both
    for row in profile.rows:
        assert row.milliseconds is not None and row.milliseconds > 0, profile.notes
        assert row.share is not None and row.share > 0
    assert not profile.notes, profile.notes
    if device.kind == "webgpu":
        assert "fn main(" in product.source and product.kernel.startswith("matmul/"), product.kernel
    table = profile.table()
    assert "in all" in table and "matmul" in table, table
    assert normed.shape == (6, 16)


async def a_chain_shows_its_operations_and_broadcast_values_count_once(device: Device) -> None:
    x, row = on(device, numbers(64, 32), numbers(32))
    async with tc.profile() as profile:
        await tc.exp((x + row) * 2.0).read()
    assert sum(each.flops for each in profile.rows) == 3 * 64 * 32, profile.rows
    names = [name for each in profile.rows for name in each.nodes]
    assert [name for name in names if name in ("add", "multiply", "exp")] == ["add", "multiply", "exp"], names
    if device.kind != "webnn":  # where scalars are values
        assert sum(each.nbytes for each in profile.rows) == 4 * (2 * 64 * 32 + 32), profile.rows


async def what_is_written_in_place_stays_right(device: Device) -> None:
    append = tc.compile(tc.kv_cache_append, donate_argnames=("cache",))
    update = tc.asarray(np.ones((1, 1, 1, 8), np.float32), device=device)
    caches = []
    for is_profiled in (False, True):
        cache = await tc.zeros((1, 1, 4, 8), device=device).realize()
        async with tc.profile() if is_profiled else nullcontext():
            for position in range(3):
                cache = await append(cache, update * (position + 1.0), np.array(position, np.int32))
            caches.append(await cache.read())
    np.testing.assert_array_equal(caches[0], caches[1])
    np.testing.assert_array_equal(caches[0][0, 0, :, 0], [1, 2, 3, 0])


async def profiles_do_not_nest_and_end_with_their_block(device: Device) -> None:
    x = tc.asarray(numbers(8), device=device)
    async with tc.profile() as profile:
        await raises(TensorCommonsError, tc.profile().__aenter__(), "do not nest")
        await (x + 1.0).read()
    await (x + 1.0).read()
    assert len(profile.rows) == 1, profile.rows
    try:
        async with tc.profile():
            raise KeyError
    except KeyError:
        pass
    async with tc.profile() as profile:  # the last one is closed
        pass
    assert profile.rows == () and "in all" in profile.table()


async def runs_side_by_side_are_all_recorded(device: Device) -> None:
    x, y = on(device, numbers(8, 8), numbers(8, 8, seed=1))
    async with tc.profile() as profile:
        a, b = await asyncio.gather((x @ y).read(), (y @ x).read())
    np.testing.assert_allclose(a, numbers(8, 8) @ numbers(8, 8, seed=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(b, numbers(8, 8, seed=1) @ numbers(8, 8), rtol=1e-5, atol=1e-5)
    assert [row.flops for row in profile.rows] == [2 * 8**3] * 2


async def a_cancel_while_a_run_is_timed_leaves_nothing(device: Device) -> None:
    timing = asyncio.Event()

    class Told(Budget):
        def make_room_now(self, nbytes: int) -> None:
            timing.set()

    x = tc.asarray(numbers(256, 256), device=device)
    async with tc.profile():
        expected = await (x @ x).read()  # and the device is probed
        device.budget = Told()
        reading = asyncio.ensure_future(_chain(x).read())
        await timing.wait()
        await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    assert reading.cancelled()
    del reading
    np.testing.assert_array_equal(await (x @ x).read(), expected)


def _chain(x: Any) -> Any:
    for _ in range(3):
        x = tc.softmax(x @ x)
    return x


async def a_run_that_leaves_no_room_for_timing_says_so(device: Device) -> None:
    class Full(Budget):
        def reserve(self, nbytes: int, category: Any) -> None:
            if category == "scratch" and is_timing:
                raise tc.errors.MemoryBudgetError(nbytes, 0, [])

    x = tc.asarray(numbers(32, 32), device=device)
    is_timing = False
    expected = await (x @ x).read()
    device.budget, is_timing = Full(), True
    async with tc.profile() as profile:
        np.testing.assert_array_equal(await (x @ x).read(), expected)
    device.budget = Budget()
    assert profile.rows[0].milliseconds is None and profile.rows[0].flops == 2 * 32**3
    assert "was not timed" in profile.notes[0] and profile.notes[0] in profile.table()
