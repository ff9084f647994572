"""Random expressions of views, broadcasts, reductions and sums, compared with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tests.cases.support import near, on


class Choice(Protocol):
    """Source of random whole numbers: a seed here, Hypothesis in tests/ops/test_fuzz.py."""

    def __call__(self, low: int, high: int) -> int:
        """Return a number from ``low`` to ``high``, both included."""
        ...


Pair = tuple[Any, Any]  # the tensor, and its float64 reference


def _slice(x: Any, a: Any, pick: Choice) -> Pair:
    key = []
    for size in a.shape:
        step = (1, 1, 2, -1, -2, 3)[pick(0, 5)]
        low, high = sorted((pick(0, size), pick(0, size)))
        key.append(slice(low, high, step) if step > 0 else slice(high, (low, None)[pick(0, 1)], step))
    return x[tuple(key)], a[tuple(key)]


def _permute(x: Any, a: Any, pick: Choice) -> Pair:
    axes = list(range(a.ndim))
    order = [axes.pop(pick(0, len(axes) - 1)) for _ in range(a.ndim)]
    return tc.permute_dims(x, order), a.transpose(order)


def _reshape(x: Any, a: Any, pick: Choice) -> Pair:
    shape, rest = [], a.size
    for _ in range(pick(0, 3)):
        divisors = [d for d in range(1, rest + 1) if rest % d == 0] or [1]
        shape.append(divisors[pick(0, len(divisors) - 1)])
        rest //= shape[-1]
    return tc.reshape(x, (*shape, rest)), a.reshape(*shape, rest)


def _broadcast(x: Any, a: Any, pick: Choice) -> Pair:
    shape = (*(pick(1, 3) for _ in range(pick(0, 4 - min(a.ndim, 4)))), *(pick(1, 3) if s == 1 else s for s in a.shape))
    return tc.broadcast_to(x, shape), np.broadcast_to(a, shape)


def _add_a_part(x: Any, a: Any, pick: Choice) -> Pair:
    key = tuple(slice(0, 1) if pick(0, 1) and size else slice(None) for size in a.shape)
    return x + x[key], a + a[key]


def _reduce(x: Any, a: Any, pick: Choice) -> Pair:
    axes = tuple(axis for axis in range(a.ndim) if pick(0, 2) == 0)
    keep = bool(pick(0, 1))
    name = "sum" if pick(0, 1) or 0 in a.shape else "max"
    return getattr(tc, name)(x, axes, keep), getattr(np, name)(a, axis=axes, keepdims=keep)


def _concat(x: Any, a: Any, pick: Choice) -> Pair:
    if a.ndim == 0:
        return x, a
    axis = pick(0, a.ndim - 1)
    return tc.concat([x, x * 0.5], axis), np.concatenate([a, a * 0.5], axis)


STEPS: list[Callable[[Any, Any, Choice], Pair]] = [
    _slice, _permute, _reshape, _broadcast, _add_a_part, _reduce, _concat,
]  # fmt: skip


async def check(device: Device, pick: Choice) -> None:
    """Compare one random expression on ``device`` with NumPy; a failure shows the expression."""
    shape = tuple(pick(0, 5) if pick(0, 5) == 0 else pick(1, 5) for _ in range(pick(0, 4)))
    a = np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape) / 8  # numbers whose sums are exact in float32
    (x,) = on(device, a)
    done = [str(shape)]
    for _ in range(pick(1, 5)):
        step = STEPS[pick(0, len(STEPS) - 1)]
        if a.size > 2000 or (a.ndim > 6 and step is _broadcast):
            break
        x, a = step(x, a, pick)
        done.append(f"{step.__name__} -> {a.shape}")
    try:
        near(await x.read(), a)
    except AssertionError as error:
        error.add_note("; ".join(done))
        raise


async def random_expressions(device: Device) -> None:
    for seed in range(150):
        rng = np.random.default_rng(seed)
        await check(device, lambda low, high, rng=rng: int(rng.integers(low, high + 1)))
