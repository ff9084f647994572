"""Cost of sharing: get, acquire, release, a report and a subscriber, at 1,000 and at 10,000 tensors.

``PYTHONPATH=pyodide_pkg python -m bench.sharing`` runs it in CPython; inside Pyodide call ``main()``. Each figure is
the median of several rounds in microseconds, with the spread between the first and the third quarter.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tensorcommons as tc

SIZES = (1_000, 10_000)
ROUNDS = 15
FRAME_US = 1_000_000 / 30


def _manager(count: int) -> tc.TensorSharingManager:
    """Make a manager with ``count`` tensors of 64 bytes, each with two of twenty holders."""
    manager = tc.TensorSharingManager(1024)
    for i in range(count):
        manager.register_shared_tensor(
            f"t{i}", (16,), "cpu", f"m{i % 20}", [f"m{(i + 1) % 20}", "reader"], data=np.full(16, i, np.float32)
        )
        manager.get_shared_tensor(f"t{i}", f"m{(i + 1) % 20}")
    return manager


def _timed(work: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Measure the median and spread of one call, in microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        rounds.append((time.perf_counter() - start) / calls * 1e6)
    low, middle, high = statistics.quantiles(rounds, n=4)
    return middle, high - low


def measure(count: int) -> dict[str, tuple[float, float]]:
    """Measure every operation on a manager with ``count`` tensors."""
    start = time.perf_counter()
    manager = _manager(count)
    registering = (time.perf_counter() - start) / count * 1e6
    tensor = manager.tensors[f"t{count // 2}"]

    def acquire_and_release() -> None:
        tensor.acquire("reader")
        tensor.release("reader")

    found = {
        "register + get, each": (registering, 0.0),
        "get": _timed(lambda: manager.get_shared_tensor("t7"), 1000),
        "acquire + release": _timed(acquire_and_release, 1000),
        "report": _timed(manager.report, 1),
        "report as JSON": _timed(lambda: json.dumps(manager.report().to_dict()), 1),
        "get_model_memory_usage": _timed(manager.get_model_memory_usage, 1),
        "get_stats": _timed(manager.get_stats, 1),
    }
    end = manager.subscribe(lambda report: None)
    found["acquire + release, subscribed"] = _timed(acquire_and_release, 1)
    end()
    return found


def main() -> dict[str, Any]:
    """Measure and print a table; gives the figures."""
    results = {count: measure(count) for count in SIZES}
    small, large = SIZES
    print(f"Python {platform.python_version()} on {sys.platform}, NumPy {np.__version__}; µs, median (spread)")
    print(f"{'':32}{f'{small:,} tensors':>20}{f'{large:,} tensors':>22}{'grows':>8}")
    for name in results[small]:
        (a, spread_a), (b, spread_b) = results[small][name], results[large][name]
        print(f"{name:32}{f'{a:,.1f} ({spread_a:,.1f})':>20}{f'{b:,.1f} ({spread_b:,.1f})':>22}{b / a:>7.1f}x")
    share = results[small]["report"][0] / FRAME_US
    print(f"a report of {small:,} tensors at 30 Hz takes {share:.1%} of the time")
    return {str(count): rows for count, rows in results.items()}


if __name__ == "__main__":
    main()
