"""Opening the devices of this browser, and saying why one is missing."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from ..bridge.runtime import webnn_present
from ..bridge.webgpu import WebGPUBridge
from ..errors import DeviceUnavailable
from .cpu import CpuBackend
from .device import Device
from .webgpu.backend import WebGPUBackend

KINDS = ("webgpu", "webnn", "cpu")


class Devices:
    """The devices that were opened. A kind that is ``None`` has its reason in ``missing``."""

    def __init__(self, opened: Sequence[Device], missing: dict[str, str]) -> None:
        self.opened = tuple(opened)
        self.missing = MappingProxyType(missing)
        by_kind = {device.kind: device for device in opened}
        self.webgpu: Device | None = by_kind.get("webgpu")
        self.webnn: Device | None = by_kind.get("webnn")
        self.cpu: Device | None = by_kind.get("cpu")

    def __repr__(self) -> str:
        return f"<Devices {', '.join(device.kind for device in self.opened)}; missing: {dict(self.missing)}>"

    def choose(self, wish: str | Device = "auto") -> Device:
        """The device for a model: ``wish`` is a kind, a Device, or "auto" for the first that was opened.

        Raises:
            DeviceUnavailable: that kind is missing; the reason is the one found when it was opened.
        """
        if isinstance(wish, Device):
            return wish
        if wish == "auto" and self.opened:
            return self.opened[0]
        for device in self.opened:
            if device.kind == wish:
                return device
        raise DeviceUnavailable(wish, self.missing.get(wish, f"it was not opened; known kinds: {', '.join(KINDS)}"))

    def close(self) -> None:
        """Free everything on every device. Safe to call twice."""
        for device in self.opened:
            device.close()


async def open_devices(prefer: Sequence[str] = KINDS) -> Devices:
    """Open the devices named in ``prefer``, best first. A device that is missing is left out, with its reason.

    Raises:
        DeviceUnavailable: a name in ``prefer`` is no kind of device, or none of them could be opened.
    """
    unknown = [kind for kind in prefer if kind not in KINDS]
    if unknown or not prefer:
        raise DeviceUnavailable(", ".join(unknown) or "any", f"the kinds of devices are {', '.join(KINDS)}")
    opened: list[Device] = []
    missing = {kind: "it was not asked for" for kind in KINDS if kind not in prefer}
    for kind in dict.fromkeys(prefer):
        try:
            opened.append(await _open(kind))
        except DeviceUnavailable as error:
            missing[kind] = error.reason
    if not opened:
        raise DeviceUnavailable(", ".join(prefer), "; ".join(f"{kind}: {why}" for kind, why in missing.items()))
    return Devices(opened, missing)


async def _open(kind: str) -> Device:
    if kind == "cpu":
        return Device(CpuBackend())
    if kind == "webgpu":
        return Device(WebGPUBackend(await WebGPUBridge.open()))
    found = "this browser offers it" if webnn_present() else "this browser does not offer it (navigator.ml is missing)"
    raise DeviceUnavailable("webnn", f"{found}, and this version of tensorcommons does not run on it yet")
