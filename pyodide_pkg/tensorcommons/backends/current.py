"""The device that a kind names, and the one that is used where none is named.

``device=`` takes a :class:`Device` or a kind. A kind means the device of the last :func:`tensorcommons.open_devices`.
The CPU device needs no opening: "cpu" makes it, and the next ``open_devices()`` takes it over.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import DeviceUnavailable, quoted, shown
from .cpu.backend import CpuBackend
from .device import Device
from .kinds import KINDS


class Opened(Protocol):
    """The opened devices, as this module needs them."""

    opened: tuple[Device, ...]

    @property
    def cpu(self) -> Device | None:
        """The CPU device, if it is among them."""
        ...

    def choose(self, wish: str) -> Device:
        """The device for a kind or "auto". Raises DeviceUnavailable."""
        ...


class _Current:
    """The state of this module. ``own_cpu`` is the CPU device that was made on demand."""

    devices: Opened | None = None
    default: Device | str | None = None
    own_cpu: Device | None = None


def use_devices(devices: Opened) -> None:
    """Make ``devices`` those that kinds name from now on."""
    _Current.devices = devices


def take_cpu() -> Device:
    """Return a CPU device for ``open_devices()``: the one made on demand, unless an earlier call took it."""
    made, _Current.own_cpu = _Current.own_cpu, None
    return made if made is not None and not made.is_closed else Device(CpuBackend())


def return_cpu(device: Device) -> None:
    """Take back the device that :func:`take_cpu` returned, since ``open_devices()`` failed."""
    _Current.own_cpu = device


def _cpu() -> Device:
    devices = _Current.devices
    if devices is not None and devices.cpu is not None and not devices.cpu.is_closed:
        return devices.cpu
    if _Current.own_cpu is None or _Current.own_cpu.is_closed:
        _Current.own_cpu = Device(CpuBackend())
    return _Current.own_cpu


def device_of(wish: Device | str) -> Device:
    """Return ``wish`` itself, or the device of that kind ("auto": the one that the last opened devices decide on).

    Raises:
        DeviceUnavailable: the kind is unknown, or no device of that kind was opened.
    """
    if isinstance(wish, Device):
        return wish
    if not isinstance(wish, str) or wish not in (*KINDS, "auto"):
        raise DeviceUnavailable(
            shown(str(wish)), f"device= takes a Device or one of {', '.join(KINDS)}, not {quoted(wish)}"
        )
    if wish == CpuBackend.kind:
        return _cpu()
    if _Current.devices is None:
        if wish == "auto":
            return _cpu()
        raise DeviceUnavailable(wish, "no device was opened yet: call await tensorcommons.open_devices() first")
    return _Current.devices.choose(wish)


def known_devices() -> list[Device]:
    """Return the devices of the last :func:`tensorcommons.open_devices`; the CPU device is always among them."""
    opened = [] if _Current.devices is None else [each for each in _Current.devices.opened if not each.is_closed]
    return list(dict.fromkeys([*opened, _cpu(), default_device()]))


def default_device() -> Device:
    """Return the device of :func:`set_default_device`, or the CPU device."""
    return _cpu() if _Current.default is None else device_of(_Current.default)


def set_default_device(device: Device | str | None) -> None:
    """Create tensors on ``device`` (a Device or a kind) if none is given; ``None`` restores the CPU device.

    A kind is looked up anew at each use, so it means the device of the last ``open_devices()``.

    Raises:
        DeviceUnavailable: the kind is unknown, or no device of that kind was opened; the default stays as it was.

    >>> tc.set_default_device("cpu")
    >>> tc.asarray([1.0]).device.kind
    'cpu'
    >>> tc.set_default_device(None)
    """
    if device is not None:
        device_of(device)
    _Current.default = device
