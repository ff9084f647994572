"""The measured speed of a device: bytes copied, and floating-point operations in multiply-adds, a second.

A profile compares its timings with what the device reached in these two probes. A GPU that was idle runs at a fraction
of its clock, so its probes are repeated until they get no faster.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from ..backends.base import Probe
from ..backends.device import Device, Speed
from ..errors import MemoryBudgetError

HARDWARE, SOFTWARE, LEAST = 128 * 2**20, 32 * 2**20, 2**20  # bytes that the probe of copying takes, and takes at least
PROBED = 3  # times that a probe is timed at least; the shortest counts
SETTLED = 0.25  # seconds without a faster time after which a GPU has reached its clock
FASTER = 0.98  # of the shortest time: what counts as faster


async def measure(device: Device) -> Speed:
    """Probe ``device`` and note its speed there.

    Raises MemoryBudgetError where not even :data:`LEAST` bytes are free, or as a run does.
    """
    nbytes = SOFTWARE if device.is_software else HARDWARE
    while True:
        try:
            copied, multiplied = [await _rate(device, probe) for probe in device.backend.probes(nbytes)]
            return device.note_speed(Speed(copied, multiplied))
        except MemoryBudgetError:
            nbytes //= 2
            if nbytes < LEAST:
                raise


async def _rate(device: Device, probe: Probe) -> float:
    """Measure what ``probe`` does a second on a device."""
    backend, made = device.backend, list[int]()
    executable = await backend.compile(probe.plan)
    try:
        with device.charged(executable.nbytes, "scratch"):
            device.budget.make_room_now(sum(spec.nbytes for spec in probe.leaves) + sum(probe.plan.output_bytes))
            for spec in probe.leaves:
                made.append(device.allocate(spec.nbytes, "scratch", spec))
                backend.write(made[-1], 0, memoryview(np.ones(spec.shape, spec.dtype.numpy)).cast("B"))
            outputs = [device.allocate(nbytes, "scratch", probe.leaves[0]) for nbytes in probe.plan.output_bytes]
            made += outputs
            await backend.check(made)
            leaves, settled = made[: len(probe.leaves)], 0.0 if device.is_software else SETTLED
            shortest, count, since = float("inf"), 0, perf_counter()
            while count < PROBED or perf_counter() - since < settled:
                timings = await backend.time(executable, [0], 0, memoryview(b""), leaves, outputs)
                count += 1
                if timings[0].milliseconds < FASTER * shortest:
                    since = perf_counter()
                shortest = min(shortest, timings[0].milliseconds)
            return probe.amount / max(shortest, 1e-6) * 1e3
    finally:
        for handle in made:
            device.free(handle)
        backend.discard(executable)
