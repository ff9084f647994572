"""Every op × dtype × difficult operands against NumPy in float64; one case per op, made from its samples.

For each dtype that a sample declares: all its shapes, each operand dense, just computed, or a view with an offset,
strides, negative strides or another order of axes; special values in all combinations; and for
the dtypes that it does not declare, a refusal. One program computes all results of an op and dtype.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import UnsupportedDtype
from tensorcommons.ops.registry import OPS
from tensorcommons.samples import DTYPES, SAMPLES, Sample
from tensorcommons.tensor import Tensor, realize
from tests.cases.fuzz import LAYOUTS, Choice, seeded
from tests.cases.support import refused

FLOAT_SPECIALS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e4, -6e4)
FLOAT32_SPECIALS = (3e38, -3e38, 3e-38, 1e-30, 16777217.0)
INT_SPECIALS = {
    "int32": (0, 1, -1, 2, -7, 31, 32, 65536, 2**31 - 1, -(2**31)),
    "uint32": (0, 1, 2, 31, 32, 65536, 2**31, 2**32 - 1),
    "bool": (False, True),
}


def reference(sample: Sample, operands: list[Any]) -> Any:
    """Compute the reference of the op: floats in float64, other dtypes unchanged."""
    with np.errstate(all="ignore"):
        return np.asarray(sample.wanted(*(a.astype(np.float64) if a.dtype.kind == "f" else a for a in operands)))


# Absolute errors of a device's own kernels, where they exceed the tolerance of a sample.
DEVIATIONS = {("webnn", "gelu"): 7e-7}  # LiteRT's, near where the result is 0


def compare(sample: Sample, got: Any, wanted: Any, dtype: str, kind: str) -> None:
    """Assert the dtype of ``got``, and its values within the sample's tolerance on that kind of device."""
    expected = sample.result or (dtype if wanted.dtype.kind == "f" else wanted.dtype.name)
    assert (got.dtype.name, got.shape) == (expected, wanted.shape), f"{got.dtype}{got.shape}: {expected}{wanted.shape}"
    if np.dtype(expected).kind != "f":
        np.testing.assert_array_equal(got, wanted.astype(expected))
        return
    half = "float16" in (dtype, expected)
    tolerance = sample.half_tolerance if half else sample.tolerance
    with np.errstate(all="ignore"):
        rounded = wanted.astype(expected).astype(np.float64)
    exact = wanted.astype(np.float64)
    result = got.astype(np.float64)
    odd = ~np.isfinite(rounded) | ~np.isfinite(result)
    limit = float(np.finfo(expected).max) * (1 - tolerance)  # at an overflow, both sides are accepted
    both = (np.abs(exact) >= limit) & (np.abs(result) >= limit)
    fine = np.isfinite(exact) & both & (np.sign(exact) == np.sign(result))
    np.testing.assert_array_equal(result[odd & ~fine], rounded[odd & ~fine])
    error, size = np.abs(result[~odd] - rounded[~odd]), np.abs(rounded[~odd])
    if sample.each:
        tiny = 6e-8 if expected == "float16" else 1.2e-38  # a step of float16 near 0; WGSL may flush smaller values
        wrong = error > tolerance * size + max(tiny, DEVIATIONS.get((kind, sample.op), 0))
        assert not wrong.any(), f"{result[~odd][wrong][:5]} instead of {rounded[~odd][wrong][:5]}"
    else:
        assert np.linalg.norm(error) <= tolerance * np.linalg.norm(size) + 1e-37, f"{np.linalg.norm(error):.2e}"


def special_operands(sample: Sample, dtype: str) -> list[Any]:
    """Make all combinations of special values, one array per operand."""
    values: tuple[Any, ...] = INT_SPECIALS.get(dtype, FLOAT_SPECIALS)
    if dtype == "float32":
        values += FLOAT32_SPECIALS
    count = len(sample.shapes[0])
    with np.errstate(all="ignore"):
        grid = np.meshgrid(*[np.array(values).astype(dtype)] * count, indexing="ij")
    return [axis.reshape(-1) for axis in grid]


def attempts(sample: Sample, dtype: str, rng: np.random.Generator) -> Iterator[tuple[list[Any], list[int]]]:
    """Return the operands to try, and the number of the layout of each."""
    for shapes in sample.shapes:
        operands = sample.operands(rng, dtype, shapes)
        yield operands, [0] * len(operands)
        if max((a.size for a in operands), default=0) < 10_000:
            yield operands, [int(rng.integers(1, len(LAYOUTS))) for _ in operands]
    if sample.special:
        operands = special_operands(sample, dtype)
        yield operands, [0] * len(operands)


def computed(device: Device, sample: Sample, operands: list[Any], layouts: list[int]) -> Tensor:
    """Call the op of the sample on these operands, each in the layout of its number."""
    tensors = [
        LAYOUTS[number if a.dtype != np.int8 else 0](
            partial(tc.asarray, device=device), a
        )  # the storage of a weight is read as it lies
        for a, number in zip(operands, layouts, strict=True)
    ]
    result: Tensor = sample.call(*tensors)
    return result


async def check(device: Device, sample: Sample, dtype: str, tries: list[tuple[list[Any], list[int]]]) -> None:
    """Compute all tries as one program and compare each."""
    results = []
    for operands, layouts in tries:
        result = computed(device, sample, operands, layouts)
        assert sample.op in ops_of(result), f"the declared call does not run {sample.op}"
        results.append(result)
    await realize(results)
    for result, (operands, layouts) in zip(results, tries, strict=True):
        try:
            compare(sample, await result.read(), reference(sample, operands), dtype, device.kind)
        except AssertionError as error:
            shown = [a if a.size < 20 else a.shape for a in operands]
            error.add_note(f"{sample.op} {dtype} {shown} {[LAYOUTS[n].__name__ for n in layouts]}")
            raise


def ops_of(tensor: Tensor) -> set[str]:
    """Return the ops that compute a tensor."""
    found, waiting = set(), [tensor.node]
    while waiting:
        node = waiting.pop()
        found |= {node.op.name} if node.op else set()
        waiting.extend(node.inputs)
    return found


def _generator(op: str, dtype: str) -> np.random.Generator:
    return np.random.default_rng([*op.encode(), *dtype.encode()])


def _case(op: str) -> Callable[[Device], Awaitable[None]]:
    async def case(device: Device) -> None:
        own = [sample for sample in SAMPLES if sample.op == op]
        taken = {dtype for sample in own for dtype in sample.dtypes}
        # Refusals come first: what checks leave behind may be freed while one counts the memory.
        for sample, dtype in itertools.product(own, DTYPES):
            if dtype not in taken:
                operands = sample.operands(_generator(op, dtype), dtype, sample.shapes[0])
                tensors = [tc.asarray(a, device=device) for a in operands]
                refused(device, UnsupportedDtype, partial(sample.call, *tensors))
        for sample in own:
            for dtype in (dtype for dtype in DTYPES if dtype in sample.dtypes):
                await check(device, sample, dtype, list(attempts(sample, dtype, _generator(op, dtype))))

    case.__name__ = case.__qualname__ = op
    return case


for _op in OPS:
    if any(sample.op == _op for sample in SAMPLES):
        globals()[f"op_{_op}"] = _case(_op)


async def every_op_has_a_sample(device: Device) -> None:
    missing = set(OPS) - {sample.op for sample in SAMPLES}
    assert not missing, f"no samples in pyodide_pkg/tensorcommons/samples for: {sorted(missing)}"
    unknown = {sample.op for sample in SAMPLES} - set(OPS)
    assert not unknown, f"samples of unknown ops: {sorted(unknown)}"


async def one_at_random(device: Device, pick: Choice) -> None:
    """Check a random op, dtype, operands and layouts, drawn by Hypothesis on CPython and from a seed elsewhere."""
    sample = SAMPLES[pick(0, len(SAMPLES) - 1)]
    dtype = sample.dtypes[pick(0, len(sample.dtypes) - 1)]
    small = [shapes for shapes in sample.shapes if all(np.prod(shape) < 10_000 for shape in shapes)]
    operands = sample.operands(np.random.default_rng(pick(0, 2**31)), dtype, small[pick(0, len(small) - 1)])
    await check(device, sample, dtype, [(operands, [pick(0, len(LAYOUTS) - 1) for _ in operands])])


async def at_random(device: Device) -> None:
    pick = seeded(0)
    for _ in range(100):
        await one_at_random(device, pick)
