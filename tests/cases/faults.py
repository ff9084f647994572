"""Errors of the device: typed, raised by the operation that caused them, and without leaks.

These kernels are invalid on purpose, so that the browser refuses them.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.webgpu.kernels import KERNELS
from tensorcommons.backends.webgpu.shader import Dispatch
from tensorcommons.errors import DeviceError, DeviceMemoryError, MemoryBudgetError
from tensorcommons.tensor import realize
from tests.cases import of_software, only
from tests.cases.harness import held
from tests.cases.support import largest_buffer, near, numbers, on, raises

OP = "cumulative_sum"


@contextmanager
def _broken(device: Device, breaking: Callable[[Dispatch], Dispatch]) -> Iterator[None]:
    """Break the kernel of :data:`OP`, and disable the checks of workgroup counts and buffer sizes."""
    kernel, bridge = KERNELS[OP], cast(Any, device.backend).bridge
    before, largest, limits = dict(bridge.limits), bridge.proxy.bufferBytes, bridge.limits
    KERNELS[OP] = replace(kernel, lower=lambda step, adapter: [breaking(each) for each in kernel.lower(step, adapter)])
    limits |= dict.fromkeys(("maxComputeWorkgroupsPerDimension", "maxBufferSize", "maxStorageBufferBindingSize"), 2**52)
    bridge.proxy.bufferBytes = 2**52
    try:
        yield
    finally:
        KERNELS[OP] = kernel
        limits |= before
        bridge.proxy.bufferBytes = largest


def _with(**variables: str) -> Callable[[Dispatch], Dispatch]:
    return lambda dispatch: replace(dispatch, variables={**dispatch.variables, **variables})


# Faults: an undefined name in WGSL, a pipeline over the limits, a dispatch over the limits.
AT_COMPILE = {"shader": _with(carry="no_such_name();"), "pipeline": _with(workgroup="100000")}


def _too_many_groups(dispatch: Dispatch) -> Dispatch:
    return replace(dispatch, groups=(2**20, 1, 1))


async def _is_healthy(device: Device) -> None:
    """Run a new program and one that ran before."""
    (x,) = on(device, numbers(6))
    near(await tc.cumulative_sum(x).read(), np.cumsum(numbers(6)))
    near(await (x * 3).read(), numbers(6) * 3)


@only("webgpu")
async def a_kernel_that_does_not_compile(device: Device) -> None:
    await _is_healthy(device)
    for size, (name, breaking) in enumerate(AT_COMPILE.items(), 7):
        x, y = on(device, numbers(size), numbers(size, seed=1))
        gc.collect()
        before = held(device)
        for _ in range(2):  # the second attempt fails like the first
            with _broken(device, breaking):
                complaint = await raises(DeviceError, tc.cumulative_sum(x).read(), OP, "reduction/cumulative")
            assert complaint.work.startswith(OP) and complaint.device == "webgpu" and complaint.reason, name
            assert held(device) == before, f"{name}: {held(device)}, before: {before}"
            if name == "shader":  # the wrong line, marked and numbered, with its context
                marked = [line for line in complaint.reason.splitlines() if line.startswith("> ")]
                assert marked and all(" | " in line and "no_such_name();" in line for line in marked), complaint.reason
                assert len(complaint.reason) < 5000
        near(await (x + y).read(), numbers(size) + numbers(size, seed=1))
        near(await tc.cumulative_sum(x).read(), np.cumsum(numbers(size)))


@only("webgpu")
async def a_run_that_the_device_refuses(device: Device) -> None:
    await _is_healthy(device)
    for size, more in ((17, 0), (18, 10)):  # one part, or several on a software adapter
        (x,) = on(device, numbers(size))
        before = held(device)
        for _ in range(2):
            with _broken(device, _too_many_groups):
                bad = tc.cumulative_sum(x)
                for _ in range(more):  # programs with more steps than a part
                    bad = tc.cumulative_sum(bad)
                complaint = await raises(DeviceError, bad.read(), OP)
                assert complaint.device == "webgpu" and "1048576" in complaint.reason
            del bad
            device.drop_programs()
            near(await (x * 2).read(), numbers(size) * 2)
        gc.collect()
        device.free_scratch()
        assert held(device)["buffers"] <= before["buffers"], (held(device), before)


@only("webgpu")
async def who_computes_with_it_hears_of_it_and_nobody_else(device: Device) -> None:
    x, other = on(device, numbers(19), numbers(19, seed=2))
    with _broken(device, _too_many_groups):
        bad = await tc.cumulative_sum(x).realize()  # queued, not read yet
    good = [other * n for n in range(1, 6)]
    later = await (bad + 1).realize()
    answers = await asyncio.gather(
        *(each.read() for each in good), bad.read(), later.read(), (later * 2).read(), return_exceptions=True
    )
    for n, answer in enumerate(answers[:5], 1):
        near(answer, numbers(19, seed=2) * n)
    for answer in answers[5:]:
        assert isinstance(answer, DeviceError) and OP in answer.work, answer
    await raises(DeviceError, tc.read_together([other, bad]), OP)
    for n, each in enumerate(good, 1):
        near(await each.read(), numbers(19, seed=2) * n)
    for answer in answers:
        if isinstance(answer, Exception):
            answer.__traceback__ = None
    del bad, later, answers, answer


@only("webgpu")
async def a_program_that_failed_once_runs_again(device: Device) -> None:
    """Its pooled outputs may not be valid buffers, so the next run must not use them."""
    (x,) = on(device, numbers(3000))
    double = tc.compile(lambda x: x * 2)
    for _ in range(3):
        near(await (await double(x)).read(), numbers(3000) * 2)
    with _broken(device, lambda dispatch: dispatch):
        bad = device.allocate(2**45, "activations")
    await raises(DeviceError, device.read(bad, 0, 16), "a buffer of")
    device.free(bad)
    for _ in range(3):
        near(await (await double(x)).read(), numbers(3000) * 2)


@only("webgpu")
async def a_buffer_that_the_device_cannot_make(device: Device) -> None:
    before = held(device)
    with _broken(device, lambda dispatch: dispatch):
        bad = device.allocate(2**45, "activations")
    await raises(DeviceError, device.backend.check([bad]), "a buffer of")
    device.backend.write(bad, 0, np.arange(4, dtype=np.float32).data.cast("B"))
    await raises(DeviceError, device.read(bad, 0, 16), "a buffer of")
    await _is_healthy(device)
    device.free(bad)
    device.free_scratch()
    gc.collect()
    assert held(device)["bytes"] <= before["bytes"] + 1024


@only("webgpu")
async def a_device_that_is_full(device: Device) -> None:
    """SwiftShader has no memory for the largest buffer that its limits allow."""
    handles = []
    try:
        with _broken(device, lambda dispatch: dispatch):
            for _ in range(4):
                handles.append(device.allocate(largest_buffer(device), "activations"))
        complaint = None
        try:
            await device.backend.check(handles)
        except DeviceMemoryError as error:
            complaint = error.with_traceback(None)
        if device.is_software and largest_buffer(device) > 2**29:  # not with LIMITS=default
            assert complaint is not None and "a buffer of" in complaint.work
            await raises(MemoryBudgetError, device.read(handles[-1], 0, 16))
    finally:
        for handle in handles:
            device.free(handle)
    await _is_healthy(device)


@of_software
@only("webgpu")
async def an_output_that_the_device_cannot_make(device: Device) -> None:
    (x,) = on(device, numbers(1))
    count = largest_buffer(device) // 4 + 4
    with _broken(device, lambda dispatch: dispatch):
        huge = tc.broadcast_to(x, (count,)) + 1
        await raises(DeviceError, huge.read())
    assert issubclass(DeviceMemoryError, MemoryBudgetError)
    del huge
    await _is_healthy(device)


@only("webgpu")
async def a_failed_run_among_many(device: Device) -> None:
    """Of twenty tasks, three fail, each with its own error."""
    (x,) = on(device, numbers(64))

    async def healthy(n: int) -> None:
        for _ in range(3):
            near(await tc.sum(x * float(n)).read(), numbers(64).astype(np.float64).sum() * n, 1e-4)

    async def breaking(n: int) -> None:
        with _broken(device, _too_many_groups):
            bad = tc.cumulative_sum(x[: 20 + n])
            await realize([bad])
        await raises(DeviceError, bad.read(), OP)

    async def all_breaking() -> None:
        for n in range(3):
            await breaking(n)

    await asyncio.gather(all_breaking(), *(healthy(n) for n in range(1, 18)))
