"""Registration, holds, writes and copies of named tensors."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.errors import (
    DeviceUnavailable,
    MemoryBudgetError,
    NotAConsumer,
    ShapeMismatch,
    TensorCommonsError,
    TensorNotFound,
    TensorReleased,
    UnsupportedDtype,
)
from tests.sharing.devices import DTYPES, backends, check, empty, manager_on, some


@pytest.fixture
def manager():
    manager = manager_on("cpu", "webgpu")
    yield manager
    check(manager)
    empty(manager)


# --- registering ---


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (7,)])
async def test_data_is_read_bit_for_bit(manager, kind, dtype, shape):
    array = some(shape, dtype)
    for name, data in (("array", array), ("raw", array.tobytes()), ("view", memoryview(array.tobytes()))):
        tensor = manager.register_shared_tensor(name, shape, kind, dtype=dtype, data=data)
        assert (tensor.shape, tensor.dtype.name, tensor.storage_type) == (shape, dtype, kind)
        assert tensor.get_memory_usage() == array.nbytes
        found = await tensor.read()
        assert found.tobytes() == array.tobytes() and found.dtype == array.dtype and found.shape == shape
    assert len(manager.registry) == 1, "equal content must be one storage"


async def test_without_data_a_tensor_is_zero(manager):
    tensor = manager.register_shared_tensor("x", (2, 3), "webgpu", dtype="float16")
    assert not (await tensor.read()).any() and tensor.nbytes == 12


async def test_lists_and_numbers_are_data(manager):
    assert (await manager.register_shared_tensor("l", (2,), data=[1, 2]).read()).tolist() == [1, 2]
    assert (await manager.register_shared_tensor("n", (), dtype="int8", data=-3).read()).item() == -3
    assert (await manager.register_shared_tensor("e", (0,), dtype="int8", data=[]).read()).size == 0


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
async def test_a_tensor_is_data_without_a_copy(manager, kind):
    device = manager.devices.choose(kind)
    for size in (8, 5000):  # small tensors are identified by content
        given = tc.asarray(np.arange(size, dtype=np.float32), device=device)
        uploads, before = device.backend.uploads, device.total
        tensor = manager.register_shared_tensor(f"t{size}", (size,), kind, "m", data=given)
        assert (device.backend.uploads, device.total) == (uploads, before)
        assert manager.register_shared_tensor(f"t{size}", (size,), kind, data=given) is tensor
        assert (await tensor.read()).tolist() == list(range(size))
        given.release()  # releasing a tensor does not free bytes that the manager holds
        assert (await tensor.read()).tolist() == list(range(size))
        del given
        check(manager)


async def test_a_small_tensor_given_as_data_is_identified_by_its_content(manager):
    values = np.arange(4, dtype=np.float32)
    first = manager.register_shared_tensor("a", (4,), data=tc.asarray(values, device=manager.devices.cpu))
    assert manager.register_shared_tensor("a", (4,), data=values) is first
    assert manager.register_shared_tensor("b", (4,), data=values).entry is first.entry


async def test_a_twin_given_as_a_tensor_keeps_its_values(manager):
    values = np.arange(4, dtype=np.float32)
    manager.register_shared_tensor("a", (4,), "cpu", "m", data=values)
    twin = tc.asarray(values, device=manager.devices.cpu)
    manager.register_shared_tensor("b", (4,), "cpu", data=twin)
    assert manager.devices.cpu.memory()["activations"] == 16, "its own bytes are not weights"
    assert manager.devices.cpu.memory()["weights"] == 16
    twin.release()


async def test_a_computed_tensor_is_data_and_an_uncomputed_one_is_not(manager):
    t = tc.asarray(np.ones((2, 2), np.float32), device=manager.devices.cpu)
    lazy = t + t
    with pytest.raises(TensorCommonsError, match="must be computed"):
        manager.register_shared_tensor("x", (2, 2), data=lazy)
    await lazy.realize()
    assert (await manager.register_shared_tensor("x", (2, 2), data=lazy).read()).tolist() == [[2, 2], [2, 2]]
    with pytest.raises(TensorCommonsError, match="webgpu"):
        manager.register_shared_tensor("y", (2, 2), "webgpu", data=lazy)
    t.release()


async def test_registering_again_returns_the_existing_tensor(manager):
    data = some((4, 4))
    first = manager.register_shared_tensor("x", (4, 4), "cpu", "a", ["b"], data=data)
    again = manager.register_shared_tensor("x", (4, 4), "cpu", "c", ["d"], data=data.copy())
    assert again is first
    assert first.producer_model == "a" and first.holders == ["a", "c"]
    assert first.consumer_models >= {"b", "c", "d"}
    assert manager.register_shared_tensor("x", [4, 4]) is first, "without data the bytes are not compared"
    assert manager.register_shared_tensor("x", np.array([4, 4])) is first


async def test_registering_a_name_differently_is_an_error_with_the_difference(manager):
    data = some((4, 4))
    manager.register_shared_tensor("x", (4, 4), "cpu", "a", data=data)
    before = manager.report()
    differences: dict[str, dict[str, Any]] = {
        "shape": {"shape": (2, 8)},
        "dtype": {"dtype": "int32"},
        "storage_type": {"storage_type": "webgpu"},
        "the bytes": {"data": data + 1},
        "shape.*dtype": {"shape": (2,), "dtype": "int8"},
    }
    for what, arguments in differences.items():
        with pytest.raises(TensorCommonsError, match=what):
            manager.register_shared_tensor(**{"name": "x", "shape": (4, 4), "producer_model": "z", **arguments})
    assert manager.report() == before


async def test_the_same_content_under_another_name_is_one_storage(manager):
    data = some((64, 64))
    a = manager.register_shared_tensor("a", (64, 64), "webgpu", "m", data=data)
    uploads = backends(manager)[1].uploads
    b = manager.register_shared_tensor("b", (64, 64), "webgpu", "n", data=data)
    assert a is not b and a.entry is b.entry and a.identity == b.identity
    assert backends(manager)[1].uploads == uploads
    assert a.holders == ["m"] and b.holders == ["n"]
    assert manager.register_shared_tensor("c", (4096,), "webgpu", data=data.reshape(-1)).entry is not a.entry
    assert manager.register_shared_tensor("d", (64, 64), "cpu", data=data).entry is not a.entry


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (ShapeMismatch, {"shape": (-1, 2)}),
        (ShapeMismatch, {"shape": 4}),
        (ShapeMismatch, {"shape": (2.5,)}),
        (ShapeMismatch, {"shape": (True,)}),
        (ShapeMismatch, {"data": [1, 2, 3]}),
        (ShapeMismatch, {"data": b"123"}),
        (UnsupportedDtype, {"dtype": "complex64"}),
        (UnsupportedDtype, {"dtype": "int32", "data": np.ones((2,), np.float32)}),
        (UnsupportedDtype, {"dtype": "int32", "data": [1.5, 2.5]}),
        (UnsupportedDtype, {"dtype": "uint8", "data": [1, 300]}),
        (UnsupportedDtype, {"dtype": "int8", "data": np.array([1, 300])}),
        (DeviceUnavailable, {"storage_type": "webnn"}),
        (DeviceUnavailable, {"storage_type": "gpu"}),
        (TensorCommonsError, {"name": ""}),
        (TensorCommonsError, {"name": 3}),
        (TensorCommonsError, {"consumer_models": "gpt2"}),
        (TensorCommonsError, {"consumer_models": [None]}),
        (TensorCommonsError, {"producer_model": ["a"]}),
        (MemoryBudgetError, {"shape": (10**7, 10**7)}),
    ],
)
def test_bad_input_changes_nothing(manager, error, arguments):
    before = manager.report()
    with pytest.raises(error):
        manager.register_shared_tensor(**{"name": "x", "shape": (2,), "producer_model": "m", **arguments})
    assert manager.report() == before and "x" not in manager.tensors


def test_a_missing_device_is_an_error_with_the_reason():
    manager = tc.TensorSharingManager()
    for kind in ("webgpu", "webnn"):
        with pytest.raises(DeviceUnavailable, match="open_devices"):
            manager.register_shared_tensor("x", (2,), kind)


# --- holding ---


async def test_acquiring_twice_makes_one_hold(manager):
    x = manager.register_shared_tensor("x", (2,), "cpu", "a", ["b"])
    assert (x.holders, x.reference_count) == (["a"], 1)
    assert manager.get_shared_tensor("x", "b") is x and manager.get_shared_tensor("x", "b") is x
    assert not x.acquire("b") and not x.acquire("a") and x.reference_count == 2
    assert x.release("b") and not x.release("b") and not x.release("nobody") and x.reference_count == 1
    assert x.acquire("b") and x.reference_count == 2, "a consumer may acquire it again"
    assert x.release("a") and x.release("b") and x.reference_count == 0 and x.can_be_freed()


async def test_a_model_without_a_grant_is_refused(manager):
    x = manager.register_shared_tensor("x", (2,), "cpu", "a", ["b"])
    with pytest.raises(NotAConsumer, match="share_tensor_between_models"):
        manager.get_shared_tensor("x", "c")
    with pytest.raises(NotAConsumer):
        x.acquire("c")
    assert x.holders == ["a"] and manager.get_shared_tensor("x") is x and manager.get_shared_tensor("y", "c") is None


async def test_granting(manager):
    x = manager.register_shared_tensor("x", (2,), "cpu", "a", ["b"])
    assert manager.share_tensor_between_models("x", "a", ["c"]) and manager.share_tensor_between_models("x", "a", ["c"])
    assert x.acquire("c") and x.reference_count == 2
    with pytest.raises(NotAConsumer):
        manager.share_tensor_between_models("x", "b", ["d"])  # granted, but without a hold yet
    with pytest.raises(TensorNotFound):
        manager.share_tensor_between_models("y", "a", ["d"])
    with pytest.raises(TensorCommonsError):
        manager.share_tensor_between_models("x", "a", "gpt2")
    assert x.consumer_models == {"a", "b", "c"}


async def test_releasing_a_model_ends_all_its_holds_and_no_other(manager):
    x = manager.register_shared_tensor("x", (4,), "cpu", "a", ["b"], data=some((4,)))
    y = manager.register_shared_tensor("y", (4,), "cpu", "b", data=some((4,)))
    x.acquire("b")
    manager.create_tensor_view("x", "v", (0,), (2,), "b")
    manager.create_tensor_view("x", "w", (0,), (2,), "only views")
    assert "only views" in manager.get_model_memory_usage()
    assert manager.release_model_tensors("b") == 3 and manager.release_model_tensors("b") == 0
    assert x.holders == ["a"] and y.holders == []
    assert manager.release_model_tensors("a") == 1 and not x.can_be_freed(), "the hold of a view must stay"
    assert manager.optimize_memory_usage()["freed_tensors"] == ["y"]
    assert manager.release_model_tensors("only views") == 1 and x.can_be_freed()
    assert manager.release_model_tensors("never heard of") == 0
    assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]


async def test_a_model_and_a_tensor_may_use_one_name_for_the_same_bytes(manager):
    """A weight ``w`` of model m and a registered tensor ``w`` with the same content, held by m."""
    device = manager.devices.cpu
    data = some((4,))
    weight = manager.registry.intern(
        device, memoryview(data.tobytes()), tc.TensorSharingManager().register_shared_tensor("s", (4,)).entry.spec
    )
    weight.hold("m", "w")
    tensor = manager.register_shared_tensor("w", (4,), "cpu", "m", data=data)
    assert tensor.entry is weight and tensor.release("m") and not tensor.release("m") and weight.names == {"m": {"w"}}
    await tensor.write(data + 1)
    assert tensor.entry is not weight
    assert bytes(await device.read(weight.storage.handle, 0, 16)) == data.tobytes(), "the weight of the model changed"


# --- freeing ---


async def test_freeing_a_tensor_removes_it(manager):
    x = manager.register_shared_tensor("x", (4,), "cpu", data=some((4,)))
    view = x.create_view("v", (1,), (2,))
    manager.register_shared_tensor("twin", (4,), "cpu", "m", data=some((4,)))
    answer = manager.optimize_memory_usage()
    assert answer["freed_tensors"] == ["x"] and answer["freed_memory_bytes"] == 0, "the twin must keep the bytes"
    new = manager.register_shared_tensor("x", (4,), "cpu", "m", data=some((4,)))
    new.create_view("v", (0,), (1,), "m")
    for old in (x, view):
        assert old.holders == [] and old.reference_count == 0
        assert not old.release("m"), "an old handle may not end a hold of the new tensor"
        with pytest.raises(TensorReleased):
            old.acquire("m")
        with pytest.raises(TensorReleased):
            await old.read()
        with pytest.raises(TensorReleased):
            await old.write(np.zeros(old.shape, np.float32))
        with pytest.raises(TensorReleased):
            old.create_view("z", (0,), (1,))
    with pytest.raises(TensorReleased):
        await x.copy_to("cpu")
    with pytest.raises(TensorReleased):
        x.pin()
    assert new is not x and new.reference_count == 2


async def test_a_pinned_tensor_stays(manager):
    x = manager.register_shared_tensor("x", (4,))
    x.pin()
    x.pin()
    assert x.is_pinned and not x.can_be_freed() and manager.optimize_memory_usage()["freed_tensors_count"] == 0
    x.unpin()
    x.unpin()
    assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]


# --- writing ---


@pytest.mark.parametrize("kind", ["cpu", "webgpu"])
@pytest.mark.parametrize("dtype", DTYPES)
async def test_write_replaces_all_values(manager, kind, dtype):
    x = manager.register_shared_tensor("x", (5, 3), kind, "m", dtype=dtype, data=some((5, 3), dtype))
    other = some((5, 3), dtype, 1)
    await x.write(other)
    assert (await x.read()).tobytes() == other.tobytes()
    twin = manager.register_shared_tensor("y", (5, 3), kind, "m", dtype=dtype, data=other)
    assert twin.entry is x.entry, "after a write its identity must be that of the new content"
    await x.write(other.tobytes())
    assert x.entry is not twin.entry, "a write may not change the values of other holders"


async def test_a_write_leaves_equal_tensors_unchanged(manager):
    data = some((6,))
    a = manager.register_shared_tensor("a", (6,), "webgpu", "m", ["c"], data=data)
    b = manager.register_shared_tensor("b", (6,), "webgpu", "n", data=data)
    a.acquire("c")
    view = a.create_view("v", (2,), (2,), "v's")
    a.pin()
    held = b.tensor
    await a.write(data + 1)
    assert a.holders == ["m", "c"] and view.holders == ["v's"] and a.is_pinned and not b.is_pinned
    assert b.holders == ["n"] and (await b.read()).tobytes() == data.tobytes() == (await held.read()).tobytes()
    assert (await view.read()).tobytes() == (data + 1)[2:4].tobytes()
    a.unpin()


@pytest.mark.parametrize("bad", [[1, 2], b"abc", np.zeros((4,), np.complex64)])
async def test_a_write_that_does_not_fit_changes_nothing(manager, bad):
    data = some((4,))
    x = manager.register_shared_tensor("x", (4,), "cpu", "m", data=data)
    manager.register_shared_tensor("twin", (4,), "cpu", "m", data=data)
    before = (manager.report(), x.entry)
    with pytest.raises((ShapeMismatch, UnsupportedDtype)):
        await x.write(bad)
    assert (manager.report(), x.entry) == before


async def test_two_partial_writes_never_get_one_identity(manager):
    """Two tensors of one content that are both written in part: two contents, two entries."""
    a = manager.register_shared_tensor("a", (8,), "cpu", "m", data=some((8,)))
    va = a.create_view("va", (0,), (2,))
    await va.write([1, 2])
    b = manager.register_shared_tensor("b", (8,), "cpu", "m", data=a.tensor)
    await va.write([3, 4])
    assert (await b.read())[:2].tolist() == [1, 2] and (await a.read())[:2].tolist() == [3, 4]
    assert len(manager.registry) == 2


async def test_two_simultaneous_writes_leave_the_values_of_one(manager):
    data = some((32,))
    a = manager.register_shared_tensor("a", (32,), "webgpu", "m", data=data)
    manager.register_shared_tensor("b", (32,), "webgpu", "m", data=data)
    va, vb = a.create_view("va", (0,), (16,)), a.create_view("vb", (16,), (16,))
    await asyncio.gather(va.write(np.ones(16)), vb.write(np.full(16, 2.0)), a.create_view("vc", (3,), (1,)).write([7]))
    assert (await a.read()).tolist() == [1, 1, 1, 7] + [1] * 12 + [2] * 16
    assert len(manager.registry) == 2


async def test_parts_of_one_word_can_be_written_at_the_same_time(manager):
    x = manager.register_shared_tensor("x", (8,), "webgpu", dtype="uint8")
    views = [x.create_view(f"v{i}", (i,), (1,)) for i in range(8)]
    await asyncio.gather(*(view.write([i + 1]) for i, view in enumerate(views)))
    assert (await x.read()).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_bytes_that_are_being_written_are_not_shared(manager):
    old, new = some((8,)), some((8,), seed=1)
    a = manager.register_shared_tensor("a", (8,), "webgpu", "m", data=old)
    assert await a.entry.storage.evict()

    async def join():
        await asyncio.sleep(0)
        return manager.register_shared_tensor("b", (8,), "webgpu", "n", data=old)

    va = a.create_view("va", (0,), (8,))
    _, b = await asyncio.gather(va.write(new), join())
    assert (await b.read()).tobytes() == old.tobytes() and (await a.read()).tobytes() == new.tobytes()


async def test_a_tensor_that_is_freed_while_it_is_written_leaves_nothing(manager):
    for twin in (False, True):
        x = manager.register_shared_tensor("x", (5,), "webgpu", dtype="int8", data=[1, 2, 3, 4, 5])
        if twin:
            manager.register_shared_tensor("twin", (5,), "webgpu", "m", dtype="int8", data=[1, 2, 3, 4, 5])
        work = asyncio.create_task(x.create_view("v", (1,), (1,)).write([9]))
        await asyncio.sleep(0)
        assert manager.optimize_memory_usage()["freed_tensors"] == ["x"]
        with pytest.raises(TensorReleased):
            await work
        check(manager)


# --- identity and computation ---


async def test_writing_a_tensor_changes_its_identity(manager):
    """Graphs merge equal identities, so a written tensor gets another one, traced or not."""
    data = np.arange(4, dtype=np.float32)
    a = manager.register_shared_tensor("a", (4,), "cpu", "m", data=data)
    t = a.tensor
    doubled = t * 2
    assert (await (doubled + 1).read()).tolist() == [1, 3, 5, 7]
    await a.write(data + 10)
    b = manager.register_shared_tensor("b", (4,), "cpu", "m", data=data)
    left, right = doubled + 3, b.tensor * 2 + 3
    await tc.tensor.realize([left, right])
    assert (await left.read()).tolist() == [23, 25, 27, 29] and (await right.read()).tolist() == [3, 5, 7, 9]


async def test_one_program_runs_on_other_bytes_of_the_same_shape(manager):
    from tensorcommons.graph.bound import compile_graph

    data = np.arange(4, dtype=np.float32)
    device = manager.devices.cpu
    a = manager.register_shared_tensor("a", (4,), "cpu", "m", data=data)
    first = await compile_graph(device, [(a.tensor * 2).node])
    await a.write(data + 10)
    b = manager.register_shared_tensor("b", (4,), "cpu", "m", data=data)
    again = await compile_graph(device, [(b.tensor * 2).node])
    assert again.program is first.program and again.leaves != first.leaves
    for bound, expected in ((again, [0, 2, 4, 6]), (first, [20, 22, 24, 26])):
        ((storage, _),) = await bound.run()
        assert np.frombuffer(await device.read(storage.handle, 0, 16), np.float32).tolist() == expected
        storage.release()


# --- copies ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("source", "target"), [("cpu", "webgpu"), ("webgpu", "cpu"), ("cpu", "cpu")])
async def test_copies_are_bit_exact(manager, source, target, dtype):
    data = some((7, 3), dtype)
    x = manager.register_shared_tensor("x", (7, 3), source, "a", ["b"], dtype=dtype, data=data)
    y = await x.copy_to(target)
    assert (y.name, y.storage_type, y.holders, y.producer_model) == (f"x_{target}", target, ["a"], "a")
    assert y.consumer_models >= {"b"} and y.dtype is x.dtype and y.identity == x.identity
    assert (await y.read()).tobytes() == data.tobytes()
    assert await x.copy_to(target) is y, "copying again must give the same tensor"
    assert (y.entry is x.entry) == (source == target)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "float64"])
async def test_tensors_move_between_devices(manager, dtype):
    data = some((7, 3), dtype)
    cpu, gpu = manager.devices.cpu, manager.devices.webgpu
    there = await tc.asarray(data, dtype=dtype, device=cpu).to(gpu)
    back = await there.to(cpu)
    assert there.device is gpu and (await back.read()).tobytes() == data.tobytes() and await back.to(cpu) is back
    there.release()
    back.release()


async def test_a_refused_copy_moves_nothing(manager):
    x = manager.register_shared_tensor("x", (4,), "cpu", "a", data=some((4,)))
    before = manager.report()
    with pytest.raises(DeviceUnavailable, match="not for this test"):
        await x.copy_to("webnn")
    assert manager.report() == before
