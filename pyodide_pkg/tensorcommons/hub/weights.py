"""A weights file whose tensors may be in the cache: each chunk is read from there, or downloaded and then kept.

A tensor is read in chunks of at most CHUNK bytes, the unit of receiving, hashing and storing: none is ever whole in
memory, and a download that ended early is continued at the first chunk that is not recorded.

One file is read by several requests, and all of them must be of one content. Where the server's validators do not prove
that a later response is of the same version (:mod:`.version`), the file is read again from its beginning by one
request, and the bytes that were read before are compared by their hashes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ..bridge.byte_buffer import CHUNK, PIECE, ByteBuffer
from ..bridge.digest import SMALL, digests_beside, digests_of, identity_of, joined
from ..bridge.runtime import breathe
from ..errors import DownloadError, InvalidWeights, quoted
from .cached import CachedSource
from .records import Piece, Record
from .safetensors import NUMPY_NAME, Header, TensorEntry, parse_file_header, read_header_bytes
from .source import Source
from .streams import ShortReadError, Stream
from .version import is_immutable

WAITS = (0.0, 0.5, 1.0)  # seconds before each attempt to resume a connection that delivers nothing more
REOPEN = 1 << 20  # bytes; a larger gap is skipped by another request instead of reading through it
SAVE_AFTER = 0.5  # seconds until less than a chunk is recorded: a crash costs no more

ReadAgain: TypeAlias = Callable[[], Awaitable[ByteBuffer]]
"""Reads a chunk's bytes again, checked: from the cache, or from their source."""


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


def label_of(entry: TensorEntry) -> str:
    """Return the text that a tensor's identity covers beside its bytes; equal to sharing's ``content_label``."""
    dtype = "bfloat16" if entry.dtype == "BF16" else NUMPY_NAME[entry.dtype]
    return f"{dtype}{entry.shape}"


class WeightsFile:
    """One safetensors file, open. Read the chunks of its tensors in file order, also the next before the last has come;
    ``async with`` closes it. What arrives is recorded in the cache.

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
        self._came: list[tuple[int, int, Awaitable[bytes] | bytes]] = []  # from the network: place and digests
        self._pieces: dict[tuple[int, int], Piece] = {}  # all that was read
        self._unsaved = 0  # bytes kept since the record was saved
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Future[None] | None = None
        self._is_pinned = is_immutable(record.address)
        self._stream = stream
        self._cache = source.cache if isinstance(source, CachedSource) else None
        self._kept: set[tuple[int, int]] = set()
        self._turn = asyncio.Lock()  # of reading from the one connection

    @classmethod
    async def open(cls, source: Source, file: str) -> WeightsFile:
        """Open ``file`` and check its header. Raises as ``Source.open`` and ``read_header`` do."""
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
            raw: bytes | bytearray | None = await weights._known_header()
            came = raw is None
            if raw is None:
                if stream is None:
                    stream = weights._stream = await source.open(file)
                raw = await read_header_bytes(stream, name)
            weights.header = await parse_file_header(raw, record.size, name)
            record.size = weights.header.size
            if came:
                await weights._keep_header(raw)
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

    def chunks(self, entry: TensorEntry) -> list[Chunk]:
        """List the chunks of a tensor, at least one."""
        starts = range(entry.start, entry.stop, CHUNK) or [entry.start]
        return [Chunk(entry, start, min(start + CHUNK, entry.stop)) for start in starts]

    def identity(self, entry: TensorEntry) -> str | None:
        """Return a tensor's identity if it is known without reading it, else None."""
        label, place = label_of(entry), (entry.start, entry.stop)
        if entry.nbytes > CHUNK:
            identity, of = self._record.tensors.get(place, (None, ""))
            return identity if of == label else None
        piece = self._record.pieces.get(place)
        return piece.identity if piece is not None and piece.label == label else None

    async def read(self, chunk: Chunk) -> tuple[ByteBuffer, bytes]:
        """Read a chunk's bytes, and their digests, of which the tensor's identity is made (``bridge/digest.py``).

        A connection that breaks is resumed there. Raises ``InvalidWeights`` for a truncated file, ``DownloadError`` if
        it cannot be resumed.
        """
        piece = self._record.pieces.get((chunk.start, chunk.stop))
        if piece is not None and piece.label == chunk.label:
            self._pieces[chunk.start, chunk.stop] = piece
            await breathe()
            return await self._known_piece(piece)
        async with self._turn:  # in the order of the calls
            await breathe()
            data = await self._receive(chunk)
            # A large chunk is hashed while the next arrives.
            hashed = digests_of(data) if data.nbytes <= SMALL else asyncio.ensure_future(digests_beside(data))
            self._came.append((chunk.start, chunk.stop, hashed))
        digests = hashed if isinstance(hashed, bytes) else await hashed
        piece = Piece(chunk.start, chunk.stop, joined(digests, chunk.label), chunk.label)
        self._pieces[chunk.start, chunk.stop] = piece
        await self._keep(piece, data)
        return data, digests

    def bytes_to_download(self, entry: TensorEntry) -> int:
        """Return the bytes of a tensor that are not stored locally."""
        pieces = self._record.pieces
        missing = (each for each in self.chunks(entry) if (each.start, each.stop) not in pieces)
        return 0 if self.source.is_local else sum(chunk.nbytes for chunk in missing)

    def finish(self, entry: TensorEntry, identity: str) -> None:
        """Record the identity of a tensor all of whose chunks were read."""
        if entry.nbytes > CHUNK and self._cache is not None and self.identity(entry) != identity:
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
                found = await cache.read(piece)
                if found is not None:
                    return found[0]
            data, _ = await _download(source, file, piece, None)
            if cache is not None:
                await cache.put(piece.identity, data)
            return data

        return read

    async def _known_header(self) -> bytearray | None:
        """Read the header's bytes from the cache; None if they are not all there."""
        found = bytearray()
        wanted = 8
        pieces = sorted(self._record.pieces.values(), key=lambda piece: (piece.start, piece.stop))
        for piece in pieces:
            if piece.start != len(found) or piece.label:
                return None
            block, _ = await self._known_piece(piece)
            with block:
                found += bytes(block)
            wanted = 8 + int.from_bytes(found[:8], "little")
            if len(found) >= wanted:
                return found if len(found) == wanted else None
        return None

    async def _keep_header(self, raw: bytes | bytearray) -> None:
        for start in range(0, len(raw), CHUNK):
            part = bytes(raw[start : start + CHUNK])
            self._came.append((start, start + len(part), digests_of(part)))
            await self._keep(Piece(start, start + len(part), identity_of(part)), part)

    async def _known_piece(self, piece: Piece) -> tuple[ByteBuffer, bytes]:
        """Read a recorded piece from the cache; if it is missing there, download its range."""
        assert self._cache is not None
        found = await self._cache.read(piece)
        if found is not None:
            self.from_cache += len(found[0])
            self._kept.add((piece.start, piece.stop))
            self._report(piece.stop)
            return found
        try:
            data, digests = await _download(self.source, self.file, piece, self._report)
        except InvalidWeights:
            await self._forget()
            raise
        if await self._cache.put(piece.identity, data):
            self._kept.add((piece.start, piece.stop))
        return data, digests

    async def _forget(self) -> None:
        if self._cache is not None:
            await self._cache.forget(self._record.address)
        self._record.restart()
        self._known.clear()

    async def _keep(self, piece: Piece, data: bytes | ByteBuffer) -> None:
        if self._cache is None or not await self._cache.keep(self._record, piece, data):
            return
        self._kept.add((piece.start, piece.stop))
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

    async def _receive(self, chunk: Chunk) -> ByteBuffer:
        data, filled, most, waits = ByteBuffer(chunk.nbytes), 0, 0, iter(WAITS)
        while chunk.nbytes:
            stream = None
            try:
                stream = await self._stream_at(chunk.start + filled)
                if stream is None:
                    filled = 0
                    stream = await self._stream_again(chunk.start)
                await stream.read_into(data, filled)
            except DownloadError as error:
                self._stream = None  # a read that failed closed it
                if isinstance(error, ShortReadError) and error.complete:
                    reason = f"truncated in tensor {quoted(chunk.entry.name)}: {error.reason}"
                    raise InvalidWeights(self.header.file, reason) from error
                filled = filled if stream is None else max(stream.position - chunk.start, 0)
                if filled > most:
                    most, waits = filled, iter(WAITS)
                wait = None if self.source.is_local else next(waits, None)
                if wait is None:
                    raise
                await asyncio.sleep(wait)
            else:
                break
        return data

    async def _stream_at(self, start: int) -> Stream | None:
        """Return the connection at ``start``; None if another one would not certainly be of the same content."""
        version, stream = self._record.version, self._stream
        provable = self._is_pinned or version.is_proof
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
        await stream.skip(start - stream.position)
        stream.watch(lambda position, _: self._report(position))
        return stream

    async def _stream_again(self, start: int) -> Stream:
        """Open the file from its beginning, compare it with what was read before, and skip to ``start``."""
        if self._known:  # the record of another visit, which cannot be completed
            await self._forget()
            raise self._changed()
        stream = await self.source.open(self.file)
        try:
            if stream.size not in (None, self._record.size):
                raise self._changed()
            for begin, end, digests in self._came:
                await stream.skip(begin - stream.position)
                again = [
                    hashlib.sha256(await stream.read_exact(min(PIECE, end - at))).digest()
                    for at in range(begin, end, PIECE)
                ]
                if b"".join(again) != (digests if isinstance(digests, bytes) else await digests):
                    raise self._changed()
            await stream.skip(start - stream.position)
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
    source: Source, file: str, piece: Piece, report: Callable[[int], None] | None
) -> tuple[ByteBuffer, bytes]:
    """Download one range of a file, which must have its recorded content, and return it with its digests."""

    def watch(position: int, size: int | None) -> None:
        if report is not None:
            report(position)

    data = ByteBuffer(piece.stop - piece.start)
    if not data.nbytes:
        return data, b""
    async with await source.open(file, piece.start, piece.stop, watch) as stream:
        await stream.read_into(data)
    digests = await digests_beside(data)
    if joined(digests, piece.label) != piece.identity:
        raise InvalidWeights(
            f"{source.name}/{file}",
            f"bytes {piece.start:,} to {piece.stop:,} changed since the file was first read: load it again",
        )
    return data, digests
