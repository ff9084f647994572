"""From open weights files to shared storages: each tensor is looked up by content, then in the cache, then downloaded.

A tensor whose content is on the device already is held and read from nowhere, if its content is known before it is
read: from the cache's record of the file, or because this very file was loaded before. The next chunks arrive while
the last are hashed, kept and uploaded. A tensor of several chunks is uploaded before its content is known, and given
back if that is on the device already: the host never has all of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.byte_buffer import CHUNK, ByteBuffer, room_of
from ..bridge.digest import digests_beside, joined
from ..bridge.runtime import Slices, breathe
from ..errors import MemoryBudgetError, TensorReleased, check_listener
from ..graph.needs import Need
from ..hub.cached import CachedSource
from ..hub.safetensors import ITEMSIZE, NUMPY_NAME, Header, TensorEntry, as_array
from ..hub.source import Source
from ..hub.weights import Chunk, ReadAgain, WeightsFile, label_of
from ..sharing.manager import TensorSharingManager
from ..sharing.registry import Entry
from ..sharing.storage import Origin, Storage, content_label
from ..tensor import Tensor
from .prefetch import in_order

CHECKED = 16 * 2**20  # bytes of a tensor from which on the device is asked for it before it is read
ROOM = 4 * CHUNK  # bytes of the host that chunks on their way may take

logger = logging.getLogger("tensorcommons")
Progress: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass
class Part:
    """One weights file of a model, open, and the parameters to take from it by entry."""

    weights: WeightsFile
    wanted: dict[str, str]

    def renamed(self, named: Callable[[str], str]) -> Part:
        """The same with other names of the parameters."""
        return Part(self.weights, {entry: named(name) for entry, name in self.wanted.items()})

    @property
    def header(self) -> Header:
        """The header of the file."""
        return self.weights.header

    @cached_property
    def end(self) -> int:
        """Offset after the last wanted tensor: what lies behind is not read. ``wanted`` is complete by then."""
        return max((entry.stop for entry in self.entries), default=0)

    @cached_property
    def entries(self) -> list[TensorEntry]:
        """The tensors wanted, in the order of the file."""
        return [entry for entry in self.header.entries if entry.name in self.wanted]


class Reporter:
    """Sends progress events; ``total``, ``shared`` and ``from_cache`` are the load's own, in bytes."""

    def __init__(self, callback: Progress | None) -> None:
        check_listener("progress_callback", callback)
        self._callback = callback
        self.total = 0
        self.shared = 0
        self.from_cache = 0
        self.offline = False
        self._start: tuple[float, int] | None = None

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
                "seconds_left": self._seconds_left(loaded, total) if status == "progress_total" else None,
            }
            self._callback(event)

    def _seconds_left(self, loaded: int, total: int) -> float | None:
        """At the mean speed since the first of these events; None at that one."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, loaded
        begin, before = self._start
        return (now - begin) * (total - loaded) / (loaded - before) if loaded > before else None


class WeightLoader:
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
        self._specs: Mapping[str, Spec] = {}
        self.streams = False  # the weights do not fit together
        self._here = 0  # bytes of those that are on the device

    async def load(self, specs: Mapping[str, Spec], least: Callable[[], Slices[Need]]) -> dict[str, Tensor]:
        """Every parameter of ``specs`` as a tensor over its shared storage.

        Where they do not fit together, and a run can do with ``least``, the first ones that fit are on the device.
        """
        self._specs = specs
        known = []
        for part in self.parts:
            for entry in part.entries:
                await breathe()
                if (one := self._known(part, entry)) is not None:
                    known.append(one)
        sizes = [spec.nbytes for spec in specs.values()]
        # A model that can never run is not loaded at all.
        there = {held.storage for held in known}
        self.streams = await self.manager.residency.check_streams(sum(sizes), there, least)
        self._here = sum(storage.nbytes for storage in there if storage.is_resident)
        if self.streams and not all(_is_stored(part.weights.source) for part in self.parts):
            logger.warning(
                "%s: its %s bytes of weights do not fit under the limit, and nothing on this machine stores them, so "
                "the page's or process's own memory will keep about %s bytes of them: load with cache=\"auto\" or a "
                "folder, or raise max_memory_mb",
                self.model,
                f"{sum(sizes):,}",
                f"{sum(sizes) - self.manager.residency.room():,}",
            )
        self.report.total = sum(part.end - part.header.data_start for part in self.parts if part.wanted)
        for part in self.parts:
            await self._read(part)
        self.manager.check_open()
        if self.model not in self.manager.models:
            raise TensorReleased(f"the tensors of {self.model} were released while it was loading")
        held = self.manager.registry.held_by(self.model)
        return {name: Tensor.of_storage(held[name].storage, held[name].spec) for name in specs}

    async def _read(self, part: Part) -> None:
        """Intern one file's tensors; what is on the device already is held and not read again."""
        file, start, weights = part.header.file, part.header.data_start, part.weights
        source = weights.source
        self.report.offline |= isinstance(source, CachedSource) and source.offline
        missing = []
        for entry in part.entries:  # all that is here first: it cannot leave while the others are read
            await breathe()
            if (held := self._known(part, entry)) is None:
                missing.append(entry)
            else:
                held.hold(self.model, part.wanted[entry.name])
                self.report.shared += held.storage.nbytes
        weights.on_position = lambda position: self._progress(file, position - start, part.end - start)
        chunks = (chunk for entry in missing for chunk in weights.chunks(entry))
        jobs = ((room_of(chunk.nbytes), partial(weights.read, chunk)) for chunk in chunks)
        before, reported = weights.from_cache, self.report.from_cache
        try:
            async with aclosing(in_order(jobs, ROOM)) as arriving:
                for entry in missing:
                    await self._intern(part, entry, arriving)
                    self.report.from_cache = reported + weights.from_cache - before
        finally:
            weights.on_position = None  # it refers to this, and this to the file: a cycle that would keep the manager
        self.loaded += part.end - start
        self.report("done", file, part.end - start, part.end - start)
        self.manager.changed()

    def _known(self, part: Part, entry: TensorEntry) -> Entry | None:
        """The tensor, if it is on the device and that can be told without reading it."""
        registry = self.manager.registry
        identity = part.weights.identity(entry)
        if identity is not None and self._as_stored(part, entry):
            return registry.find(self.device, identity)
        if identity is not None:
            return registry.at_origin(self.device, self._converted(part, entry, identity))
        address = self._address(part, entry)
        return None if address is None else registry.at_origin(self.device, address)

    async def _intern(self, part: Part, entry: TensorEntry, arriving: AsyncIterator[tuple[ByteBuffer, bytes]]) -> None:
        """Hold a tensor, whose chunks are the next that arrive."""
        spec, weights, registry = self._spec(part, entry), part.weights, self.manager.registry
        label, as_stored = content_label(spec.shape, spec.dtype), self._as_stored(part, entry)
        away = self.streams and self._here + spec.nbytes > self.manager.residency.room()
        storage: Storage | None = None
        refusal: MemoryBudgetError | None = None
        copy: list[ByteBuffer] = []  # of one that is away, where no storage has it
        stored = digests = b""
        offset = 0
        taken = ExitStack()
        try:
            for chunk in weights.chunks(entry):
                raw, of_raw = await anext(arriving)
                stored += of_raw
                async for block in _converted(entry, raw, spec):
                    with block:
                        await breathe()  # and not after the look-up: two loads at once would upload one tensor twice
                        digests += of_raw if as_stored else await digests_beside(block)
                        is_known = offset + block.nbytes == spec.nbytes and registry.find(
                            self.device, joined(digests, label)
                        )
                        if storage is None and refusal is None and not is_known and not away:
                            try:
                                storage = await self._reserve(spec, taken)
                            except MemoryBudgetError as error:
                                if not self._may_be_there(spec):
                                    raise
                                refusal = error
                        if storage is not None:
                            storage.fill(offset, block)
                        elif away and not weights.is_local([chunk]):
                            copy += block.copy().packed()
                        offset += block.nbytes
            identity, content = joined(stored, label_of(entry)), joined(digests, label)
            weights.finish(entry, identity)
            origin = Origin(_reader(entry, spec, weights.read_again(entry)), weights.is_local(weights.chunks(entry)))
            if away and not origin.is_local and sum(map(len, copy)) < spec.nbytes:  # the cache has some chunks only
                for block in copy:
                    block.free()
                copy = []
                async for block in origin.chunks():
                    copy += block.packed()
            self.manager.check_open()  # no wait from here on: others look for this content, too
            held = registry.find(self.device, content)
            if held is not None:
                self.report.shared += spec.nbytes
                held.storage.regain(origin)
            elif refusal is not None:
                raise refusal
            else:
                if storage is not None:
                    storage.complete(content, origin)
                    self._here += spec.nbytes
                else:
                    is_whole = not origin.is_local and sum(map(len, copy)) == spec.nbytes
                    storage = Storage.away(self.device, spec, "weights", content, origin, copy if is_whole else None)
                    copy = [] if is_whole else copy
                held, storage = Entry(storage, spec, content=content), None
                registry.add(held)
        finally:
            if storage is not None:
                storage.release()
            taken.close()
            for block in copy:
                block.free()
        held.hold(self.model, part.wanted[entry.name])
        address = self._address(part, entry)
        if address is not None:
            registry.remember(self.device, address, content)
        if content != identity:
            registry.remember(self.device, self._converted(part, entry, identity), content)

    def _may_be_there(self, spec: Spec) -> bool:
        """Return whether the device has a tensor of this shape and dtype, so that reading on may find the same one."""
        return any(entry.spec == spec and entry.storage.device is self.device for entry in self.manager.registry)

    async def _reserve(self, spec: Spec, taken: ExitStack) -> Storage:
        """A storage for a tensor, whose bytes cannot leave until ``taken`` is closed."""
        await self.manager.residency.make_room(spec.nbytes)
        self.manager.check_open()
        storage = Storage.reserve(self.device, spec.nbytes, "weights", spec)
        taken.enter_context(self.manager.residency.arriving(spec.nbytes))
        if spec.nbytes >= CHECKED:
            try:
                await self.device.backend.check([storage.handle])
            except BaseException:
                storage.release()
                raise
        return storage

    def _spec(self, part: Part, entry: TensorEntry) -> Spec:
        return self._specs[part.wanted[entry.name]]

    def _as_stored(self, part: Part, entry: TensorEntry) -> bool:
        """True if the device gets the very bytes of the file, so that the content is known by their hash."""
        return entry.dtype != "BF16" and NUMPY_NAME[entry.dtype] == self._spec(part, entry).dtype.name

    def _converted(self, part: Part, entry: TensorEntry, identity: str) -> str:
        """Return an origin that converts the bytes of a file, alike wherever they are read."""
        return f"{identity} as {self._spec(part, entry).dtype}"

    def _address(self, part: Part, entry: TensorEntry) -> str | None:
        """The origin of a tensor: the file in its present version, the range of its bytes, and their dtype.

        None where nothing distinguishes the file's versions.
        """
        version = part.weights.version
        return version and f"{version} {entry.start}-{entry.stop} as {self._spec(part, entry).dtype}"

    def _progress(self, file: str, loaded: int, total: int) -> None:
        self.report("progress", file, min(loaded, total), total)
        self.report("progress_total", self.model, self.loaded + min(loaded, total), self.report.total)


def _is_stored(source: Source) -> bool:
    """Return whether a tensor of ``source`` can be read again without a network."""
    return source.is_local or isinstance(source, CachedSource)


def _reader(
    entry: TensorEntry, spec: Spec, again: list[tuple[Chunk, ReadAgain]]
) -> Callable[[], AsyncGenerator[ByteBuffer]]:
    """A tensor's bytes again, as they are on the device."""

    async def chunks() -> AsyncGenerator[ByteBuffer]:
        async with aclosing(in_order([(room_of(chunk.nbytes), read) for chunk, read in again], ROOM)) as arriving:
            async for raw in arriving:
                async for block in _converted(entry, raw, spec):
                    yield block

    return chunks


async def _converted(entry: TensorEntry, raw: ByteBuffer, spec: Spec) -> AsyncGenerator[ByteBuffer]:
    """A chunk of a tensor in the dtype of ``spec``, in one or more blocks, which take its place."""
    if entry.dtype != "BF16" and NUMPY_NAME[entry.dtype] == spec.dtype.name:
        yield raw
        return
    before, after = ITEMSIZE[entry.dtype], spec.dtype.numpy.itemsize
    left = raw.nbytes // before * after
    block, filled = ByteBuffer(min(left, CHUNK)), 0
    with raw:
        for _, piece in raw.pieces():
            await breathe()
            array = as_array(replace(entry, shape=(len(piece) // before,)), piece)
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, as in every framework
                converted = memoryview(array.astype(spec.dtype.numpy, copy=True).view(np.uint8))
            for start in range(0, converted.nbytes, CHUNK):
                some = converted[start : start + CHUNK]
                block.write(filled, some)
                filled += some.nbytes
                if filled == block.nbytes and filled < left:
                    left -= filled
                    yield block
                    block, filled = ByteBuffer(min(left, CHUNK)), 0
    yield block
