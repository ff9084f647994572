"""Invariants of every case: no validation error, and no live object that was not alive before."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tensorcommons import Device
from tensorcommons.backends.budget import Budget
from tests.cases import Place, case_of
from tests.cases.time_limit import LONG_SECONDS, SECONDS, within

# Counts the calls of WebGPU without an effect, which crash some browsers (Deno panics at a write of zero bytes).
COUNT_EMPTY_CALLS = """
if (!globalThis.emptyCalls) {
  globalThis.emptyCalls = [];
  const watch = (prototype, name, sizeOf) => {
    const call = prototype[name];
    prototype[name] = function (...given) {
      if (sizeOf(this, ...given) === 0) globalThis.emptyCalls.push(name);
      return call.apply(this, given);
    };
  };
  watch(GPUQueue.prototype, "writeBuffer", (_, buffer, offset, data, from = 0, size = data.length - from) => size);
  watch(GPUCommandEncoder.prototype, "copyBufferToBuffer", (_, source, from, target, to, size) => size);
  watch(GPUComputePassEncoder.prototype, "dispatchWorkgroups", (_, x, y = 1, z = 1) => x * y * z);
  watch(GPUBuffer.prototype, "mapAsync", (buffer, mode, offset = 0, size = buffer.size - offset) => size);
  watch(GPUDevice.prototype, "createBuffer", (_, { size }) => size);
}
"""


async def run(name: str, place: Place) -> None:
    """Run one case on the first device of ``place`` within its time limit, and check for leaks."""
    case = case_of(name)
    subject = place if next(iter(case.__annotations__.values())) == "Place" else place.device

    async def work() -> None:
        async with nothing_left(place.device):
            await case(subject)

    await within(limit_of(name, place.device.kind), work())


def limit_of(name: str, kind: str) -> float:
    """Return the time limit of a case on that kind of device, in seconds."""
    return LONG_SECONDS if kind in getattr(case_of(name), "long", ()) else SECONDS


async def let_go() -> None:
    """Free unreferenced objects. The event loop refers to the last awaited future for one turn."""
    await asyncio.sleep(0)
    gc.collect()


def held(device: Device) -> dict[str, int]:
    """Count the live objects of the device, and their bytes."""
    counts = {"buffers": device.backend.live_buffers(), "bytes": device.total, "programs": len(device.programs)}
    gpu = _gpu(device)
    if gpu is not None:
        counts["js_programs"] = int(gpu.programs.size)
    return counts


def real_bytes(device: Device) -> int:
    """Sum the sizes of all buffers of the device, read from the buffers themselves."""
    gpu = _gpu(device)
    if gpu is None:
        backend: Any = device.backend
        return sum(array.nbytes for array in backend.arrays.values())
    spares = [spare for program in gpu.programs.values() for spare in program.spares if spare]
    staging = [gpu.reads.staging] if gpu.reads.staging else []
    return sum(int(buffer.size) for buffer in [*gpu.buffers.values(), *spares, *staging])


@asynccontextmanager
async def nothing_left(device: Device) -> AsyncIterator[None]:
    """Fail if the block leaves a buffer, a byte or a program, or causes a validation error."""
    gpu = _gpu(device)
    await let_go()
    before = held(device)
    if gpu is not None:
        gpu.device.pushErrorScope("validation")
        empty = _empty_calls()
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        complaint = await gpu.device.popErrorScope() if gpu is not None else None
        uncaught = str(gpu.takeErrors()) if gpu is not None else ""
        device.budget = Budget()  # the manager of the case is closed
        if failure is not None and (complaint or uncaught):
            failure.add_note(f"the GPU: {complaint.message if complaint else uncaught}")
        if failure is None:
            assert not complaint, f"validation error: {complaint.message}"
            assert not uncaught, uncaught
            assert gpu is None or not empty.length, f"calls without effect: {empty.splice(0).join()}"
            await let_go()
            assert held(device) == before, f"leaked: {held(device)}, before: {before}"


def _empty_calls() -> Any:
    """Return the list of calls without effect, in JavaScript."""
    import js
    from pyodide.code import run_js

    run_js(COUNT_EMPTY_CALLS)
    return js.emptyCalls


def _gpu(device: Device) -> Any:
    """Return the JavaScript object of a WebGPU device."""
    backend: Any = device.backend
    return backend.bridge.proxy if device.kind == "webgpu" else None
