"""Merged computations: each value has the bits that it has alone, whatever is computed beside it."""

from __future__ import annotations

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tests.cases.support import on, raises


async def results_that_differ_only_in_shape(device: Device) -> None:
    def twos(*shape: int) -> tc.Tensor:
        return tc.ones(shape, device=device) * 2

    (row,) = on(device, np.array([0, 1], np.float32))
    assert (await (tc.sum(twos(3)) + tc.sum(twos(5))).read()).item() == 16
    assert (await tc.sum(twos(3, 2) @ twos(2, 4)).read()).item() == 96
    assert (await tc.concat([twos(3), twos(1)]).read()).tolist() == [2] * 4
    running = tc.concat([tc.cumulative_sum(twos(3)), tc.cumulative_sum(twos(5))])
    assert (await running.read()).tolist() == [2, 4, 6, 2, 4, 6, 8, 10]
    totals = [tc.sum(row + tc.ones((rows, 2), device=device)) for rows in (3, 5)]
    assert (await tc.stack(totals).read()).tolist() == [9, 15]
    pair = [twos(3), twos(5)]
    assert [array.tolist() for array in await tc.read_together(pair)] == [[2] * 3, [2] * 5]
    assert [array.tolist() for array in await tc.read_together(pair[1:])] == [[2] * 5]


async def a_read_outside_its_bytes_breaks_no_later_read(device: Device) -> None:
    short, whole = on(device, np.zeros(3, np.float32), np.arange(5, dtype=np.float32))
    storage = short.node.storage
    assert storage is not None
    await raises(tc.errors.InternalError, device.read(storage.handle, 0, 20), "20 of a value of 12 bytes")
    assert (await whole.read()).tolist() == [0, 1, 2, 3, 4] and (await short.read()).tolist() == [0, 0, 0]
