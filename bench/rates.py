"""Measure the rates by which a graph is partitioned (Facts in backends/facts.py), on every device of this browser.

The fastest of the rounds counts, because other work of the machine only slows them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

import tensorcommons as tc

PRODUCT = {"cpu": 128}  # rows and columns of a product, by device; 512 take 0.7 s in NumPy in Pyodide
ELEMENTS = 1 << 19
NAMES = ("ms a part", "multiply-adds a ms", "elements a ms", "bytes a ms")


async def measure_rates(devices: tc.Devices, rounds: int) -> dict[str, tuple[float, ...]]:
    """Measure, by kind of device, the fixed cost of a part, and the work per ms beyond that."""
    return {device.facts.what: await _rates(device, rounds) for device in devices.opened}


async def _rates(device: tc.Device, rounds: int) -> tuple[float, ...]:
    size = PRODUCT.get(device.kind, 512)
    rng = np.random.default_rng(0)
    small, large, square = (
        tc.asarray(rng.standard_normal(shape, np.float32), device=device) for shape in ((4,), (ELEMENTS,), (size, size))
    )
    exp, product = tc.compile(tc.exp), tc.compile(lambda x: tc.sum(tc.linear(x, x)))
    total, bytes_ = tc.compile(lambda x: tc.sum(tc.exp(x))), rng.standard_normal(ELEMENTS, np.float32)

    async def cross() -> None:
        there = tc.asarray(bytes_, device=device)
        await there.read()
        there.release()

    async def run(compiled: Any, x: tc.Tensor) -> None:
        await (await compiled(x)).read()

    fixed = await _least(lambda: run(exp, small), rounds)
    work = (
        (lambda: run(product, square), size**3),
        (lambda: run(total, large), 2 * ELEMENTS),  # exp of each, and their sum
        (cross, 2 * bytes_.nbytes),
    )
    rates = [amount / max(await _least(each, rounds) - fixed, 1e-3) for each, amount in work]
    for tensor in (small, large, square):
        tensor.release()
    return fixed, *rates


async def _least(work: Callable[[], Awaitable[None]], rounds: int) -> float:
    samples = []
    for _ in range(rounds + 2):  # the first two compile and warm up
        started = time.perf_counter()
        await work()
        samples.append((time.perf_counter() - started) * 1e3)
    return min(samples[2:])


def rates_table(found: dict[str, tuple[float, ...]]) -> str:
    """Format the table."""
    lines = ["| | " + " | ".join(NAMES) + " |", "|---" * (len(NAMES) + 1) + "|"]
    for kind, (fixed, *others) in found.items():
        lines.append(f"| {kind} | {fixed:.2f} | " + " | ".join(f"{rate:.1e}" for rate in others) + " |")
    return "\n".join(lines)
