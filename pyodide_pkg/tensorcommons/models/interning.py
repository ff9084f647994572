"""From open weights files to shared storages: each tensor is looked up by content, then in the cache, then downloaded.

A tensor whose content is on the device already is held and read from nowhere, if its content is known before it is
read: from the cache's record of the file, or because this very file was loaded before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..backends.device import Device
from ..errors import TensorReleased
from ..hub.cached import CachedSource
from ..hub.safetensors import Header, TensorEntry, as_array
from ..hub.weights import ReadAgain, WeightsFile
from ..sharing.manager import TensorSharingManager
from ..sharing.registry import Entry
from ..sharing.storage import Origin
from ..tensor import Tensor

Progress: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass
class Part:
    """One weights file of a model, open, and the parameters to take from it by entry."""

    weights: WeightsFile
    wanted: dict[str, str]

    @property
    def header(self) -> Header:
        """What the file holds."""
        return self.weights.header

    @property
    def end(self) -> int:
        """Offset after the last wanted tensor: what lies behind is not read."""
        return max((entry.stop for entry in self.header.entries if entry.name in self.wanted), default=0)


class Reporter:
    """Sends progress events; ``total``, ``shared`` and ``from_cache`` are the load's own, in bytes."""

    def __init__(self, callback: Progress | None) -> None:
        self._callback = callback
        self.total = 0
        self.shared = 0
        self.from_cache = 0
        self.offline = False

    def __call__(self, status: str, file: str, loaded: int = 0, total: int = 0) -> None:
        """Send one event."""
        if self._callback is not None:
            event = {
                "status": status,
                "file": file,
                "loaded": loaded,
                "total": total,
                "shared_bytes": self.shared,
                "from_cache": self.from_cache,
                "offline": self.offline,
            }
            self._callback(event)


class Interner:
    """Brings the wanted tensors of all parts into the registry, held by ``model``."""

    def __init__(
        self, manager: TensorSharingManager, device: Device, model: str, parts: list[Part], report: Reporter
    ) -> None:
        self.manager = manager
        self.device = device
        self.model = model
        self.parts = parts
        self.report = report
        self.loaded = 0

    async def load(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Every parameter of ``shapes`` as a tensor over its shared storage."""
        known = [held for part in self.parts for held in self._known_of(part).values()]
        sizes = [Spec(shape, dtypes.float32).nbytes for shape in shapes.values()]
        # A model that can never run is not loaded at all.
        self.manager.residency.check_together(sum(sizes), [held.storage for held in known])
        self.report.total = sum(part.end - part.header.data_start for part in self.parts if part.wanted)
        for part in self.parts:
            await self._read(part)
        if self.model not in self.manager.models:
            raise TensorReleased(f"the tensors of {self.model} were released while it was loading")
        held = self.manager.registry.held_by(self.model)
        return {name: Tensor.of_storage(held[name].storage, held[name].spec) for name in shapes}

    async def _read(self, part: Part) -> None:
        """Intern one file's tensors; what is on the device already is held and not read again."""
        file, start, weights = part.header.file, part.header.data_start, part.weights
        source = weights.source
        self.report.offline |= isinstance(source, CachedSource) and source.offline
        wanted = [entry for entry in part.header.entries if entry.name in part.wanted]
        known = self._known_of(part)
        for name, held in known.items():  # all at once: what is held cannot leave while the others are read
            held.hold(self.model, part.wanted[name])
            self.report.shared += held.storage.nbytes
        weights.on_position = lambda position: self._progress(file, position - start, part.end - start)
        for entry in wanted:
            if entry.name not in known:
                before = weights.from_cache
                data, identity = await weights.read(entry)
                self.report.from_cache += weights.from_cache - before
                await self._intern(part, entry, data, identity)
        self.loaded += part.end - start
        self.report("done", file, part.end - start, part.end - start)
        self.manager.changed()

    def _known_of(self, part: Part) -> dict[str, Entry]:
        """The wanted tensors of a file that are known to be on the device, by their name in the file."""
        wanted = (entry for entry in part.header.entries if entry.name in part.wanted)
        return {entry.name: held for entry in wanted if (held := self._known(part, entry)) is not None}

    def _known(self, part: Part, entry: TensorEntry) -> Entry | None:
        """The tensor, if it is on the device and that can be told without reading it."""
        registry = self.manager.registry
        identity = part.weights.identity(entry)
        if identity is not None:
            return registry.find(self.device, identity)
        return registry.at_origin(self.device, self._address(part, entry))

    async def _intern(self, part: Part, entry: TensorEntry, data: bytearray, identity: str) -> None:
        array = as_array(entry, data)
        spec = Spec(entry.shape, dtypes.float32)
        raw = memoryview(array.reshape(-1).view(np.uint8))
        registry = self.manager.registry
        if registry.find(self.device, identity) is not None:
            self.report.shared += entry.nbytes
        else:
            await self.manager.residency.make_room(raw.nbytes)
        weights = part.weights
        origin = Origin(_reader(entry, weights.read_again(entry, identity)), weights.is_local(identity))
        held = registry.intern(self.device, raw, spec, identity, origin)
        held.hold(self.model, part.wanted[entry.name])
        registry.remember(self.device, self._address(part, entry), identity)

    def _address(self, part: Part, entry: TensorEntry) -> str:
        """Where the bytes come from: the file in its present version, and their range."""
        return f"{part.weights.version} {entry.start}-{entry.stop}"

    def _progress(self, file: str, loaded: int, total: int) -> None:
        self.report("progress", file, min(loaded, total), total)
        self.report("progress_total", self.model, self.loaded + min(loaded, total), self.report.total)


def _reader(entry: TensorEntry, read_again: ReadAgain) -> Callable[[], Awaitable[memoryview]]:
    """A tensor's bytes again, as they are on the device."""

    async def read() -> memoryview:
        return memoryview(as_array(entry, await read_again()).reshape(-1).view(np.uint8))

    return read
