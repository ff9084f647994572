"""The kinds of devices, in the order in which they are listed. A new one is a folder and a line here."""

from __future__ import annotations

from .backend import DeviceKind
from .cpu import backend as cpu
from .webgpu import backend as webgpu
from .webnn import backend as webnn

KINDS: dict[str, DeviceKind] = {kind.name: kind for kind in (webgpu.KIND, webnn.KIND, cpu.KIND)}
