"""``diagnostics``: versions, devices, live bytes, managers and local storage as text, for a bug report."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from .backends.budget import CATEGORIES
from .backends.device import NOT_TRIED, Device, known_devices
from .bridge.runtime import host
from .errors import shown, shown_address
from .hub.cache import known_caches
from .sharing.manager import open_managers

LIMITS = (  # the limits of a device that decide which models and ops run
    "maxBufferSize",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupsPerDimension",
    "maxTensorByteLength",
)
MODELS = 20  # models of a manager that are named; the others are counted


def diagnostics() -> str:
    """Describe versions, open devices with live bytes, managers with their models, and local storage, for a bug report.

    Opens no device and does not wait. Addresses in the names of models are shown without queries and passwords.

    >>> print(tc.diagnostics())
    tensorcommons 0.1.0, Python...
    """
    version = vars(sys.modules[str(__package__)])["__version__"]
    lines = [f"tensorcommons {version}, Python {platform.python_version()}, NumPy {np.__version__}", host()]
    for _, found in groupby(known_devices(), lambda device: device.kind):
        alike = [device for device in found if not device.is_closed]
        for number, device in enumerate(alike, 1):
            lines += _device(device, f", {number} of {len(alike)} of this kind" if len(alike) > 1 else "")
    if len(lines) == 2:
        lines.append("no device is open")
    managers = open_managers()
    for manager in managers:
        names = [shown(shown_address(name)) for name in manager.models]
        more = f" and {len(names) - MODELS} more" if len(names) > MODELS else ""
        limit, used = manager.residency.limit, manager.residency.used
        lines.append(
            f"manager: {used:,} of {limit:,} bytes, peak {manager.share.peak:,}, {len(manager.tensors)} shared "
            f"tensors, models: {', '.join(names[:MODELS]) or 'none'}{more}"
        )
    if not managers:
        lines.append("no manager is open")
    lines += [f"storage {cache.status}" for cache in known_caches()] or ["no storage was opened"]
    return "\n".join(lines)


def _device(device: Device, which: str) -> Iterator[str]:
    state = f"lost: {device.gone}" if device.is_gone else "open"
    losses = f", lost {device.losses} times ({device.loss})" if device.losses else ""
    yield f"{device.kind}: {device.name}{' (software)' if device.is_software else ''}, {state}{losses}{which}"
    memory = device.memory()
    held = ", ".join(f"{kind} {memory[kind]:,}" for kind in CATEGORIES)
    yield f"  {memory['total']:,} bytes ({held}), peak {memory['peak']:,}, {len(device.programs)} programs"
    limits = [f"{name} {device.limits[name]:,}" for name in LIMITS if name in device.limits]
    if limits:
        yield f"  limits: {', '.join(limits)}"
    if device.backend.features:
        yield f"  features: {', '.join(device.backend.features)}"
    if device.not_lent != NOT_TRIED:
        yield f"  tensors lent to WebGPU: {device.not_lent or 'yes'}"
    if device.speed is not None:
        yield (
            f"  measured: {device.speed.bytes_per_second / 1e9:.3g} GB/s copied, "
            f"{device.speed.flops_per_second / 1e9:.3g} GFLOP/s of multiply-adds"
        )
