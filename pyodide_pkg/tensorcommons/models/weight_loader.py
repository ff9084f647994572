"""Load tensors from open weights files into shared storages: from the device, from the cache, or by download.

A tensor that is on the device already is reused without reading it if its content is known beforehand: from the
cache's record of the file, or because the same file was loaded before. The next chunks are read while earlier ones are
hashed, cached and uploaded. A tensor of several chunks is uploaded before its hash is known, and the copy is freed if
the content turns out to be on the device: host memory never contains the whole tensor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np

from ..backends.base import BlockSpec, Spec
from ..backends.device import Device
from ..bridge.byte_buffer import CHUNK, PIECE, ByteBuffer, room_of
from ..bridge.digest import digests_beside, joined
from ..bridge.runtime import Slices, yield_to_loop
from ..errors import InternalError, InvalidWeights, MemoryBudgetError, TensorReleased, check_listener, quoted
from ..formats import BLOCKS, BlockFormat, Packer
from ..graph.needs import Need
from ..hub.cached import CachedSource
from ..hub.entries import Read
from ..hub.safetensors import ITEMSIZE, NUMPY_NAME, Header, TensorEntry, as_array
from ..hub.weights import Chunk, ReadAgain, WeightsFile, label_of
from ..sharing.manager import TensorSharingManager
from ..sharing.packed import Packed
from ..sharing.provenance import Origin, content_label
from ..sharing.registry import Entry
from ..sharing.storage import Storage
from ..tensor import Tensor
from .assembly import AssembledEntry, assembled
from .prefetch import in_order

CHECKED = 16 * 2**20  # bytes: for larger tensors the allocation is checked before they are read
ROOM = 4 * CHUNK  # bytes of host memory for chunks that are being read

logger = logging.getLogger("tensorcommons")
Progress: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass
class Shard:
    """An open weights file of a model; ``wanted`` maps the tensors to read from it to parameters."""

    weights: WeightsFile
    wanted: dict[str, str]

    @property
    def header(self) -> Header:
        """The header of the file."""
        return self.weights.header

    @cached_property
    def end(self) -> int:
        """Offset after the last wanted tensor, where reading ends. Use it only when ``wanted`` is complete."""
        return max((entry.stop for entry in self.entries), default=0)

    @property
    def entries(self) -> list[TensorEntry]:
        """The wanted tensors, in the order of the file."""
        every = (each for entry in self.header.entries for each in (entry, entry.order) if each is not None)
        return [entry for entry in every if entry.name in self.wanted]


class Reporter:
    """Send progress events of one load; ``total``, ``shared`` and ``from_cache`` are its bytes."""

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
        """Estimate from the mean speed since the first event; None for that event."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, loaded
        begin, before = self._start
        return (now - begin) * (total - loaded) / (loaded - before) if loaded > before else None


class WeightLoader:
    """Load the wanted tensors of all shards into the registry, held by ``model``."""

    def __init__(
        self, manager: TensorSharingManager, device: Device, model: str, shards: list[Shard], report: Reporter
    ) -> None:
        self.manager = manager
        self.device = device
        self.model = model
        self.shards = shards
        self.report = report
        self.loaded = 0
        self._stored: Mapping[str, Spec] = {}  # of the parameters, in formats that the device may not store
        self.streams = False  # True if the weights exceed the limit, so that each run moves some to the device
        self._here = 0  # bytes of the weights on the device

    def read_ahead(self, stored: Mapping[str, Spec]) -> None:
        """Begin to read what is in the cache, before :meth:`load`."""
        self._stored = stored
        for shard in self.shards[:1]:
            missing = (entry for entry in shard.entries if self._known(shard, entry) is None)
            shard.weights.read_ahead((chunk for entry in missing for chunk in shard.weights.chunks(entry)), ROOM)

    async def load(self, stored: Mapping[str, Spec], least: Callable[[], Slices[Need]]) -> dict[str, Tensor]:
        """Load every parameter of ``stored`` as a tensor over its shared storage.

        A block format that the device does not store becomes float32 (``Device.stored_as``). If all of them exceed
        the limit, but a run needs only ``least``, only the first ones that fit are on the device.
        """
        self._stored = stored
        specs = {name: self.device.stored_as(spec) for name, spec in stored.items()}
        known = []
        for shard in self.shards:
            for entry in shard.entries:
                await yield_to_loop()
                if (one := self._known(shard, entry)) is not None:
                    known.append(one)
        sizes = [spec.nbytes for spec in specs.values()]
        # Raises if the model could never run.
        there = {held.storage for held in known}
        self.streams = await self.manager.residency.check_streams(sum(sizes), there, least)
        self._here = sum(storage.nbytes for storage in there if storage.is_resident)
        sources = [shard.weights.source for shard in self.shards]
        if self.streams and not all(source.is_local or isinstance(source, CachedSource) for source in sources):
            logger.warning(
                "%s: its %s bytes of weights do not fit under the limit and are not in local storage, so about %s "
                'bytes of them will be kept in the memory of the page or process: load with cache="auto" or from a '
                "folder, or raise max_memory_mb",
                self.model,
                f"{sum(sizes):,}",
                f"{sum(sizes) - self.manager.residency.room():,}",
            )
        self.report.total = sum(shard.end - shard.header.data_start for shard in self.shards if shard.wanted)
        for shard in self.shards:
            await self._read(shard)
        self.manager.check_open()
        if self.model not in self.manager.models:
            raise TensorReleased(f"the tensors of {self.model} were released while it was loading")
        held = self.manager.registry.held_by(self.model)
        return {name: Tensor.of_storage(held[name].storage, held[name].spec) for name in specs}

    async def _read(self, shard: Shard) -> None:
        """Load the tensors of one file; those that are on the device already are held without reading them."""
        file, start, weights = shard.header.file, shard.header.data_start, shard.weights
        source = weights.source
        self.report.offline |= isinstance(source, CachedSource) and source.offline
        missing = []
        for entry in shard.entries:  # hold these first, so that they are not evicted while the others are read
            await yield_to_loop()
            held = self._known(shard, entry)
            if held is None:
                missing.append(entry)
            else:
                self._hold(held, shard, entry)
                self.report.shared += held.storage.nbytes
        await weights.read_early(missing)
        chunks = (chunk for entry in missing for chunk in weights.chunks(entry))
        runs = weights.runs(chunks)
        jobs = ((room_of(sum(chunk.nbytes for chunk in run)), partial(weights.read, run)) for run in runs)
        before, reported = weights.from_cache, self.report.from_cache

        def show(position: int) -> None:
            self.report.from_cache = reported + weights.from_cache - before
            self._progress(file, position - start, shard.end - start)

        weights.on_position = show
        try:
            async with aclosing(in_order(jobs, ROOM, _free)) as read, aclosing(_each(read)) as arriving:
                for entry in missing:
                    await self._intern(shard, entry, arriving)
            await weights.check_early()
        finally:
            weights.on_position = None  # break the reference cycle with the file, which would keep the manager alive
        self.loaded += shard.end - start
        self.report("done", file, shard.end - start, shard.end - start)
        self.manager.changed()

    async def _intern(self, shard: Shard, entry: TensorEntry, arriving: AsyncIterator[Read]) -> None:
        """Load and hold a tensor; its chunks are the next ones of ``arriving``."""
        weights, registry, conversion = shard.weights, self.manager.registry, self._conversion(shard, entry)
        spec = conversion.spec
        label = content_label(entry.shape, conversion.name)
        away = self.streams and self._here + spec.nbytes > self.manager.residency.room()
        storage: Storage | None = None
        refusal: MemoryBudgetError | None = None
        copy: list[ByteBuffer] = []  # host copy of an evicted tensor that is not in local storage
        digests = b""
        stored = bytearray()
        chunks = weights.chunks(entry)
        current = chunks[:1]

        async def raw_chunks() -> AsyncGenerator[ByteBuffer]:
            for current[0] in chunks:
                raw, of_raw = await anext(arriving)
                stored.extend(of_raw)
                yield raw

        offset = seen = 0
        taken = ExitStack()
        try:
            async with aclosing(conversion.blocks(raw_chunks())) as blocks:
                async for block in blocks:
                    with block:
                        if block.nbytes > PIECE:
                            await self.device.backend.caught_up()
                        await (
                            yield_to_loop()
                        )  # not after the look-up, or two concurrent loads would upload one tensor twice
                        digests += bytes(stored[seen:]) if conversion.is_none else await digests_beside(block)
                        seen = len(stored)
                        is_known = offset + block.nbytes == spec.nbytes and registry.find(
                            self.device, joined(digests, label)
                        )
                        if storage is None and refusal is None and not is_known and not away:
                            try:
                                storage = await self._reserve(spec, taken)
                            except MemoryBudgetError as error:
                                if not self._may_be_shared(spec):
                                    raise
                                refusal = error
                        if storage is not None:
                            storage.fill(offset, block)
                        elif away and not weights.is_local(current):
                            copy += block.copy().packed()
                        offset += block.nbytes
            content = joined(digests, label)
            identity = weights.identity(entry) if entry.parts else joined(bytes(stored), label_of(entry))
            if identity is None:  # of parts that are not in a cache
                identity = joined(bytes(stored), label_of(entry))
            weights.finish(entry, identity)
            origin = Origin(_reader(conversion, weights.read_again(entry)), weights.is_local(chunks))
            if away and not origin.is_local and sum(map(len, copy)) < spec.nbytes:  # only some chunks are cached
                for block in copy:
                    block.free()
                copy = []
                async for block in origin.chunks():
                    copy += block.packed()
            self.manager.check_open()  # no await from here to registry.add(): concurrent loads look up this content
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
        self._hold(held, shard, entry)
        address = conversion.address(weights.version)
        if address is not None:
            registry.record_origin(self.device, address, content)
        if content != identity:
            registry.record_origin(self.device, conversion.origin(identity), content)

    def _hold(self, held: Entry, shard: Shard, entry: TensorEntry) -> None:
        """Hold a loaded tensor. One that was widened remembers its blocks, for devices that store them."""
        conversion = self._conversion(shard, entry)
        held.hold(self.model, shard.wanted[entry.name])
        packed = conversion.packed
        if packed is not None and packed.name not in held.packed:
            assert isinstance(packed.spec, BlockSpec)
            again = shard.weights.read_again(entry)
            origin = Origin(_reader(packed, again), shard.weights.is_local(shard.weights.chunks(entry)))
            held.packed[packed.name] = Packed(packed.spec, origin)

    def _known(self, shard: Shard, entry: TensorEntry) -> Entry | None:
        return known_entry(self.manager, self.device, shard.weights, self._conversion(shard, entry))

    def _may_be_shared(self, spec: Spec) -> bool:
        """Return whether the device has a tensor of this shape and dtype, which may turn out to have equal content."""
        return any(entry.spec == spec and entry.storage.device is self.device for entry in self.manager.registry)

    async def _reserve(self, spec: Spec, taken: ExitStack) -> Storage:
        """Reserve a storage for a tensor. It is not evicted before ``taken`` is closed."""
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

    def _conversion(self, shard: Shard, entry: TensorEntry) -> Conversion:
        stored = self._stored[shard.wanted[entry.name]]
        return Conversion(entry, stored, self.device.stored_as(stored), shard.header.file)

    def _progress(self, file: str, loaded: int, total: int) -> None:
        self.report("progress", file, min(loaded, total), total)
        self.report("progress_total", self.model, self.loaded + min(loaded, total), self.report.total)


def _free(blocks: Iterable[Read]) -> None:
    for block, _ in blocks:
        block.free()


async def _each(runs: AsyncIterator[list[Read]]) -> AsyncGenerator[Read]:
    """Yield the chunks of runs one by one; those that are left at the end are freed."""
    async for run in runs:
        try:
            while run:
                yield run.pop(0)
        finally:
            _free(run)


class Conversion:
    """How a tensor of a file becomes the bytes of its storage: as they are, in another dtype, or quantised.

    ``wanted`` is the spec in the format of the model, ``spec`` that on the device, which is float32 for blocks that it
    does not store. Blocks of a file are kept if the format of the model is theirs; others are widened. With ``is_none``
    the bytes are the same, and thus their hash.
    """

    def __init__(self, entry: TensorEntry, wanted: Spec, spec: Spec, file: str) -> None:
        self.entry = entry
        self.wanted = wanted
        self.spec = spec
        self.file = file
        self.packing = BLOCKS[spec.format] if isinstance(spec, BlockSpec) else None
        self.name = spec.dtype.name if self.packing is None else self.packing.name  # the format on the device
        self.stored = BLOCKS.get(entry.dtype.lower())  # the blocks of the file
        rounding = BLOCKS[wanted.format] if isinstance(wanted, BlockSpec) and not self.packing else None
        self._rounding = None if rounding is self.stored else rounding  # quantised and widened again
        self.is_none = (
            not (self.packing or self.stored or self._rounding or entry.heads or entry.parts or entry.shift)
            and entry.dtype != "BF16"
            and NUMPY_NAME[entry.dtype] == self.name
        )
        self._place: Any = None  # in blocks, of each column of a matrix whose columns are in another order there
        self._as = f" as {self.name}" + (f" of {entry.heads} heads" if entry.heads else "")
        self._as += f" plus {entry.shift}" if entry.shift else ""
        self._as += f" of {self._rounding.name}" if self._rounding else ""
        self._as += f" from {entry.recipe}" if isinstance(entry, AssembledEntry) else ""
        self._is_in_order = entry.order is None or not self._keeps_blocks
        self._as += "" if self._is_in_order or self.packing else " in the order of its groups"

    @property
    def _keeps_blocks(self) -> bool:
        """True if the model has the tensor in the blocks of the file, even if the device widens them."""
        return self.stored is not None and isinstance(self.wanted, BlockSpec) and self.wanted.format == self.stored.name

    @property
    def packed(self) -> Conversion | None:
        """The conversion to blocks of a tensor that this one widens; None if it has none."""
        if self.packing is not None:
            return None
        spec = self.wanted
        if not isinstance(spec, BlockSpec):
            if self.stored is None or self.stored.misfit(self.entry.shape) or self.entry.order is not None:
                return None
            spec = self.stored.spec(self.entry.shape)
        return Conversion(self.entry, spec, spec, self.file)

    def origin(self, identity: str) -> str:
        """Return the registry's key of the tensor's origin by the file's content, ``identity``."""
        return f"{identity}{self._as}"

    def address(self, version: str | None) -> str | None:
        """Return the registry's key of its origin by the file's version and the byte range; None without a version."""
        return version and f"{version} {self.entry.start}-{self.entry.stop}{self._as}"

    async def blocks(self, chunks: AsyncGenerator[ByteBuffer]) -> AsyncGenerator[ByteBuffer]:
        """Yield the storage's bytes in order, from the ``chunks`` of the file, which are yielded or freed.

        A tensor of at most CHUNK bytes is one block, so that it is known before it is uploaded. Raises InvalidWeights
        for a number that the format cannot store.
        """
        if self.is_none:
            async with aclosing(chunks):
                async for raw in chunks:
                    yield raw
            return
        left, filled = self.spec.nbytes, 0
        block = ByteBuffer(min(left, CHUNK))
        try:
            async with aclosing(self._converted(chunks)) as converted:
                async for piece in converted:
                    while piece.nbytes:
                        some = piece[: block.nbytes - filled]
                        block.write(filled, some)
                        piece, filled = piece[some.nbytes :], filled + some.nbytes
                        if filled == block.nbytes and filled < left:
                            left -= filled
                            full, block, filled = block, ByteBuffer(min(left, CHUNK)), 0
                            yield full
                        elif filled == left and piece.nbytes:
                            break
                    if piece.nbytes:
                        raise InternalError(f"{self.entry.name} has {piece.nbytes:,} bytes more than its storage")
            if filled < left:
                raise InternalError(f"{self.entry.name} has {left - filled:,} bytes less than its storage")
        except BaseException:
            block.free()
            raise
        yield block

    async def _converted(self, chunks: AsyncGenerator[ByteBuffer]) -> AsyncGenerator[memoryview]:
        """Yield the storage's bytes piece by piece. The chunks are freed."""
        packer = None if self.packing is None else Packer(self.packing)
        if self.entry.parts:
            async for whole in self._assembled(chunks):
                yield self._bytes_of(whole, packer)
            if packer is not None:
                yield memoryview(packer.rest())
            return
        units = Units(self._unit)
        async with aclosing(chunks):
            async for raw in chunks:
                with raw:
                    for _, piece in raw.pieces():
                        await yield_to_loop()
                        whole = units.add(piece)
                        if self.entry.heads:
                            whole = halves_of_pairs(whole, self.entry.shape[0] // self.entry.heads, self._row)
                        yield self._bytes_of(whole, packer)
        if packer is not None:
            yield memoryview(packer.rest())

    async def _assembled(self, chunks: AsyncGenerator[ByteBuffer]) -> AsyncGenerator[memoryview]:
        """Yield whole rows of a tensor that is made of parts, which are on the host together. The chunks are freed."""
        entry = self.entry
        assert isinstance(entry, AssembledEntry)
        raw, number = [bytearray() for _ in entry.parts], 0
        async with aclosing(chunks):
            async for chunk in chunks:
                with chunk:
                    while len(raw[number]) == entry.parts[number].nbytes and chunk.nbytes:
                        number += 1
                    for _, piece in chunk.pieces():
                        raw[number] += piece
                        await yield_to_loop()
        if isinstance(entry.order, AssembledEntry) and not self._keeps_blocks:
            (order,) = assembled(entry.order, raw[-1:], self.file)
            self._place = np.argsort(np.frombuffer(order, np.int32))
        for rows in assembled(entry, raw, self.file):
            await yield_to_loop()
            yield rows

    @property
    def _row(self) -> int:
        """Bytes of a row in the file; of a vector, of an element."""
        return self.entry.nbytes // max(self.entry.shape[0], 1)

    @property
    def _unit(self) -> int:
        """Bytes of the file that are converted together, at least: an element, a block, or the rows of a head."""
        if self.entry.heads:
            return self._row * (self.entry.shape[0] // self.entry.heads)
        return self.stored.nbytes if self.stored else ITEMSIZE[self.entry.dtype]

    def _bytes_of(self, whole: memoryview, packer: Packer | None) -> memoryview:
        """Convert a piece of the tensor; of one in blocks on the device, return its first field."""
        if packer is not None and self.stored is packer.form:
            return memoryview(packer.add(bytes(whole)))
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # values too large for float16 become infinite, as everywhere
            array = self._numbers(whole)
            if packer is not None:
                return memoryview(packer.add(self._quantized(packer.form, array)))
            if self._rounding is not None:
                array = self._rounding.numbers(self._quantized(self._rounding, array))
            return memoryview(array.astype(self.spec.dtype.numpy, copy=True).reshape(-1).view(np.uint8))

    def _quantized(self, form: BlockFormat, array: Any) -> bytes:
        try:
            return form.quantize(array.astype(np.float32))
        except ValueError as error:
            name = quoted(self.entry.name)
            reason = f'tensor {name} cannot be quantised: {error}; load the model with dtype="float32"'
            raise InvalidWeights(self.file, reason) from None

    def _numbers(self, whole: memoryview) -> Any:
        numbers = self._as_stored(whole)
        return numbers.astype(np.float32) + np.float32(self.entry.shift) if self.entry.shift else numbers

    def _as_stored(self, whole: memoryview) -> Any:
        if self.stored is not None:
            numbers = self.stored.numbers(whole)
            return numbers if self._place is None else numbers.reshape(-1, len(self._place))[:, self._place]
        return as_array(replace(self.entry, shape=(len(whole) // ITEMSIZE[self.entry.dtype],)), whole)


class Units:
    """Bytes that arrive in pieces, divided into whole units of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._rest = bytearray()

    def add(self, piece: memoryview) -> memoryview:
        """Return the whole units that are there with ``piece``; the rest is kept for the next."""
        if not self._rest and len(piece) % self.size == 0:
            return piece
        self._rest += piece
        end = len(self._rest) - len(self._rest) % self.size
        whole = self._rest[:end]
        del self._rest[:end]
        return memoryview(whole)


def halves_of_pairs(rows: memoryview, size: int, row: int) -> memoryview:
    """Reorder the rows of whole heads, ``size`` rows of ``row`` bytes each, from pairs to halves.

    llama.cpp rotates the rows 2k and 2k + 1 of a head together, `transformers` the rows k and k + size / 2.
    """
    pairs = np.frombuffer(rows, np.uint8).reshape(-1, size // 2, 2, row)
    return memoryview(np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(-1))


def known_entry(
    manager: TensorSharingManager, device: Device, weights: WeightsFile, conversion: Conversion
) -> Entry | None:
    """Return a tensor of ``weights`` if it is on the device and can be identified without reading it.

    A widened tensor is read unless its entry has its blocks: the entry of an equal dense tensor does not have them.
    """
    registry, identity = manager.registry, weights.identity(conversion.entry)
    if identity is None:
        address = conversion.address(weights.version)
        found = None if address is None else registry.at_origin(device, address)
    elif conversion.is_none:
        found = registry.find(device, identity)
    else:
        found = registry.at_origin(device, conversion.origin(identity))
    packed = conversion.packed
    return found if found is None or packed is None or packed.name in found.packed else None


def _reader(conversion: Conversion, again: list[tuple[Chunk, ReadAgain]]) -> Callable[[], AsyncGenerator[ByteBuffer]]:
    """Return a function that reads a tensor again, as it is on the device."""

    async def blocks() -> AsyncGenerator[ByteBuffer]:
        arriving = in_order([(room_of(chunk.nbytes), read) for chunk, read in again], ROOM, ByteBuffer.free)
        async with aclosing(conversion.blocks(arriving)) as converted:
            async for block in converted:
                yield block

    return blocks
