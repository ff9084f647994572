"""Lengths that texts are padded to (BUCKETS in models/text.py), chosen by the time of a forward of each length.

A length may be padded to a bucket if that takes at most a third longer than the length itself; each bucket costs
a trace and, on WebNN, a graph. Reports for every device the shortest list that the rule allows, and the cost of ours.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

import tensorcommons as tc
from tensorcommons.models import text

LENGTHS = (*range(8, 64, 8), *range(64, 513, 16))
SLACK = 4 / 3


async def measure_buckets(
    devices: tc.Devices, folder: Path, rounds: int, only: Collection[str] = ()
) -> dict[str, dict[int, float]]:
    """Measure, by device and length, the ms of a forward of one text through the model in ``folder``, the result read
    back.

    The fastest of ``rounds`` counts. ``only`` names devices by kind; all if empty.
    """
    found: dict[str, dict[int, float]] = {}
    buckets, text.BUCKETS = text.BUCKETS, LENGTHS
    try:
        for device in (devices.webgpu, devices.webnn):
            if device is None or (only and device.kind not in only):
                continue
            manager = tc.TensorSharingManager(2048, devices, activation_cache=False)
            model = await tc.from_pretrained(
                str(folder), manager=manager, tokenizer=False, cache=None, device=device.kind
            )
            name = f"{device.kind}{' (software)' if device.is_software else ''}"
            found[name] = {length: await _least(model, length, rounds) for length in LENGTHS}
            model.unload()
    finally:
        text.BUCKETS = buckets
    return found


async def _least(model: tc.Model, length: int, rounds: int) -> float:
    ids = np.random.default_rng(length).integers(1000, 20000, (1, length)).astype(np.int32)
    samples = []
    for _ in range(rounds + 1):  # the first one traces and builds
        started = time.perf_counter()
        answers = await model(input_ids=ids, outputs=["sentence_embedding"])
        await answers["sentence_embedding"].read()
        samples.append((time.perf_counter() - started) * 1e3)
    return min(samples[1:])


def chosen(times: Mapping[int, float]) -> list[int]:
    """Return the shortest list of lengths that the rule allows."""
    buckets: list[int] = []
    lengths = sorted(times)
    while not buckets or buckets[-1] < lengths[-1]:
        shortest = next(length for length in lengths if not buckets or length > buckets[-1])
        buckets.append(
            max(length for length in lengths if length == shortest or times[length] <= SLACK * times[shortest])
        )
    return buckets


def worst(times: Mapping[int, float], buckets: Sequence[int]) -> tuple[float, int]:
    """Find the largest ratio by which padding slows a length, and that length."""
    found = []
    for length, alone in times.items():
        bucket = next(bucket for bucket in buckets if bucket >= length)
        found.append((times[bucket] / alone, length))
    return max(found)


def buckets_table(found: Mapping[str, Mapping[int, float]]) -> str:
    """Format the table."""
    lines = ["| tokens | " + " | ".join(f"{name}, ms" for name in found) + " |", "|---" * (len(found) + 1) + "|"]
    for length in LENGTHS:
        lines.append(f"| {length} | " + " | ".join(f"{times[length]:.2f}" for times in found.values()) + " |")
    for name, times in found.items():
        ratio, length = worst(times, text.BUCKETS)
        lines.append(
            f"{name}: shortest list {chosen(times)}; ours pads {length} tokens at {ratio:.2f} times their time"
        )
    return "\n".join(lines)
