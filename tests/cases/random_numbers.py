"""Random numbers: equal on every device and to NumPy's Philox, and distributed as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.errors import MemoryBudgetError, ShapeMismatch, TensorCommonsError, UnsupportedDtype
from tests.cases.support import refused

SEED = 11
MANY = 100_000


def _words(count: int, block: int = 0) -> Any:
    """Draw the words of the generator by NumPy alone."""
    key = np.random.SeedSequence(SEED).generate_state(2, np.uint64)
    return np.random.Philox(key=key, counter=[block, 0, 0, 0]).random_raw(count)


async def numbers_of_philox(device: Device) -> None:
    generator = tc.random.Generator(SEED)
    first = await generator.uniform((2, 3), device=device).read()
    np.testing.assert_array_equal(first, (_words(6) >> 40).astype(np.float32).reshape(2, 3) / np.float32(2**24))
    second = await generator.uniform(5, -2.0, 6.0, dtype="float16", device=device).read()
    wanted = (_words(5, block=2) >> 53).astype(np.float64) / 2**11 * 8 - 2
    np.testing.assert_array_equal(second, wanted.astype(np.float16))
    whole = await generator.randint(-5, 250, 4, device=device).read()
    exact = [int(word) * 255 // 2**64 - 5 for word in _words(4, block=4)]
    np.testing.assert_array_equal(whole, np.array(exact, np.int32))
    values = await generator.normal(3, 1.0, 2.0, device=device).read()
    a, b = (_words(4, block=5) >> 11).astype(np.float64).reshape(2, 2) / 2**53
    pairs = np.sqrt(-2 * np.log1p(-a)) * np.stack([np.cos(2 * np.pi * b), np.sin(2 * np.pi * b)])
    np.testing.assert_allclose(values, (1 + 2 * pairs).reshape(-1)[:3], rtol=1e-6)
    order = await generator.permutation(9, device=device).read()
    np.testing.assert_array_equal(order, np.argsort(_words(9, block=6)))


async def shapes_dtypes_and_places(device: Device) -> None:
    generator = tc.random.Generator(SEED)
    for shape in ((), (0,), (2, 0, 3), (4, 1)):
        made: list[tuple[Any, str]] = [
            (generator.uniform(shape, device=device), "float32"),
            (generator.normal(shape, dtype="float16", device=device), "float16"),
            (generator.randint(0, 9, shape, dtype="uint32", device=device), "uint32"),
            (generator.choice(7, shape, device=device), "int32"),
        ]
        for tensor, dtype in made:
            got = await tensor.read()
            assert (tensor.device, got.shape, got.dtype.name) == (device, shape, dtype)
    x = tc.asarray(np.arange(12, dtype=np.float32).reshape(3, 4), device=device)
    shuffled = await generator.permutation(x, axis=1).read()
    np.testing.assert_array_equal(np.sort(shuffled, 1), await x.read())
    assert len({tuple(np.argsort(row)) for row in shuffled}) == 1  # the same order in each row
    rows = await generator.choice(x, (2, 2)).read()
    assert rows.shape == (2, 2, 4)
    np.testing.assert_array_equal(rows % 4, np.broadcast_to(np.arange(4), rows.shape))
    ends = await generator.randint(2**31 - 1, 2**31, 3, device=device).read()
    np.testing.assert_array_equal(ends, 2**31 - 1)
    wide = await generator.randint(-(2**31), 2**31, 1000, device=device).read()
    assert wide.min() < -(2**30) and wide.max() > 2**30


async def seeds_repeat(device: Device) -> None:
    def drawn() -> list[Any]:
        tc.random.seed(SEED)
        calls: tuple[Any, ...] = (tc.random.uniform, tc.random.normal, tc.random.permutation, tc.random.uniform)
        return [call(20, device=device) for call in calls]

    first, again = await tc.read_together(drawn()), await tc.read_together(drawn())
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not set(first[0]) & set(first[3])
    for seed in (None, SEED + 1):
        tc.random.seed(seed)
        assert not set(await tc.random.uniform(20, device=device).read()) & set(first[0])


async def distributions(device: Device) -> None:
    """Moments and frequencies of 100,000 numbers are within five standard errors."""
    generator = tc.random.Generator(SEED)
    error = MANY**-0.5
    x = (await generator.uniform(MANY, device=device).read()).astype(np.float64)
    assert 0 <= x.min() < 1e-4 and 1 - 1e-4 < x.max() < 1
    assert abs(x.mean() - 0.5) < 5 * error * 12**-0.5
    assert np.abs(np.sort(x) - (np.arange(MANY) + 0.5) / MANY).max() < 2.0 * error  # Kolmogorov and Smirnov: p = 0.0007
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 5 * error
    z = (await generator.normal(MANY, device=device).read()).astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * error * variance**0.5, power
    for limit, part in ((1, 0.3173105), (2, 0.0455003), (3, 0.0026998)):
        assert abs((np.abs(z) > limit).mean() - part) < 5 * error * part**0.5, limit
    _uniform(np.bincount(await generator.randint(0, 10, MANY, device=device).read(), minlength=10))
    half = await generator.uniform(MANY, 1.0, 1.001, dtype="float16", device=device).read()
    assert half.min() >= 1 and half.max() < np.float16(1.001)
    orders = await tc.read_together([generator.permutation(3, device=device) for _ in range(600)])
    _uniform(np.bincount([int(a * 9 + b * 3 + c) for a, b, c in orders])[[5, 7, 11, 15, 19, 21]])
    p = np.array([0.1, 0.0, 0.6, 0.3])
    counts = np.bincount(await generator.choice(4, MANY, p=p, device=device).read(), minlength=4)
    np.testing.assert_array_less(np.abs(counts / MANY - p), 5 * error * (p * (1 - p)) ** 0.5 + 1e-12)
    draws = [generator.choice(4, 2, replace=False, p=p, device=device) for _ in range(2000)]
    pairs = np.array(await tc.read_together(draws))
    assert (pairs != 1).all() and (pairs[:, 0] != pairs[:, 1]).all()
    wanted = {(0, 2): 0.1 * 6 / 9, (2, 3): 0.6 * 3 / 4, (3, 0): 0.3 / 7}
    for pair, part in wanted.items():
        assert abs((pairs == pair).all(1).mean() - part) < 5 * (part / 2000) ** 0.5, pair


def _uniform(counts: Any) -> None:
    """Assert equal frequencies by the statistic of Pearson, within five standard deviations of its mean."""
    degrees, mean = len(counts) - 1, counts.sum() / len(counts)
    assert ((counts - mean) ** 2 / mean).sum() < degrees + 5 * (2 * degrees) ** 0.5, counts


async def wrong_arguments(device: Device) -> None:
    generator = tc.random.Generator(SEED)
    x = tc.asarray([1, 2, 3], device=device)
    refused(device, ShapeMismatch, lambda: generator.uniform((2, -1), device=device))
    refused(device, TensorCommonsError, lambda: generator.uniform(3, 2.0, 1.0, device=device))
    refused(device, UnsupportedDtype, lambda: generator.normal(3, dtype="int32", device=device))
    refused(device, TensorCommonsError, lambda: generator.normal(3, std=-1.0, device=device))
    refused(device, TensorCommonsError, lambda: generator.randint(3, 3, device=device))
    refused(device, UnsupportedDtype, lambda: generator.randint(0, 300, dtype="uint8", device=device))
    refused(device, UnsupportedDtype, lambda: generator.randint(0, 3, dtype="float32", device=device))
    refused(device, UnsupportedDtype, lambda: generator.randint(0.5, 3, device=device))  # type: ignore[arg-type]
    refused(device, UnsupportedDtype, lambda: generator.choice(2**40, 3, device=device))
    refused(device, MemoryBudgetError, lambda: generator.uniform(10**13, device=device))
    refused(device, MemoryBudgetError, lambda: generator.normal(10**13, device=device))
    refused(device, MemoryBudgetError, lambda: generator.permutation(10**13, device=device))
    refused(device, ShapeMismatch, lambda: generator.choice(x, 4, replace=False))
    refused(device, ShapeMismatch, lambda: generator.choice(0, 1, device=device))
    refused(device, ShapeMismatch, lambda: generator.choice(x, 2, p=[0.5, 0.5]))
    refused(device, TensorCommonsError, lambda: generator.choice(x, 2, p=[0.5, 0.6, 0.5]))
    refused(device, ShapeMismatch, lambda: generator.choice(x, 2, replace=False, p=[0.0, 1.0, 0.0]))
    refused(device, TensorCommonsError, lambda: tc.random.Generator(-1))
    refused(device, TensorCommonsError, lambda: tc.random.seed("a"))  # type: ignore[arg-type]
