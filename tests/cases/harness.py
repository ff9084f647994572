"""Invariants around every case: no validation error, and nothing alive that was not alive before."""

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

# Counts the calls of WebGPU that do nothing: some browsers do not survive them (Deno panics at a write of no bytes).
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
    """Run one case on the first device of ``place`` within its time limit, and check what it left."""
    case = case_of(name)
    subject = place if next(iter(case.__annotations__.values())) == "Place" else place.device

    async def work() -> None:
        async with nothing_left(place.device):
            await case(subject)

    await within(limit_of(name, place.device.kind), work())


def limit_of(name: str, kind: str) -> float:
    """Seconds that a case may take on that kind of device."""
    return LONG_SECONDS if kind in getattr(case_of(name), "long", ()) else SECONDS


async def let_go() -> None:
    """Drop what nothing refers to any more. The event loop holds the last awaited future for a turn."""
    await asyncio.sleep(0)
    gc.collect()


def held(device: Device) -> dict[str, int]:
    """Count what is alive on the device, and its bytes."""
    counts = {"buffers": device.backend.live_buffers(), "bytes": device.total, "programs": len(device.programs)}
    gpu = _gpu(device)
    if gpu is not None:
        counts["js_programs"] = int(gpu.programs.size)
    return counts


def real_bytes(device: Device) -> int:
    """Bytes of all buffers on the device, asked of the buffers themselves."""
    gpu = _gpu(device)
    if gpu is None:
        backend: Any = device.backend
        return sum(array.nbytes for array in backend.arrays.values())
    spares = [spare for program in gpu.programs.values() for spare in program.spares if spare]
    return sum(int(buffer.size) for buffer in [*gpu.buffers.values(), *spares, *([gpu.staging] if gpu.staging else [])])


@asynccontextmanager
async def nothing_left(device: Device) -> AsyncIterator[None]:
    """Fail where the block leaves a buffer, a byte or a program behind, or the GPU complains about a command."""
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
        device.budget = Budget()  # the case's manager is gone
        if failure is not None and (complaint or uncaught):
            failure.add_note(f"the GPU: {complaint.message if complaint else uncaught}")
        if failure is None:
            assert not complaint, f"validation error: {complaint.message}"
            assert not uncaught, uncaught
            assert gpu is None or not empty.length, f"calls that do nothing: {empty.splice(0).join()}"
            await let_go()
            assert held(device) == before, f"left behind: {held(device)}, before: {before}"


def _empty_calls() -> Any:
    """The list of calls that did nothing, in JavaScript."""
    import js
    from pyodide.code import run_js

    run_js(COUNT_EMPTY_CALLS)
    return js.emptyCalls


def _gpu(device: Device) -> Any:
    """The JavaScript side of a WebGPU device."""
    backend: Any = device.backend
    return backend.bridge.proxy if device.kind == "webgpu" else None
