"""Views of parts of a tensor's bytes, at any offset and alignment."""

from __future__ import annotations

import numpy as np
import pytest

from tensorcommons.errors import ShapeMismatch, TensorCommonsError, TensorNotFound, ViewOutOfBounds
from tests.sharing.devices import DTYPES, backends, check, empty, manager_on, some

PARTS = {
    "whole": ((0, 0, 0), (4, 5, 7)),
    "rows": ((1, 0, 0), (2, 5, 7)),
    "a block": ((1, 2, 3), (3, 2, 3)),
    "a column": ((0, 0, 6), (4, 5, 1)),
    "one": ((3, 4, 6), (1, 1, 1)),
    "planes": ((0, 1, 0), (4, 3, 7)),
}


@pytest.fixture
def manager():
    manager = manager_on("cpu", "webgpu")
    yield manager
    check(manager)
    empty(manager)


def window(start, size):
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", PARTS)
async def test_a_view_reads_and_writes_the_bytes_of_its_parent(manager, kind, dtype, part):
    start, size = PARTS[part]
    data = some((4, 5, 7), dtype).copy()
    x = manager.register_shared_tensor("x", data.shape, kind, "m", dtype=dtype, data=data)
    before = manager.report().device_bytes
    v = manager.create_tensor_view("x", "v", start, size, "reader")
    assert (v.shape, v.offset, v.dtype, v.get_memory_usage()) == (size, start, x.dtype, 0)
    assert manager.report().device_bytes == before
    assert (await v.read()).tobytes() == data[window(start, size)].tobytes()
    fresh = some(size, dtype, 9)
    await v.write(fresh)
    data[window(start, size)] = fresh
    assert (await x.read()).tobytes() == data.tobytes(), "a byte outside the view changed"
    await x.write(some((4, 5, 7), dtype, 3))
    assert (await v.read()).tobytes() == some((4, 5, 7), dtype, 3)[window(start, size)].tobytes()


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "float16", "int64"])
async def test_views_at_every_offset_within_a_word(manager, kind, dtype):
    data = some((13,), dtype).copy()
    x = manager.register_shared_tensor("x", (13,), kind, dtype=dtype, data=data)
    for start in range(13):
        for size in range(1, min(6, 14 - start)):
            v = x.create_view(f"{start} {size}", (start,), (size,))
            fresh = some((size,), dtype, start * 16 + size)
            await v.write(fresh)
            data[start : start + size] = fresh
            assert (await x.read()).tobytes() == data.tobytes() and (await v.read()).tobytes() == fresh.tobytes()


async def test_views_of_views(manager):
    data = some((6, 8))
    x = manager.register_shared_tensor("x", (6, 8), "webgpu", "m", data=data)
    outer = x.create_view("outer", (1, 2), (4, 5), "m")
    inner = outer.create_view("inner", (1, 1), (2, 3), "n")
    deep = manager.create_tensor_view("inner", "deep", (1, 2), (1, 1), "o")
    assert inner.offset == (2, 3) and deep.offset == (3, 5) and deep.parent is x
    assert (await inner.read()).tobytes() == data[2:4, 3:6].tobytes()
    assert (await deep.read()).item() == data[3, 5]
    await deep.write([[42]])
    assert (await inner.read())[1, 2] == 42 == (await x.read())[3, 5]
    assert x.reference_count == 4 and set(x.views) == {"outer", "inner", "deep"}
    with pytest.raises(ViewOutOfBounds):
        outer.create_view("too far", (3, 0), (2, 1))


async def test_ops_use_a_view_without_a_copy(manager):
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    x = manager.register_shared_tensor("x", (4, 6), "cpu", data=data)
    v = x.create_view("v", (1, 2), (2, 3))
    copies = backends(manager)[0].uploads
    assert (await (v.tensor * 2).read()).tolist() == (data[1:3, 2:5] * 2).tolist()
    assert (await (x.tensor + 1).read()).tolist() == (data + 1).tolist()
    assert backends(manager)[0].uploads <= copies + 2, "only host constants may be uploaded"
    await v.write(np.zeros((2, 3)))
    assert (await (v.tensor + 1).read()).tolist() == [[1] * 3] * 2


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        ((0,), (2,)),
        ((0, 0, 0), (1, 1, 1)),
        ((0, 0), (2,)),
        ((-1, 0), (1, 1)),
        ((0, 0), (5, 6)),
        ((4, 0), (1, 1)),
        ((3, 5), (1, 2)),
        ((0, 0), (0, 1)),
        ((0, 0), (-1, 1)),
        ((0.5, 0), (1, 1)),
        ((0, 0), ("1", 1)),
        ((10**30, 0), (1, 1)),
    ],
)
def test_out_of_bounds_is_refused(manager, offset, size):
    x = manager.register_shared_tensor("x", (4, 6), "cpu", "m")
    before = manager.report()
    with pytest.raises(ViewOutOfBounds):
        manager.create_tensor_view("x", "v", offset, size, "n")
    assert not x.views and manager.report() == before


async def test_names_of_views(manager):
    x = manager.register_shared_tensor("x", (4,), data=some((4,)))
    x.create_view("v", (np.int64(0),), (np.int32(2),))
    for name in ("x", "v", "", None):
        with pytest.raises(TensorCommonsError):
            x.create_view(name, (0,), (1,))
    with pytest.raises(TensorCommonsError):
        manager.register_shared_tensor("v", (4,))
    with pytest.raises(TensorNotFound):
        manager.create_tensor_view("nothing", "w", (0,), (1,))
    assert set(x.views) == {"v"}
    assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]
    assert manager.register_shared_tensor("v", (4,)).name == "v", "the name must be free after the view"


async def test_scalars_have_views_and_empty_tensors_have_none(manager):
    s = manager.register_shared_tensor("s", (), data=3.0)
    v = s.create_view("v", (), ())
    assert (await v.read()).item() == 3
    await v.write(4.0)
    assert (await s.read()).item() == 4
    with pytest.raises(ViewOutOfBounds):
        manager.register_shared_tensor("e", (0, 3)).create_view("w", (0, 0), (0, 3))


async def test_views_are_held_shared_and_released_like_tensors(manager):
    x = manager.register_shared_tensor("x", (4,), "cpu", "m", data=some((4,)))
    v = manager.create_tensor_view("x", "v", (0,), (2,), "n")
    assert v.holders == ["n"] and not v.acquire("n") and v.reference_count == 1 and x.reference_count == 2
    assert manager.share_tensor_between_models("v", "n", ["o"]) and v.acquire("o")
    assert x.release("m") and not x.can_be_freed(), "a view must keep its parent"
    assert manager.optimize_memory_usage()["freed_tensors_count"] == 0
    assert v.release("n") and not v.release("n") and v.holders == ["o"]
    assert manager.release_model_tensors("o") == 1 and x.can_be_freed()


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_a_write_through_a_view_does_not_change_twins(manager, kind):
    data = some((3, 5), "int8").copy()
    x = manager.register_shared_tensor("x", (3, 5), kind, "m", dtype="int8", data=data)
    twin = manager.register_shared_tensor("twin", (3, 5), kind, "n", dtype="int8", data=data)
    v = x.create_view("v", (1, 1), (2, 3), "m")
    assert x.entry is twin.entry
    await v.write(np.full((2, 3), 7, np.int8))
    assert (await twin.read()).tobytes() == data.tobytes()
    data[1:3, 1:4] = 7
    assert (await x.read()).tobytes() == data.tobytes()
    assert (await v.read()).tolist() == [[7] * 3] * 2 and v.holders == ["m"]
    again = manager.register_shared_tensor("again", (3, 5), kind, dtype="int8", data=data)
    assert again.entry is not x.entry, "after a write of a part the content must be unidentified"


async def test_bad_writes_through_a_view_are_refused(manager):
    data = some((4,))
    x = manager.register_shared_tensor("x", (4,), "cpu", "m", data=data)
    v = x.create_view("v", (1,), (2,))
    for bad in ([1], [1, 2, 3], b"1234567"):
        with pytest.raises(ShapeMismatch):
            await v.write(bad)
    assert (await x.read()).tobytes() == data.tobytes() and x.entry.content == x.identity
