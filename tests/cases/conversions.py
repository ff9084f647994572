"""Conversions between dtypes: ``astype``, ``dtype=`` of reductions, and data converted on input.

The reference converts one Python number after another, without conversions of NumPy, whose results for floats outside
the range of an int depend on the processor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import UnsupportedOp
from tests.cases.support import INF, NAN, on

DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint32", "uint8", "bool")
WITHOUT_SHADER = {"int64", "int8", "uint8"}
FLOATS = (0.6, 0.6, 0.6, -0.6, 2.5, -2.5, 127.0, 128.5, -129.0, 255.9, 300.0, 65504.0, -0.0)
LARGE_FLOATS = (
    1e20,
    -1e20,
    2.0**31,
    -(2.0**31),
    2.0**32,
    2147483520.0,
    2.0**63,
    -(2.0**63),
    9.2233715e18,
    3e38,
    -1e-30,
)
INTS = (0, 1, -1, 2, 127, 128, -129, 255, 256, 65519, 70000, 2**31 - 1, -(2**31), 2**32 - 1, 2**53 + 1, -(2**63))


def number(value: Any, dtype: str) -> Any:
    """Convert one Python number to ``dtype``: floats saturate and drop their fraction, ints wrap."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return value != 0
    if kind == "f":
        with np.errstate(over="ignore"):
            return float(np.dtype(dtype).type(value))
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if isinstance(value, float):
        if math.isnan(value):
            return 0
        return low if value <= low else high if value >= high else int(value)
    return (int(value) - low) % (high - low + 1) + low


def _values(dtype: str) -> list[Any]:
    if np.dtype(dtype).kind == "f":
        given = (*FLOATS, *(LARGE_FLOATS if dtype == "float32" else ()), INF, -INF, NAN)
        return [number(value, dtype) for value in given]
    return [number(value, dtype) for value in INTS]


async def _read(device: Device, tensor: Any, *dtypes: str) -> Any:
    """Return the result, or None where WebGPU has no shader for a dtype, which the error must name."""
    try:
        return await tensor.read()
    except UnsupportedOp:
        assert device.kind == "webgpu" and WITHOUT_SHADER & set(dtypes), f"the refusal does not name {dtypes}"
        return None


async def every_dtype_to_every_other(device: Device) -> None:
    for source in DTYPES:
        values = _values(source)
        (x,) = on(device, np.array(values, source))
        for target in DTYPES:
            got = await _read(device, tc.astype(x, target), source, target)
            if got is not None:
                assert got.dtype.name == target
                wanted = np.array([number(value, target) for value in values], target)
                ulp = 1.2e-7 if target == "float32" else 0  # WGSL may round an int to either neighbour
                np.testing.assert_allclose(got, wanted, rtol=ulp, atol=0, err_msg=f"{source} to {target}")


async def data_is_converted_the_same_way(device: Device) -> None:
    values = _values("float32")
    for target in ("int64", "int32", "int8", "uint32", "uint8"):
        wanted = [number(value, target) for value in values]
        got = await tc.asarray(np.array(values, np.float32), dtype=target, device=device).read()
        np.testing.assert_array_equal(got, np.array(wanted, target))
    got = await tc.asarray([INF, 1e20, -1e20, NAN], dtype="int64", device=device).read()
    assert got.tolist() == [2**63 - 1, 2**63 - 1, -(2**63), 0]


def _reduced(name: str, values: list[Any], target: str) -> Any:
    """Sum or multiply Python numbers of ``target`` in order, exactly or in float64; gives the last or all results."""
    found, state = [], 1 if name == "prod" else 0
    for value in values:
        state = state * value if name == "prod" else state + value
        found.append(state)
    return np.array([number(each, target) for each in found], target)[... if name == "cumulative_sum" else -1]


#: For each source: ints that wrap, fractions that matter only before truncation, sums beyond the range of the source.
ROWS: dict[str, list[list[Any]]] = {
    "float32": [[0.6, 0.6, 0.6], [1.5, -2.5, 3.75, 200.0], [0.0, 0.25, -0.25]],
    "float16": [[0.6, 0.6, 0.6], [40000.0, 40000.0, -3.5], [0.0, 0.25]],
    "int64": [[2**40, 2**40, 3], [0, -7, 2]],
    "int32": [[2**31 - 1, 2**31 - 1], [-(2**31), -1, 5], [0, 2, 0, -2], [300, 7]],
    "int8": [[127, 127, 127], [-128, -1, 3]],
    "uint32": [[2**32 - 1, 2**32 - 1], [2, 0, 1]],
    "uint8": [[255, 255, 3], [0, 5]],
    "bool": [[True, True, False], [True, True, True], [False, False]],
}


async def dtype_applies_before_the_reduction(device: Device) -> None:
    for source, rows in ROWS.items():
        for row in rows:
            (x,) = on(device, np.array(row, source))
            exact = np.array(row, source).tolist()
            for target in DTYPES:
                cast = [number(value, target) for value in exact]
                for name in ("sum", "prod", "cumulative_sum"):
                    got = await _read(device, getattr(tc, name)(x, dtype=target), source, target)
                    if got is None:
                        continue
                    assert got.dtype.name == target
                    tolerance = 1e-6 if target == "float32" else 1e-3 if target == "float16" else 0
                    wanted, what = _reduced(name, cast, target), f"{name} of {source} {row} as {target}"
                    np.testing.assert_allclose(got, wanted, rtol=tolerance, err_msg=what)


async def sums_of_small_ints_are_as_wide_as_the_standard_says(device: Device) -> None:
    for source, wide in (("int8", "int32"), ("uint8", "uint32"), ("int64", "int64"), ("bool", "int32")):
        (x,) = on(device, np.array([1, 1, 0, 1], source) * np.array(1 if source == "bool" else 100, source))
        for name in ("sum", "prod", "cumulative_sum"):
            result = getattr(tc, name)(x)
            assert result.dtype.name == wide
            got = await _read(device, result, source, wide)
            if got is not None:
                wanted = getattr(np, name.replace("cumulative_sum", "cumsum"))(await x.read(), dtype=wide)
                np.testing.assert_array_equal(got, wanted)


async def long_rows_are_converted_first_too(device: Device) -> None:
    size = 2**16 + 5  # long enough to be reduced in parts
    (x, halves) = on(device, np.full(size, 2**31 - 1, np.int32), np.full(size, 0.6, np.float32))
    np.testing.assert_allclose(await tc.sum(x, dtype="float32").read(), size * (2**31 - 1), rtol=1e-5)
    running = await tc.cumulative_sum(x, dtype="float32").read()
    np.testing.assert_allclose(running, np.arange(1.0, size + 1) * (2**31 - 1), rtol=1e-5)
    assert int(await tc.sum(halves, dtype="int32").read()) == 0
    assert bool(await tc.sum(x, dtype="bool").read()) and bool(await tc.prod(x, dtype="bool").read())
    assert (await tc.cumulative_sum(x, dtype="bool").read()).all()
