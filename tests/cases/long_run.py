"""Every case of the ops, then as many random calls as asked for, outside pytest: ``make conformance``.

Runs in Pyodide on Dawn (bench/dawn.mjs), so on a GPU where there is one. Call number i of seed s is call 0 of seed
s + i: a failure is shown again by naming its own seed.
"""

from __future__ import annotations

import time
import traceback

import numpy as np

import tensorcommons as tc
from tests.cases import OPS, Place, cases_of, conformance, harness

SAID_EVERY = 10  # seconds


async def run(count: int, seed: int) -> int:
    """Prints what fails, with its traceback; gives how many did."""
    devices = await tc.open_devices(prefer=["webgpu"])
    device, failed, said = devices.opened[0], [], time.monotonic()
    cases = cases_of(*OPS, kind=device.kind)
    print(f"{device.name}: {len(cases)} cases, {count} random calls from seed {seed}", flush=True)
    place = Place(devices, "", "", "", "")
    for i, name in enumerate([*cases, *range(seed, seed + count)], 1):
        try:
            if isinstance(name, str):
                await harness.run(name, place)
            else:
                rng = np.random.default_rng(name)
                async with harness.nothing_left(device):
                    await conformance.one_at_random(device, lambda low, high: int(rng.integers(low, high + 1)))  # noqa: B023
        except Exception:
            failed.append(name)
            print(f"\n{name if isinstance(name, str) else f'seed {name}'}\n{traceback.format_exc()}", flush=True)
        if time.monotonic() - said > SAID_EVERY:
            said = time.monotonic()
            print(f"{i} of {len(cases) + count}, {len(failed)} failed", flush=True)
    print(
        f"{len(cases) + count} run, {len(failed)} failed{': ' if failed else ''}{', '.join(map(str, failed))}",
        flush=True,
    )
    devices.close()
    return len(failed)
