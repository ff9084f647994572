"""Indexing by arrays: every axis, layout and dtype, indices out of range, repeated indices."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import ReadRequired, ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import NAN, near, numbers, on, refused

DTYPES = ("float32", "float16", "int32", "uint32", "bool")


def _ids(*shape: int, below: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).integers(-below, below, shape).astype(np.int32)


def _values(*shape: int, dtype: str) -> Any:
    drawn = np.random.default_rng(shape).integers(0, 100, shape)
    return drawn > 50 if dtype == "bool" else drawn.astype(dtype)


async def _same(tensor: Any, wanted: Any) -> None:
    got = await tensor.read()
    assert got.dtype == wanted.dtype and got.shape == wanted.shape, (got.dtype, got.shape, wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(got, wanted)


async def take_on_every_axis(device: Device) -> None:
    a = numbers(5, 7, 3)
    for axis in (0, 1, -1):
        for shape in ((), (1,), (9,), (2, 3), (0,)):
            ids = _ids(*shape, below=a.shape[axis])
            x, i = on(device, a, ids)
            await _same(tc.take(x, i, axis), np.take(a, ids, axis))
            await _same(tc.take(x, ids.astype(np.int64), axis), np.take(a, ids, axis))
    (x,) = on(device, np.arange(4, dtype=np.float32))
    await _same(tc.take(x, [3, -1, 0]), np.array([3, 3, 0], np.float32))


async def every_dtype(device: Device) -> None:
    for dtype in DTYPES:
        a, ids = _values(6, 5, dtype=dtype), _ids(3, 5, below=6)
        x, i = on(device, a, ids)
        await _same(tc.take_along_axis(x, i, 0), np.take_along_axis(a, ids, 0))
        await _same(tc.take(x, i[0], 1), np.take(a, ids[0] % 5, 1)) if ids[0].max() < 5 else None
        updates = _values(3, 5, dtype=dtype)
        wanted = np.array(a)
        for row in range(3):
            for column in range(5):
                wanted[ids[row, column], column] = updates[row, column]
        await _same(tc.scatter(x, i, updates, 0), wanted)
        if dtype != "bool":
            wanted = np.array(a)
            np.add.at(wanted, (ids, np.arange(5)), updates)
            await _same(tc.scatter(x, i, updates, 0, "add"), wanted)


async def through_views(device: Device) -> None:
    a, ids = numbers(6, 8, 5), _ids(3, 8, 5, below=6)
    x, i = on(device, a, ids)
    turned, turned_ids = a.transpose(2, 0, 1)[::-1], ids.transpose(2, 0, 1)[::-1]
    await _same(
        tc.take_along_axis(tc.permute_dims(x, (2, 0, 1))[::-1], tc.permute_dims(i, (2, 0, 1))[::-1], 1),
        np.take_along_axis(turned, turned_ids, 1),
    )
    await _same(tc.take_along_axis(x, i[:, :1], 0), np.take_along_axis(a, np.broadcast_to(ids[:, :1], ids.shape), 0))
    updates = numbers(3, 8, 5, seed=1)
    wanted = np.array(a)
    np.add.at(wanted, (ids, *np.ogrid[:8, :5]), updates)
    near(await tc.scatter(x, i, on(device, updates[::-1])[0][::-1], 0, "add").read(), wanted)
    doubled = np.take(2 * a, ids[0, :, 0], 0) + 1
    near(await (tc.take(x * 2, i[0, :, 0], 0) + 1).read(), doubled)


async def rows_that_lie_in_vectors(device: Device) -> None:
    for dtype in DTYPES:
        a = _values(9, 4, 8, dtype=dtype)
        ids = np.array([3, -1, 0, 8, 3], np.int32)
        x, i = on(device, a, ids)
        await _same(tc.take(x, i, 0), a[ids])
        await _same(tc.take(x[1:, 1:3], i - 1, 0), a[1:, 1:3][ids - 1])
        await _same(tc.take(x[:, :, 1:5], i, 0), a[:, :, 1:5][ids])
        await _same(tc.take(x[:, :, ::-1], i, 0), a[:, :, ::-1][ids])
        await _same(tc.take(x, i % 4, 1), a[:, ids % 4])
        await _same(tc.take(tc.broadcast_to(x[0, :1], (4, 8)), i % 4, 0), np.broadcast_to(a[0, :1], (5, 8)))
        outside = await tc.take(x, on(device, np.array([1, 9], np.int32))[0], 0).read()
        np.testing.assert_array_equal(outside[0], a[1])
        assert np.isnan(outside[1]).all() if a.dtype.kind == "f" else not outside[1].any()
    (ids,) = on(device, np.arange(8, dtype=np.int32)[::-1].copy())
    table = tc.reshape(ids, (2, 4))
    await _same(tc.take(table, ids % 2, 0), np.arange(8)[::-1].reshape(2, 4).astype(np.int32)[np.arange(8)[::-1] % 2])


async def gather_as_pytorch(device: Device) -> None:
    a = numbers(4, 6)
    ids = np.array([[0, 3, 2], [1, 1, 0]], np.int32)
    wanted = np.array([[a[ids[i, j], j] for j in range(3)] for i in range(2)])
    x, i = on(device, a, ids)
    await _same(tc.gather(x, 0, i), wanted)
    await _same(tc.gather(x, 1, i), np.array([[a[r, ids[r, j]] for j in range(3)] for r in range(2)]))
    tall = on(device, np.zeros((5, 1), np.int32))[0]
    refused(device, ShapeMismatch, lambda: tc.gather(x, 1, tall))


async def numbers_out_of_range(device: Device) -> None:
    a = numbers(3, 2)
    wild = np.array([0, 3, -3, -4, 2**31 - 1, -(2**31)], np.int32)
    inside = np.array([True, False, True, False, False, False])
    x, i = on(device, a, wild)
    got = await tc.take(x, i, 0).read()
    near(got[inside], a[[0, 0]])
    near(got[~inside], np.full((4, 2), NAN))
    whole = on(device, np.arange(3, dtype=np.int32) + 5)[0]
    assert (await tc.take(whole, i).read()).tolist() == [5, 0, 5, 0, 0, 0]
    assert (await tc.take(tc.astype(whole, "bool"), i).read()).tolist() == [True, False, True, False, False, False]
    written = await tc.scatter(on(device, np.zeros(3, np.float32))[0], i, numbers(6) + 10, 0).read()
    near(written, np.array([numbers(6)[2] + 10, 0, 0]))
    for wrong in ([3], [-4], [0, 99]):
        caught = None
        try:
            tc.take(x, wrong, 0)
        except IndexError as error:
            caught = str(error)
        assert caught is not None and str(wrong[-1]) in caught, f"{wrong}: {caught}"
    empty = on(device, numbers(0, 2))[0]
    near(await tc.take(empty, i, 0).read(), np.full((6, 2), NAN))


async def scatter_of_numbers_that_come_twice(device: Device) -> None:
    ids = np.array([2, 2, 0, 2, -3], np.int32)
    updates = np.array([1, 2, 3, 4, 5], np.float32)
    x, i = on(device, np.full(3, 10, np.float32), ids)
    await _same(tc.scatter(x, i, updates), np.array([5, 10, 4], np.float32))
    await _same(tc.scatter(x, i, updates, reduction="add"), np.array([18, 10, 17], np.float32))
    await _same(tc.scatter(x, i, 1.0, reduction="add"), np.array([12, 10, 13], np.float32))
    await _same(x, np.full(3, 10, np.float32))
    half = on(device, np.zeros(1, np.float16))[0]
    many = np.zeros(4096, np.int32)
    await _same(tc.scatter(half, many, np.ones(4096, np.float16), reduction="add"), np.array([4096], np.float16))


async def scatter_into_parts(device: Device) -> None:
    a, ids, updates = numbers(5, 4, 3), _ids(2, 3, 2, below=4), numbers(2, 3, 2, seed=1)
    wanted = np.array(a)
    for i, j, k in np.ndindex(2, 3, 2):
        wanted[i, ids[i, j, k], k] = updates[i, j, k]
    x, i, u = on(device, a, ids, updates)
    await _same(tc.scatter(x, i, u, 1), wanted)
    await _same(tc.scatter(x, np.zeros((0, 4, 3), np.int32), np.zeros((0, 4, 3), np.float32), 0), a)


async def wrong_operands_are_refused(device: Device) -> None:
    x, ids = on(device, numbers(3, 4), np.zeros((3, 4), np.int32))
    refused(device, ShapeMismatch, lambda: tc.take(x, ids))
    refused(device, ShapeMismatch, lambda: tc.take_along_axis(x, ids[0], 0))
    refused(device, ShapeMismatch, lambda: tc.take_along_axis(x, ids[:, :3], 0))
    refused(device, UnsupportedDtype, lambda: tc.take(x, x, 0))
    refused(device, ShapeMismatch, lambda: tc.scatter(x, ids, x[:2]))
    refused(device, UnsupportedDtype, lambda: tc.scatter(x, ids, ids))
    refused(device, TensorCommonsError, lambda: tc.scatter(x, ids, x, reduction="multiply"))


ALL = slice(None)
MASK = np.arange(35).reshape(5, 7) % 3 == 0
ARRAY_KEYS: tuple[Any, ...] = (
    ([0, -1, 2],),
    (np.array([[4, 0], [-5, 1]]),),
    ([],),
    (np.array(3),),
    (ALL, [6, 0]),
    (..., [2, 1, 0]),
    ([1, 2], [3, -1]),
    (np.array([[1], [2]]), [3, -1, 0]),
    (ALL, [1, 2], [0, 2]),
    ([1, 2], ALL, [0, 2]),
    (0, ALL, [0, 2]),
    (0, [5, 6]),
    (ALL, 0, [0, 2]),
    ([1, 2], ALL, 0),
    (None, [1, 2], 1),
    ([1, 2], None, [3, 4]),
    (slice(4, 0, -2), None, [1, 1, 6], ..., -1),
    ([1, 2], [3, 4], [0, -3]),
    (MASK,),
    (MASK, [0] * int(MASK.sum())),
    (MASK[:, 0],),
    (ALL, MASK[0], 1),
    (np.zeros(5, bool),),
    (MASK[:, 0].tolist(), ..., None),
)


async def arrays_as_indices(device: Device) -> None:
    a = numbers(5, 7, 3)
    results, wanted = [], []
    (x,) = on(device, a)
    for key in ARRAY_KEYS:
        results.append(x[key if len(key) > 1 else key[0]])
        wanted.append(a[key])
        tensors = tuple(
            tc.asarray(k, dtype="int32", device=device)
            if isinstance(k, (list, np.ndarray)) and np.asarray(k).dtype.kind != "b"
            else k
            for k in key
        )
        results.append(x[tensors])
        wanted.append(a[key])
    for key, got, right in zip(
        [key for key in ARRAY_KEYS for _ in "ab"], await tc.read_together(results), wanted, strict=True
    ):
        assert got.shape == right.shape, f"{key}: {got.shape} instead of {right.shape}"
        np.testing.assert_array_equal(got, right)
    turned = tc.permute_dims(x, (2, 0, 1))[:, ::-1]
    await _same(turned[:, [1, -1], [2, 0]], a.transpose(2, 0, 1)[:, ::-1][:, [1, -1], [2, 0]])
    for dtype in DTYPES:
        values = _values(6, 5, dtype=dtype)
        await _same(on(device, values)[0][[1, 5], [4, 0]], values[[1, 5], [4, 0]])


async def arrays_as_indices_that_are_refused(device: Device) -> None:
    x, mask, floats, far = on(device, numbers(5, 7), MASK, numbers(3), np.array([9, -6, 1], np.int32))
    if device.kind == "cpu" or can_suspend():
        np.testing.assert_array_equal(await x[mask].read(), (await x.read())[MASK])
    else:
        assert "await" in str(refused(device, ReadRequired, lambda: x[mask]))
    refused(device, UnsupportedDtype, lambda: x[floats])
    refused(device, UnsupportedDtype, lambda: x[:, floats])
    refused(device, UnsupportedDtype, lambda: x[[1.5]])
    refused(device, ShapeMismatch, lambda: x[[1, 2], [1, 2, 3]])
    refused(device, ShapeMismatch, lambda: x[[[1], [1, 2]]])
    refused(device, ShapeMismatch, lambda: tc.asarray([[1], [1, 2]], device=device))
    for key in ([5], [-6], (ALL, [7]), ([0], [0], [0]), MASK.T, (MASK, 0), (True, 0), (..., [0], ...)):
        try:
            x[key]
        except IndexError:
            continue
        raise AssertionError(f"{key!r} was accepted")
    got = await x[far, far].read()  # known only to the device
    np.testing.assert_array_equal(np.isnan(got), [True, True, False])
    assert got[2] == (await x[1, 1].read())


async def wide_indices_out_of_range_do_not_wrap_around(device: Device) -> None:
    """An index that int32 cannot hold is out of range: its lower 32 bits are not an index."""
    (x,) = on(device, np.array([1, 2, 3], np.float32))
    wide = [("uint32", [1, 2**32 - 1, 2**31, 0])]
    if device.facts.is_host:
        wide.append(("int64", [1, 2**32, -(2**40), 0]))
    for dtype, values in wide:
        (ids,) = on(device, np.array(values, dtype))
        for got in (tc.take(x, ids), x[ids], tc.embedding(tc.reshape(x, (3, 1)), ids)[:, 0]):
            near(await got.read(), np.array([2, NAN, NAN, 1]))
        near(await tc.scatter(x, ids, tc.full((4,), 9.0)).read(), np.array([9, 9, 3]))
    table = tc.reshape(x, (3, 1))
    near((await tc.embedding(table, np.array([1, 2**32, -1])).read())[:, 0], np.array([2, NAN, NAN]))
    refused(device, UnsupportedDtype, lambda: tc.nn.functional.embedding([1.5], table))
    assert np.isnan(await tc.nn.functional.cross_entropy(table.mT, np.array([2**32])).read())
    cos, sin = tc.rotary_tables(2, 2)
    assert np.isnan(await tc.rotary_embedding(x[None, :2], cos, sin, positions=np.array([2**32])).read()).all()
