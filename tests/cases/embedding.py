"""Lookups of table rows by index."""

from __future__ import annotations

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import ShapeMismatch, UnsupportedDtype
from tests.cases.support import NAN, near, numbers, on, refused


async def rows_of_every_shape(device: Device) -> None:
    table = numbers(11, 7)
    for shape in ((), (1,), (5,), (2, 3), (0,), (2, 0)):
        ids = np.random.default_rng(0).integers(0, 11, shape).astype(np.int32)
        near(await tc.embedding(*on(device, table, ids)).read(), table[ids])


async def tables_and_ids_through_views(device: Device) -> None:
    table, ids = numbers(7, 11), np.array([[0, 3], [10, 2]], np.int32)
    t, i = on(device, table, ids)
    near(await tc.embedding(tc.permute_dims(t, (1, 0)), i[::-1]).read(), table.T[ids[::-1]])
    near(await (tc.embedding(t * 2, i[:, 0][:1]) + 1).read(), 2 * table[ids[:1, 0]] + 1)


async def ids_outside_the_table_give_nan(device: Device) -> None:
    table, ids = numbers(3, 2), np.array([0, -1, 3, 2, 2**31 - 1, -(2**31)], np.int32)
    result = await tc.embedding(*on(device, table, ids)).read()
    near(result[[0, 3]], table[[0, 2]])
    near(result[[1, 2, 4, 5]], np.full((4, 2), NAN))
    near(await tc.embedding(*on(device, numbers(0, 2), np.zeros(3, np.int32))).read(), np.full((3, 2), NAN))


async def many_rows(device: Device) -> None:
    table, ids = numbers(50, 8), np.random.default_rng(0).integers(0, 50, 40_000).astype(np.int32)
    near(await tc.embedding(*on(device, table, ids)).read(), table[ids], tolerance=0)


async def wrong_operands_are_refused(device: Device) -> None:
    table, ids, wide = on(device, numbers(3, 2), np.zeros(3, np.int32), np.zeros(3, np.int64))
    refused(device, ShapeMismatch, lambda: tc.embedding(tc.reshape(table, (6,)), ids))
    if device.kind == "cpu":  # the others do not compute int64
        assert (await tc.embedding(table, wide).read()).shape == (3, 2)
    refused(device, UnsupportedDtype, lambda: tc.embedding(table, table))
