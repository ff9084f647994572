"""The times by which devices are ordered where none is a hardware GPU: two products, measured on each.

The kind of a device does not determine its speed: a software adapter of WebGPU uses all cores, and in some browsers
each of its results arrives up to 100 ms late. So the time includes the read of the result. A product of matrices is
computed as fast as a processor multiplies, a product of one row as fast as it reads the weights; a device can be good
at one only. The order is the same for all models that generate, and for all others: models on different devices cannot
share weights.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import time

import numpy as np

from .backends.device import Device
from .backends.select import MATRICES, ROW, Devices
from .backends.timeouts import in_time
from .compiled import compile
from .errors import DeviceUnavailable
from .hub.open_cache import open_cache
from .hub.records import Record
from .ops import linear
from .tensor import asarray

logger = logging.getLogger("tensorcommons")

# (rows, inner size, columns) of the products: the second of a feed-forward layer of MiniLM, for 128 tokens; and one
# with weights of 16 MB, more than a core has cache, which takes as long as reading them.
PRODUCTS = {MATRICES: (128, 1536, 384), ROW: (1, 1024, 4096)}
SAMPLES = 3  # after one that compiles; the shortest counts
HOPELESS = 8  # times the shortest time so far: no more samples of a device
VALID_SECONDS = 7 * 24 * 3600.0  # a browser's update may change its speed


async def rank(devices: Devices, seconds: float) -> None:
    """Order ``devices`` by speed. A single device, or a hardware GPU, is not measured.

    Times that were kept for the same devices are used again. A device that fails, or that is not measured within
    ``seconds``, comes last; a warning and ``devices.explain()`` have the reason, and no times are kept.
    """
    if len(devices.opened) < 2 or not devices.opened[0].facts.rank:
        return
    cache = await open_cache()
    address = "device-times:" + json.dumps([[device.kind, device.name] for device in devices.opened])
    record = await cache.record(address)
    kept = _times(await cache.read_all(record), devices) if record is not None else None
    if kept is not None:
        devices.set_times(kept, {})
        return
    times: dict[str, dict[str, float]] = {product: {} for product in PRODUCTS}
    failures: dict[str, str] = {}
    end = time.perf_counter() + seconds
    host_first = sorted(devices.opened, key=lambda device: not device.facts.is_host)  # the one without a wait
    for device, product in itertools.product(host_first, PRODUCTS):  # a hanging one leaves others theirs
        if device.kind in failures:
            continue
        try:
            found, left = math.inf, end - time.perf_counter()
            if left > 0:
                work = _milliseconds(device, product, min(times[product].values(), default=math.inf), end)
                found = await in_time(device.kind, work, left)
            if math.isinf(found):
                raise DeviceUnavailable(device.kind, f"no time was left of {seconds:g} s")
            times[product][device.kind] = found
        except Exception as error:  # whatever is wrong with a device, the others can be used
            failures[device.kind] = error.reason if isinstance(error, DeviceUnavailable) else str(error) or repr(error)
            logger.warning("the speed of %s could not be measured: %s", device.kind, failures[device.kind])
    devices.set_times(times, failures)
    if not failures:
        data = json.dumps({"measured": time.time(), "milliseconds": times}).encode()
        await cache.keep_all(Record(address, len(data)), data)


def _times(kept: bytes | None, devices: Devices) -> dict[str, dict[str, float]] | None:
    """Return the kept times by product and kind; None if they are too old, damaged or incomplete."""
    try:
        found = json.loads(kept or b"")
        times = {
            product: {device.kind: float(found["milliseconds"][product][device.kind]) for device in devices.opened}
            for product in PRODUCTS
        }
        is_valid = 0 <= time.time() - found["measured"] < VALID_SECONDS
        return times if is_valid and all(0 < ms < math.inf for each in times.values() for ms in each.values()) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


async def _milliseconds(device: Device, product: str, shortest: float, end: float) -> float:
    """Measure the product on ``device`` until ``end``; a first sample far above ``shortest`` is enough.

    Return infinity where no sample was taken until then.
    """
    rows, inner, columns = PRODUCTS[product]
    x, weight = (asarray(np.ones((size, inner), np.float32), device=device) for size in (rows, columns))
    best = math.inf
    try:
        multiply = compile(linear)
        for sample in range(1 + SAMPLES):
            started = time.perf_counter()
            if started > end:
                break
            await (await multiply(x, weight)).read()
            if sample:
                best = min(best, (time.perf_counter() - started) * 1e3)
                if best > HOPELESS * shortest:
                    break
    finally:
        x.release()
        weight.release()
        device.free_scratch()
    return best
