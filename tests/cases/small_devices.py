"""WebGPU devices with lower limits than the adapter has: those of every device, or far lower ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import tensorcommons as tc
from tensorcommons import Device, Devices
from tensorcommons.backends.webgpu.backend import WebGPUBackend

# Lower than any device's: obeyed by the package, not by the browser.
SMALL = {"maxStorageBufferBindingSize": 8192, "maxBufferSize": 32768, "maxStorageBuffersPerShaderStage": 8}
# The adapter says that it has what every adapter has, and the browser holds its device to that.
DEFAULT_LIMITS = """
(() => {
  const request = navigator.gpu.requestAdapter.bind(navigator.gpu);
  navigator.gpu.honest = request;
  navigator.gpu.requestAdapter = async (options) => {
    const [adapter, plain] = [await request(options), await (await request(options)).requestDevice()];
    const { limits } = plain;
    plain.destroy();
    const value = (target, name) => typeof target[name] === "function" ? target[name].bind(target) : target[name];
    return new Proxy(adapter, { get: (target, name) => name === "limits" ? limits : value(target, name) });
  };
})()
"""


HONEST = "navigator.gpu.requestAdapter = navigator.gpu.honest; undefined"


async def open_devices(limits: str = "") -> Devices:
    """A WebGPU device first: with what its adapter has, or with "default" or "small" limits."""
    if limits == "default":
        from pyodide.code import run_js

        run_js(DEFAULT_LIMITS)
    devices = await tc.open_devices(prefer=["webgpu", "cpu"])
    assert devices.opened[0].kind == "webgpu", devices.missing
    if limits == "default":
        assert devices.opened[0].limits["maxStorageBufferBindingSize"] == 2**27
    if limits == "small":
        lower(devices.opened[0], SMALL)
    return devices


def lower(device: Device, limits: dict[str, int]) -> None:
    """Have ``device`` obey lower limits from now on."""
    cast(WebGPUBackend, device.backend).bridge.lower(limits)


@contextmanager
def lowered(device: Device, **limits: int) -> Iterator[None]:
    """Have ``device``, which holds nothing yet, obey lower limits in the block."""
    bridge: Any = cast(WebGPUBackend, device.backend).bridge
    before, largest = dict(bridge.limits), bridge.proxy.bufferBytes
    bridge.lower(limits)
    try:
        yield
    finally:
        bridge._lowered = {}  # noqa: SLF001 - lower() never raises a limit
        bridge.limits |= before
        bridge.proxy.bufferBytes = largest
