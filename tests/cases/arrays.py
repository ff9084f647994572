"""Tensors as the Python array API and NumPy have arrays: names, conversions, assignment. See docs/arrays.md."""

from __future__ import annotations

import copy
import operator
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.bridge.runtime import can_suspend
from tensorcommons.errors import ReadRequired, UnsupportedDtype
from tests.cases import only
from tests.cases.support import on


def fails(error: type[Exception], work: Callable[[], Any], word: str = "") -> None:
    """Assert that ``work`` raises ``error``, or an error of its family, with ``word`` in its message."""
    caught: Exception | None = None
    try:
        work()
    except error as complaint:
        caught = complaint
    assert caught is not None and word in str(caught), f"{caught!r} instead of {error.__name__}"


STANDARD = ("bool", "int8", "uint8", "int32", "uint32", "int64", "float32", "float64")


async def the_namespace_describes_itself(device: Device) -> None:
    (x,) = on(device, np.ones(3, np.float32))
    assert x.__array_namespace__() is x.__array_namespace__(api_version="2024.12") is tc
    fails(ValueError, lambda: x.__array_namespace__(api_version="1999.12"))
    info = tc.__array_namespace_info__()
    assert info.default_dtypes() == {"real floating": tc.float32, "integral": tc.int32, "indexing": tc.int32}
    assert info.default_device() in info.devices() and all(info.capabilities()[key] for key in ("boolean indexing",))
    has = info.dtypes(device=device)
    assert set(has) <= set(STANDARD) and ("float64" in has) == (device.kind == "cpu")
    assert set(info.dtypes(device=device, kind=("bool", "unsigned integer"))) <= {"bool", "uint8", "uint32"}
    for name in has:
        assert (await tc.zeros(2, dtype=name, device=device).read()).dtype == np.dtype(name)
    if device.kind != "cpu":
        fails(UnsupportedDtype, lambda: tc.asarray([1.0], dtype=tc.float64, device=device))
        fails(UnsupportedDtype, lambda: tc.ones(3, dtype=tc.float64, device=device))
        fails(UnsupportedDtype, lambda: tc.astype(x, tc.float64))


async def dtypes_are_those_of_numpy(device: Device) -> None:
    for name, dtype in tc.dtypes.ALL.items():
        assert getattr(tc, name) is dtype and dtype == np.dtype(name) and np.dtype(name) == dtype
        assert np.dtype(dtype) == np.dtype(name) and dtype == np.dtype(name).type and dtype == name
        assert (
            hash(dtype) == hash(np.dtype(name)) and pickle.loads(pickle.dumps(dtype)) is copy.deepcopy(dtype) is dtype
        )
        assert dtype != None and dtype != 3 and [other for other in tc.dtypes.ALL.values() if other == dtype] == [dtype]  # noqa: E711
    for names, wanted in (
        (("int8", "int32"), "int32"), (("uint8", "int32"), "int32"), (("uint32", "int32"), "int64"),
        (("int8", "uint8", "int64"), "int64"), (("float16", "float64"), "float64"), (("bool", "bool"), "bool"),
    ):  # fmt: skip
        for order in (names, names[::-1]):
            assert tc.result_type(*map(tc.dtypes.as_dtype, order)).name == wanted, order
    for wrong in ((tc.int8, tc.uint8), (tc.int32, tc.float32), (tc.bool, tc.int8), (tc.int32, 1.5), (tc.bool, 1)):
        fails(UnsupportedDtype, partial(tc.result_type, *wrong))
    assert tc.result_type(tc.uint8, 1) is tc.uint8 and tc.result_type(tc.float16, 1, 2.5) is tc.float16
    assert (
        tc.can_cast(tc.uint8, tc.int64) and not tc.can_cast(tc.int64, tc.int32) and not tc.can_cast(tc.int8, tc.float32)
    )
    for kind, members in (("integral", {"int8", "uint8", "int32", "uint32", "int64"}), ("bool", {"bool"})):
        assert {name for name, dtype in tc.dtypes.ALL.items() if tc.isdtype(dtype, kind)} == members
    for name in ("float16", "float32", "float64"):
        own, theirs = tc.finfo(name), np.finfo(name)
        assert (own.bits, own.eps, own.max, own.min) == (theirs.bits, theirs.eps, theirs.max, theirs.min)
        assert own.smallest_normal == theirs.smallest_normal and own.dtype is tc.dtypes.as_dtype(name)
    assert (tc.iinfo(tc.int8).min, tc.iinfo(tc.uint32).max, tc.iinfo(tc.int64).bits) == (-128, 2**32 - 1, 64)
    fails(UnsupportedDtype, lambda: tc.finfo(tc.int32))
    fails(UnsupportedDtype, lambda: tc.iinfo(tc.float32))


async def defaults_are_the_same_on_every_device(device: Device) -> None:
    made = {
        "float32": [tc.zeros(2, dtype=None, device=device), tc.ones(2, device=device),
                    tc.eye(2, dtype=None, device=device),
                    tc.linspace(0, 1, 2, dtype=None, device=device), tc.asarray([1.5, 2], device=device),
                    tc.empty(2, dtype=None, device=device)],
        "int32": [tc.arange(2, device=device), tc.full(2, 7, device=device), tc.asarray([1, 2], device=device)],
        "bool": [tc.full(2, True, device=device), tc.asarray([True], device=device)],
    }  # fmt: skip
    for name, tensors in made.items():
        for tensor in tensors:
            assert tensor.dtype == name and tensor.device is device
    (x,) = on(device, np.ones((2, 3), np.float32))
    for like in (tc.zeros_like(x), tc.ones_like(x, dtype="int32"), tc.full_like(x, 2, device="cpu")):
        assert like.shape == (2, 3)
    assert tc.full_like(x, 2, device="cpu").device.kind == "cpu"


async def elements_are_assigned(device: Device) -> None:
    start = np.arange(20, dtype=np.float32).reshape(4, 5)
    mask = start % 3 == 0
    keys: list[tuple[Any, Any]] = [
        (0, 7.0), ((1, 2), -1), ((slice(None), slice(None, None, -2)), np.arange(3, dtype=np.float32)),
        ((..., None, 1), np.ones((4, 1), np.float32)), (mask, 5), (np.array([True, False, True, False]), 2.5),
        (np.array([3, 0, 3]), np.arange(15, dtype=np.float32).reshape(3, 5)),
        (([0, 1], [-1, 2]), np.array([8, 9], np.float32)),
        (slice(2, 2), 1), (Ellipsis, np.array([[[4.0]]], np.float32)),
    ]  # fmt: skip
    for key, value in keys:
        wanted = start.copy()
        wanted[key] = value
        (x,) = on(device, start)
        before, view, doubled = copy.copy(x), x[1:], x * 2
        x[key] = tc.asarray(value, device=device) if isinstance(value, np.ndarray) else value
        got = await tc.read_together([x, before, view, doubled])
        np.testing.assert_array_equal(got[0], wanted, err_msg=str(key))
        np.testing.assert_array_equal(got[1], start)  # what was made before keeps its values
        np.testing.assert_array_equal(got[2], start[1:])
        np.testing.assert_array_equal(got[3], start * 2)
    (x, chosen, whole) = on(device, start, mask, np.arange(3, dtype=np.int32))
    x[chosen] = 0  # a mask on the device needs no read
    np.testing.assert_array_equal(await x.read(), np.where(mask, 0, start))
    fails(ValueError, lambda: operator.setitem(x, 0, np.ones(3, np.float32)))
    fails(IndexError, lambda: operator.setitem(x, 9, 1))
    fails(TypeError, lambda: operator.setitem(whole, 0, 1.5))
    fails(TypeError, lambda: operator.setitem(chosen, (0, 0), tc.asarray([3], device=device)))


async def values_are_read_where_the_device_can_be_waited_for(device: Device) -> None:
    (x, one, whole) = on(
        device, np.array([[1, 2], [3, 4]], np.float32), np.array(2.5, np.float32), np.array([3], np.int32)
    )
    reads = {
        "bool": (lambda: bool(one), True), "float": (lambda: float(one), 2.5), "int": (lambda: int(one), 2),
        "index": (lambda: operator.index(whole[0]), 3), "item": (lambda: x.item(1, 0), 3.0),
        "in": (lambda: 4 in x, True),
        "tolist": (x.tolist, [[1, 2], [3, 4]]), "format": (lambda: f"{one:.2f}", "2.50"),
        "array": (lambda: np.asarray(x).dtype.name, "float32"),
        "pickle": (lambda: pickle.loads(pickle.dumps(x)).shape, (2, 2)),
        "list": (lambda: tc.asarray([one, 1.0]).shape, (2,)),
        "to_device": (lambda: x.to_device("cpu").device.kind, "cpu"),
    }  # fmt: skip
    for name, (read, wanted) in reads.items():
        if device.kind == "cpu" or can_suspend():
            assert read() == wanted, name
        else:
            fails(ReadRequired, read, "await")
    fails(ValueError, lambda: bool(x))
    fails(ValueError, lambda: x.item())
    fails(TypeError, lambda: operator.index(one))
    text = repr(x)
    assert "float32[2, 2]" in text and device.kind in text and ("3." in text) == (device.kind == "cpu")


async def comparisons_with_other_things_are_false(device: Device) -> None:
    (x,) = on(device, np.array([1, 2], np.int32))
    for other in (None, "a", object(), {}):
        assert (await (x == other).read()).tolist() == [False, False]
        assert (await (x != other).read()).tolist() == [True, True]
    assert (await (x == [1, 3]).read()).tolist() == [True, False]
    for big in (2**40, -(2**40), 2**100):
        assert (await (x == big).read()).tolist() == [False, False] and (await (x != big).read()).all()
        assert (await (x < big).read()).all() == (big > 0) and (await (x >= big).read()).all() == (big < 0)
        fails(TypeError, partial(operator.add, x, big))


async def matrices_are_transposed(device: Device) -> None:
    (x,) = on(device, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (await x.T.read()).tolist() == (await x.mT.read()).tolist() == [[0, 3], [1, 4], [2, 5]]
    fails(ValueError, lambda: x[0].T)


async def copies_are_independent(device: Device) -> None:
    (x,) = on(device, np.zeros(3, np.float32))
    twins = [tc.asarray(x, copy=True), tc.astype(x, x.dtype), copy.copy(x), copy.deepcopy(x), tc.positive(x)]
    assert tc.asarray(x) is x and tc.asarray(x, copy=False) is x and tc.astype(x, x.dtype, copy=False) is x
    for twin in twins:
        assert twin is not x
        twin[1] = 5
        assert (await twin.read()).tolist() == [0, 5, 0]
    assert (await x.read()).tolist() == [0, 0, 0]
    fails(ValueError, lambda: tc.asarray([1], copy=False, device=device))


@only("cpu")
async def dlpack_goes_through_numpy(device: Device) -> None:
    (x,) = on(device, np.arange(3, dtype=np.int64))
    theirs = np.from_dlpack(x)
    assert theirs.dtype == np.int64 and theirs.tolist() == [0, 1, 2] and x.__dlpack_device__() == (1, 0)
    assert tc.from_dlpack(np.arange(3.0)).tolist() == [0, 1, 2] and tc.from_dlpack(x) is x
    fails(BufferError, lambda: x.__dlpack__(copy=False))


@only("cpu")
async def wide_dtypes_are_computed(device: Device) -> None:
    third = tc.asarray([1.0], dtype=tc.float64, device=device) / 3
    assert third.dtype is tc.float64 and third.item() == 1 / 3 and tc.sqrt(third).item() == (1 / 3) ** 0.5
    assert (await (tc.asarray([2**40], dtype="int64") * 2).read()).tolist() == [2**41]
    rows = tc.asarray(np.arange(6).reshape(3, 2), device=device)
    assert rows[tc.asarray([2, 0], dtype="int64")].tolist() == [[4, 5], [0, 1]]
    assert rows[rows > 2].tolist() == [3, 4, 5] and rows[tc.asarray(1)].tolist() == [2, 3]
    assert rows[True].shape == (1, 3, 2) and rows[False].shape == (0, 3, 2)
