"""Cases outside pytest, in Pyodide on Dawn (bench/dawn.mjs), so on a GPU where there is one.

``make conformance`` runs every case of the ops, then the given number of random calls. Call i of seed s is call 0 of
seed s + i, so a failure is reproduced by its own seed. ``make cases`` runs the given cases, including those of models.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

import numpy as np

from tests.cases import OPS, Place, case_of, cases_of, conformance, harness
from tests.cases.small_devices import open_devices

SAID_EVERY = 10  # seconds


async def run(count: int = 1000, seed: int = 0) -> int:
    """Run every op and ``count`` random calls. Prints failures with tracebacks; gives their number."""
    place = await _open("", "")
    return await _all(place, [*cases_of(*OPS, kind="webgpu"), *range(seed, seed + count)])


async def cases(names: Sequence[str], models: str, goldens: str) -> int:
    """Run the cases of modules (``halves``), or single ones (``halves.minilm``), with folders below ``models``."""
    place = await _open(models, goldens)
    found = [each for name in names for each in ([name] if "." in name else cases_of(name, kind="webgpu"))]
    assert found, "name modules of tests/cases, or single cases"
    return await _all(place, found)


async def _open(models: str, goldens: str) -> Place:
    import js

    devices = await open_devices(js.testLimits)
    return Place(devices, models, goldens, "", goldens)


async def _all(place: Place, work: Sequence[str | int]) -> int:
    if not place.device.is_software:
        work = [name for name in work if isinstance(name, int) or not getattr(case_of(name), "of_software", False)]
    failed, said = [], time.monotonic()
    print(f"{place.device.name}: {len(work)} cases and random calls", flush=True)
    for i, name in enumerate(work, 1):
        try:
            if isinstance(name, str):
                await harness.run(name, place)
            else:
                rng = np.random.default_rng(name)
                async with harness.nothing_left(place.device):
                    await conformance.one_at_random(
                        place.device,
                        lambda low, high: int(rng.integers(low, high + 1)),  # noqa: B023
                    )
        except Exception:
            failed.append(name)
            place.devices.close()  # the failure may have left objects there
            place = await _open(place.models, place.goldens)
            print(f"\n{name if isinstance(name, str) else f'seed {name}'}\n{traceback.format_exc()}", flush=True)
        if time.monotonic() - said > SAID_EVERY:
            said = time.monotonic()
            print(f"{i} of {len(work)}, {len(failed)} failed", flush=True)
    print(f"{len(work)} run, {len(failed)} failed{': ' if failed else ''}{', '.join(map(str, failed))}", flush=True)
    place.devices.close()
    return len(failed)
