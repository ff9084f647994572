"""WebGPU devices with lower limits than those of the adapter: the defaults of WebGPU, or far lower ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import tensorcommons as tc
from tensorcommons import Device, Devices
from tensorcommons.backends.webgpu.backend import WebGPUBackend

# Lower than those of any device: enforced by the package, not by the browser.
SMALL = {"maxStorageBufferBindingSize": 8192, "maxBufferSize": 32768, "maxStorageBuffersPerShaderStage": 8}
# The adapter reports the default limits, and the browser enforces them.
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
    """Open a WebGPU device first, with the limits of its adapter, or with "default" or "small" limits."""
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
    """Lower the limits of ``device`` from now on."""
    cast(WebGPUBackend, device.backend).bridge.lower(limits)


@contextmanager
def lowered(device: Device, **limits: int) -> Iterator[None]:
    """Lower the limits of ``device``, which must be empty, within the block."""
    bridge: Any = cast(WebGPUBackend, device.backend).bridge
    before, largest = dict(bridge.limits), bridge.proxy.bufferBytes
    bridge.lower(limits)
    try:
        yield
    finally:
        bridge._lowered = {}  # noqa: SLF001 - lower() never raises a limit
        bridge.limits |= before
        bridge.proxy.bufferBytes = largest
