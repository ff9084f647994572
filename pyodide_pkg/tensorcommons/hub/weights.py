"""A weights file whose tensors may be in the cache: each chunk is read from there, or downloaded and then kept.

A tensor is read in chunks of at most CHUNK bytes, each with an identity: none is ever whole in memory, and a download
that ended early is continued at the first chunk that is not recorded. Chunks that are fewer bytes together are a run:
they are received, hashed and stored as one, since a browser takes longer to open a file than to read a megabyte.

One file is read by several requests, and all of them must be of one content. Where the server's validators do not prove
that a later response is of the same version (:mod:`.version`), the file is read again from its beginning by one
request, and the bytes that were read before are compared by their hashes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..bridge.byte_buffer import CHUNK, PIECE, ByteBuffer, room_of
from ..bridge.digest import digests_beside, divided, joined
from ..bridge.runtime import yield_to_loop
from ..errors import DownloadError, InvalidWeights, quoted
from .cached import CachedSource
from .entries import Reads
from .gguf import parse_gguf_header, read_gguf_header
from .records import Piece, Place, Record
from .safetensors import NUMPY_NAME, Header, TensorEntry, parse_file_header, read_header_bytes
from .source import Source, is_gguf_file
from .streams import ShortReadError, Stream
from .version import is_immutable

WAITS = (0.0, 0.5, 1.0)  # seconds before each attempt to resume a connection that delivers nothing more
REOPEN = 1 << 20  # bytes; a larger gap is skipped by another request instead of reading through it
EARLY = 1 << 26  # bytes that are kept of chunks that are read before their turn
SAVE_AFTER = 0.5  # seconds until less than a chunk is recorded: a crash costs no more

ReadAgain: TypeAlias = Callable[[], Awaitable[ByteBuffer]]
"""Reads a chunk's bytes again, checked: from the cache, or from their source."""


GGUF_HEADER = "gguf header"  # label of the pieces of such a header, which does not begin with its length
LARGE = CHUNK // 4  # bytes; a run ends with such a tensor, so that the runs of two files with common tensors are equal


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes ``start`` to ``stop`` of the file: a tensor, or a part of one of more than CHUNK bytes."""

    entry: TensorEntry
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.stop - self.start

    @property
    def label(self) -> str:
        """Text that the identity covers beside the bytes: the tensor's label for a whole tensor, else empty."""
        return label_of(self.entry) if self.nbytes == self.entry.nbytes else ""


Run: TypeAlias = list[Chunk]
"""Chunks that are read at once."""


def label_of(entry: TensorEntry) -> str:
    """Return the text that a tensor's identity covers beside its bytes; equal to sharing's ``content_label``."""
    dtype = "bfloat16" if entry.dtype == "BF16" else NUMPY_NAME.get(entry.dtype, entry.dtype.lower())
    return f"{dtype}{entry.shape}"


class WeightsFile:
    """One safetensors or GGUF file, open. Read the chunks of its tensors in file order, run by run, also the next
    before the last has come; ``async with`` closes it. What arrives is recorded in the cache.

    ``from_cache`` counts the bytes that were not downloaded, ``on_position`` is called with the offset that a read has
    reached.
    """

    def __init__(self, source: Source, file: str, header: Header, record: Record, stream: Stream | None) -> None:
        self.source = source
        self.file = file
        self.header = header
        self.from_cache = 0
        self.on_position: Callable[[int], None] | None = None
        self._record = record
        self._known = set(record.pieces)
        self._came: list[tuple[list[Place], Awaitable[bytes]]] = []  # from the network: places and digests
        self._pieces: dict[tuple[int, int], Piece] = {}  # all that was read
        self._unsaved = 0  # bytes kept since the record was saved
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Future[None] | None = None
        self._is_pinned = is_immutable(record.address)
        self._stream = stream
        self._cache = source.cache if isinstance(source, CachedSource) else None
        self._kept: set[tuple[int, int]] = set()
        self._turn = asyncio.Lock()  # of reading from the one connection
        self._ahead: dict[tuple[int, int], asyncio.Future[Reads | None]] = {}  # reads from the cache that have begun
        self._was_early = False
        self._early: dict[tuple[int, int], Reads] = {}  # chunks that were read before their turn, once for each use

    @classmethod
    async def open(cls, source: Source, file: str) -> WeightsFile:
        """Open ``file``, a GGUF file if its name ends so, and check its header.

        Raises as ``Source.open`` and ``read_header`` do.
        """
        name = f"{source.name}/{file}"
        record, stream = Record(source.key(file)), None
        if not isinstance(source, CachedSource):
            stream = await source.open(file)
            record = Record.of(source.key(file), stream.version)
        else:
            record, stream = await source.look(file)
            if not (record.is_whole or record.is_provable):
                record.restart()  # the rest of the file may be of another version
        weights = cls(source, file, Header(name, (), 0), record, stream)
        try:
            await weights._open_header(name)
        except BaseException:
            await weights.close()
            raise
        return weights

    async def __aenter__(self) -> WeightsFile:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, and record what was read, even if it is not the whole file."""
        early, self._early = self._early, {}
        for reads in early.values():
            for block, _ in reads:
                block.free()
        ahead, self._ahead = list(self._ahead.values()), {}
        for each in ahead:
            each.cancel()
        for found in await asyncio.gather(*ahead, return_exceptions=True):
            for block, _ in found if isinstance(found, list) else ():
                block.free()
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._saving is not None:
            await asyncio.wait([self._saving])
        if self._cache is not None and self._record.unsaved:
            await self._cache.save(self._record)

    async def pause(self) -> None:
        """Close the connection until the next read, which opens another at its own offset."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    @property
    def version(self) -> str | None:
        """The file's address and its version, as text; None if the version proves nothing."""
        if self._is_pinned:
            return self._record.address
        version = self._record.version
        return f"{self._record.address} {version}" if version.is_proof else None

    @property
    def _is_provable(self) -> bool:
        """True if another response is certainly of the same version where its validators say so."""
        return self._is_pinned or self._record.version.is_proof

    def chunks(self, entry: TensorEntry) -> list[Chunk]:
        """List the chunks of a tensor, at least one; of one that is made of parts, those of all parts."""
        if entry.parts:
            return [chunk for part in entry.parts for chunk in self.chunks(part)]
        starts = range(entry.start, entry.stop, CHUNK) or [entry.start]
        return [Chunk(entry, start, min(start + CHUNK, entry.stop)) for start in starts]

    def identity(self, entry: TensorEntry) -> str | None:
        """Return a tensor's identity if it is known without reading it, else None."""
        if entry.parts:
            known = [self.identity(part) for part in entry.parts]
            whole = [each for each in known if each is not None]
            return joined("".join(whole).encode(), label_of(entry)) if len(whole) == len(known) else None
        label, place = label_of(entry), (entry.start, entry.stop)
        if entry.nbytes > CHUNK:
            identity, of = self._record.tensors.get(place, (None, ""))
            return identity if of == label else None
        piece = self._record.pieces.get(place)
        return piece.identity if piece is not None and piece.label == label else None

    def runs(self, chunks: Iterable[Chunk]) -> Iterator[Run]:
        """Divide chunks in file order into those to read at once: they adjoin, in the file or in the cache."""
        run: Run = []
        for chunk in chunks:
            if run and not self._continues(run, chunk):
                yield run
                run = []
            run.append(chunk)
        if run:
            yield run

    def _continues(self, run: Run, chunk: Chunk) -> bool:
        last = run[-1]
        if self._early and not self._early.keys().isdisjoint(((last.start, last.stop), (chunk.start, chunk.stop))):
            return False
        if chunk.start != last.stop or chunk.stop - run[0].start > CHUNK:
            return False
        before, piece = self._recorded(last), self._recorded(chunk)
        if before is None or piece is None:
            return before is piece and last.nbytes < LARGE
        return bool(piece.pack) and piece.pack == before.pack and piece.offset == before.offset + before.nbytes

    def _recorded(self, chunk: Chunk) -> Piece | None:
        piece = self._record.pieces.get((chunk.start, chunk.stop))
        return piece if piece is not None and piece.label == chunk.label else None

    def read_ahead(self, chunks: Iterable[Chunk], room: int) -> None:
        """Begin to read the first runs of ``chunks`` that are in the cache, of up to ``room`` bytes; :meth:`read` waits
        for them."""
        for run in self.runs(chunks):
            pieces = [piece for chunk in run if (piece := self._recorded(chunk)) is not None]
            room -= room_of(sum(chunk.nbytes for chunk in run))
            if self._cache is None or len(pieces) < len(run) or room < 0:
                return
            self._ahead[pieces[0].start, pieces[-1].stop] = asyncio.ensure_future(self._cache.read(pieces))

    async def read_early(self, entries: Iterable[TensorEntry]) -> None:
        """Download the small parts of entries that are made of parts, in the order of the file.

        They may be far from the large part, so that matrix by matrix each would need a request of its own. Those that
        the cache does not keep stay in memory until they are used: a thirtieth of a file of 4-bit weights in groups of
        128. It ends after about EARLY bytes if later requests certainly read the same version of the file.
        """
        small = [
            chunk
            for entry in entries
            for part in entry.parts
            if part is not max(entry.parts, key=lambda each: each.nbytes) or len(entry.parts) == 1
            for chunk in self.chunks(part)
        ]
        uses = Counter((chunk.start, chunk.stop) for chunk in small)
        is_free = self.source.is_local and self._is_provable  # to be read in any order
        wanted = {(each.start, each.stop): each for each in small if not is_free and self._recorded(each) is None}
        self._was_early, kept = bool(wanted), 0
        for run in list(self.runs(wanted[place] for place in sorted(wanted))):
            if kept > EARLY and self._is_provable:
                break
            for chunk, (block, digests) in zip(run, await self.read(run), strict=True):
                place = chunk.start, chunk.stop
                if place not in self._kept:
                    self._early[place] = [(block.copy(), digests) for _ in range(uses[place])]
                    kept += chunk.nbytes * uses[place]
                block.free()

    async def check_early(self) -> None:
        """Compare what was read early with the later response, if validators do not prove that the version is the same.

        Raises InvalidWeights if they are not.
        """
        if self._is_provable or not self._was_early:
            return
        end = max(places[-1][1] for places, _ in self._came)
        if self._stream is not None and self._stream.position < end:
            try:
                await self._compare(self._stream, end)
            except ShortReadError:
                raise self._changed() from None

    async def read(self, run: Run) -> Reads:
        """Read the bytes of each chunk of a run, and their digests, of which its tensor's identity is made
        (``bridge/digest.py``).

        A connection that breaks is resumed there. Raises ``InvalidWeights`` for a truncated file, ``DownloadError`` if
        it cannot be resumed.
        """
        if early := self._early.get((run[0].start, run[0].stop)):
            if len(early) == 1:
                return self._early.pop((run[0].start, run[0].stop))
            return [early.pop()]
        known = [piece for chunk in run if (piece := self._recorded(chunk)) is not None]
        if len(known) == len(run):
            self._pieces.update(((piece.start, piece.stop), piece) for piece in known)
            await yield_to_loop()
            return await self._known_pieces(known)
        arrived: list[asyncio.Future[Reads]] = []
        try:
            async with self._turn, aclosing(self._receive(run)) as receiving:  # in the order of the calls
                await yield_to_loop()
                async for chunks, data in receiving:
                    hashed = asyncio.ensure_future(digests_beside(data, [chunk.nbytes for chunk in chunks]))
                    self._came.append(([(chunk.start, chunk.stop) for chunk in chunks], hashed))
                    arrived.append(asyncio.ensure_future(self._arrived(chunks, data, hashed)))  # while the next come
        finally:
            found = await asyncio.gather(*arrived)
        return [read for some in found for read in some]

    async def _arrived(self, chunks: Run, data: ByteBuffer, hashed: Awaitable[bytes]) -> Reads:
        """Record chunks of a run that were received."""
        sizes = [chunk.nbytes for chunk in chunks]
        of_each = divided(await hashed, sizes)
        pieces = [
            Piece(chunk.start, chunk.stop, joined(digests, chunk.label), chunk.label)
            for chunk, digests in zip(chunks, of_each, strict=True)
        ]
        self._pieces.update(((piece.start, piece.stop), piece) for piece in pieces)
        await self._keep(pieces, data)
        return list(zip(data.split(sizes), of_each, strict=True))

    def bytes_to_download(self, entry: TensorEntry) -> int:
        """Return the bytes of a tensor that are not stored locally."""
        pieces = self._record.pieces
        missing = (each for each in self.chunks(entry) if (each.start, each.stop) not in pieces)
        return 0 if self.source.is_local else sum(chunk.nbytes for chunk in missing)

    def finish(self, entry: TensorEntry, identity: str) -> None:
        """Record the identity of a tensor all of whose chunks were read."""
        if not entry.parts and entry.nbytes > CHUNK and self._cache is not None and self.identity(entry) != identity:
            self._record.name((entry.start, entry.stop), identity, label_of(entry))

    def is_local(self, chunks: Iterable[Chunk]) -> bool:
        """Return whether the bytes of chunks that were read can be read again without the network."""
        return self.source.is_local or all((each.start, each.stop) in self._kept for each in chunks)

    def read_again(self, entry: TensorEntry) -> list[tuple[Chunk, ReadAgain]]:
        """Return functions that read the bytes of a tensor again later, chunk by chunk."""
        return [(chunk, self._again(self._pieces[chunk.start, chunk.stop])) for chunk in self.chunks(entry)]

    def _again(self, piece: Piece) -> ReadAgain:
        piece = self._record.pieces.get((piece.start, piece.stop), piece)  # may contain the bytes
        source, file, cache = self.source, self.file, self._cache

        async def read() -> ByteBuffer:
            if cache is not None:
                found = await cache.read([piece])
                if found is not None:
                    return found[0][0]
            data, _ = await _download(source, file, [piece], None)
            if cache is not None:
                await cache.put(piece.identity, data)
            return data

        return read

    async def _open_header(self, name: str) -> None:
        """Read the header, from the cache if all of it is there, and check it."""
        record, is_gguf = self._record, is_gguf_file(self.file)
        header = None
        known = await self._known_header(GGUF_HEADER if is_gguf else "")
        if known is not None:
            header = await (parse_gguf_header if is_gguf else parse_file_header)(known, record.size, name)
        if header is not None:
            self.header = header
            return
        if self._stream is None:
            self._stream = await self.source.open(self.file)
        raw: bytes | bytearray
        if is_gguf:
            raw, self.header = await read_gguf_header(self._stream, name)
        else:
            raw = await read_header_bytes(self._stream, name)
            self.header = await parse_file_header(raw, record.size, name)
        if record.size is None:
            record.size = self.header.size
        await self._keep_header(raw, GGUF_HEADER if is_gguf else "")

    async def _known_header(self, label: str) -> bytearray | None:
        """Read the header's bytes, pieces with ``label``, from the cache; None if they are not all there.

        Only the header of a GGUF file may turn out to lack its end.
        """
        found = bytearray()
        wanted = 8
        pieces = sorted(self._record.pieces.values(), key=lambda piece: (piece.start, piece.stop))
        for piece in pieces:
            if piece.start != len(found) or piece.label != label:
                return found if label and found else None
            ((block, _),) = await self._known_pieces([piece])
            with block:
                found += bytes(block)
            wanted = 8 + int.from_bytes(found[:8], "little")
            if len(found) >= wanted and not label:
                return found if len(found) == wanted else None
        return found if label and found else None

    async def _keep_header(self, raw: bytes | bytearray, label: str) -> None:
        for start in range(0, len(raw), CHUNK):
            part = bytes(raw[start : start + CHUNK])
            hashed = asyncio.ensure_future(digests_beside(part))
            self._came.append(([(start, start + len(part))], hashed))
            await self._keep([Piece(start, start + len(part), joined(await hashed, label), label)], part)

    async def _known_pieces(self, pieces: list[Piece]) -> Reads:
        """Read recorded pieces, which adjoin, from the cache; if any is missing there, download their range."""
        assert self._cache is not None
        begun = self._ahead.pop((pieces[0].start, pieces[-1].stop), None)
        found = await (self._cache.read(pieces) if begun is None else begun)
        if found is not None:
            self.from_cache += sum(piece.nbytes for piece in pieces)
            self._kept.update((piece.start, piece.stop) for piece in pieces)
            self._report(pieces[-1].stop)
            return found
        try:
            data, of_each = await _download(self.source, self.file, pieces, self._report)
        except InvalidWeights:
            await self._forget()
            raise
        await self._keep([replace(piece, pack="", offset=0) for piece in pieces], data)
        return list(zip(data.split([piece.nbytes for piece in pieces]), of_each, strict=True))

    async def _forget(self) -> None:
        if self._cache is not None:
            await self._cache.forget(self._record.address)
        self._record.restart()
        self._known.clear()

    async def _keep(self, pieces: list[Piece], data: bytes | ByteBuffer) -> None:
        if self._cache is None or not await self._cache.keep(self._record, pieces, data):
            return
        self._kept.update((piece.start, piece.stop) for piece in pieces)
        self._unsaved += len(data)
        if self._unsaved >= CHUNK:
            await self._save()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self._save_soon)

    def _save_soon(self) -> None:
        if self._saving is None or self._saving.done():
            self._saving = asyncio.ensure_future(self._save())
        else:
            self._timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self._save_soon)

    async def _save(self) -> None:
        assert self._cache is not None
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._unsaved = None, 0
        await self._cache.save(self._record)

    async def _receive(self, run: Run) -> AsyncGenerator[tuple[Run, ByteBuffer]]:
        """Receive a run. Yield it as a whole, or in parts if that takes long or fails, so that each is recorded."""
        first = at = most = run[0].start
        data, done, waits, soon = ByteBuffer(run[-1].stop - first), 0, iter(WAITS), time.monotonic() + SAVE_AFTER
        failure: BaseException | None = None
        while done < len(run):
            there = next((number for number, chunk in enumerate(run) if chunk.stop > at), len(run))
            if there == len(run) or (there > done and (failure or time.monotonic() > soon)):
                whole = there - done == len(run)
                part = data if whole else data.part(run[done].start - first, run[there - 1].stop - first)
                yield run[done:there], part
                done, soon = there, time.monotonic() + SAVE_AFTER
                continue
            if failure is not None:
                raise failure
            stream = None
            try:
                stream = await self._stream_at(at)
                if stream is None:
                    at = run[done].start
                    stream = await self._stream_again(at)
                await stream.read_into(data, at - first)
                at = stream.position
            except DownloadError as error:
                self._stream = None  # a read that failed closed it
                if isinstance(error, ShortReadError) and error.complete:
                    cut = next(chunk for chunk in run if error.received < chunk.stop)
                    reason = f"truncated in tensor {quoted(cut.entry.name)}: {error.reason}"
                    raise InvalidWeights(self.header.file, reason) from error
                at = at if stream is None else max(stream.position, run[done].start)
                if at > most:
                    most, waits = at, iter(WAITS)
                wait = None if self.source.is_local else next(waits, None)
                if wait is None:
                    failure = error
                else:
                    await asyncio.sleep(wait)
            except asyncio.CancelledError as error:
                at, failure = at if stream is None else stream.position, error
        if failure is not None:
            raise failure

    async def _stream_at(self, start: int) -> Stream | None:
        """Return the connection at ``start``; None if another one would not certainly be of the same content."""
        version, stream = self._record.version, self._stream
        provable = self._is_provable
        if stream is not None and (start < stream.position or (start - stream.position > REOPEN and provable)):
            self._stream = None
            await stream.close()
            stream = None
        if stream is None:
            if not provable:
                return None
            stream = await self.source.open(self.file, start)
            same = self._is_pinned and stream.size in (None, version.size)
            if not (same or version.proves(stream.version)):
                await stream.close()
                return None
            self._stream = stream
        await (stream.skip(start - stream.position) if provable else self._compare(stream, start))
        stream.watch(lambda position, _: self._report(position))
        return stream

    async def _compare(self, stream: Stream, stop: int) -> None:
        """Skip to ``stop``. Raise InvalidWeights if bytes on the way that were read before are others now."""
        for places, hashed in sorted(self._came, key=lambda each: each[0]):
            if places[0][0] < stream.position or places[-1][1] > stop:
                continue
            await stream.skip(places[0][0] - stream.position)
            again = [
                hashlib.sha256(await stream.read_exact(min(PIECE, end - at))).digest()
                for begin, end in places
                for at in range(begin, end, PIECE)
            ]
            if b"".join(again) != await hashed:
                raise self._changed()
        await stream.skip(stop - stream.position)

    async def _stream_again(self, start: int) -> Stream:
        """Open the file from its beginning, compare it with what was read before, and skip to ``start``."""
        if self._known:  # the record of another visit, which cannot be completed
            await self._forget()
            raise self._changed()
        stream = await self.source.open(self.file)
        try:
            if stream.size not in (None, self._record.size):
                raise self._changed()
            await self._compare(stream, start)
        except BaseException as error:
            await stream.close()
            if isinstance(error, ShortReadError) and error.complete:
                raise self._changed() from None
            raise
        stream.watch(lambda position, _: self._report(position))
        self._stream = stream
        return stream

    def _changed(self) -> InvalidWeights:
        return InvalidWeights(self.header.file, "the server's file changed while it was read: load it again")

    def _report(self, position: int) -> None:
        if self.on_position is not None:
            self.on_position(position)


async def _download(
    source: Source, file: str, pieces: list[Piece], report: Callable[[int], None] | None
) -> tuple[ByteBuffer, list[bytes]]:
    """Download the range of pieces that adjoin, which must have their recorded content; return it with the digests."""
    start, stop, sizes = pieces[0].start, pieces[-1].stop, [piece.nbytes for piece in pieces]

    def watch(position: int, size: int | None) -> None:
        if report is not None:
            report(position)

    data = ByteBuffer(stop - start)
    if data.nbytes:
        async with await source.open(file, start, stop, watch) as stream:
            while stream.position < stop:
                await stream.read_into(data, stream.position - start)
    of_each = divided(await digests_beside(data, sizes), sizes)
    for piece, digests in zip(pieces, of_each, strict=True):
        if joined(digests, piece.label) != piece.identity:
            data.free()
            raise InvalidWeights(
                f"{source.name}/{file}",
                f"bytes {piece.start:,} to {piece.stop:,} changed since the file was first read: load it again",
            )
    return data, of_each
