"""A weights file whose tensors may be in the cache: each one is read from there, or from the network and then kept.

One file is read by several requests, and all of them must be of one content. Where the server's validators do not prove
that a later answer is of the same version (:mod:`.version`), the file is read again from its beginning by one request,
and what was read before is compared by its hash on the way.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ..bridge.blocks import PIECE, Block
from ..bridge.digest import SMALL, identity_beside, identity_of, joined
from ..errors import DownloadError, InvalidWeights, quoted
from .cache import Piece, Record
from .cached import CachedSource
from .safetensors import NUMPY_NAME, Header, TensorEntry, parse_file_header, read_header_bytes
from .sources import Source
from .streams import ShortReadError, Stream
from .version import is_immutable

WAITS = (0.0, 0.5, 1.0)  # seconds before each attempt to take up a connection that brings nothing more
REOPEN = 1 << 20  # bytes; a gap larger than this is passed by another request, not by reading through it

ReadAgain: TypeAlias = Callable[[], Awaitable[Block]]


def label_of(entry: TensorEntry) -> str:
    """What a tensor's identity covers beside its bytes; the same text as sharing's ``content_label``."""
    dtype = "bfloat16" if entry.dtype == "BF16" else NUMPY_NAME[entry.dtype]
    return f"{dtype}{entry.shape}"


class WeightsFile:
    """One safetensors file, open. Read its tensors in file order, also the next before the last has come;
    ``async with`` closes it and keeps what was learnt.

    ``from_cache`` counts the bytes that did not come over the network, ``on_position`` is called with the offset that a
    read has reached.
    """

    def __init__(self, source: Source, file: str, header: Header, record: Record, stream: Stream | None) -> None:
        self.source = source
        self.file = file
        self.header = header
        self.from_cache = 0
        self.on_position: Callable[[int], None] | None = None
        self._record = record
        self._known = set(record.pieces)
        self._came: list[tuple[int, int, str, Awaitable[str] | str]] = []  # from the network: place, label, identity
        self._is_pinned = is_immutable(record.address)
        self._stream = stream
        self._cache = source.cache if isinstance(source, CachedSource) else None
        self._kept: set[str] = set()
        self._turn = asyncio.Lock()  # of reading from the one connection

    @classmethod
    async def open(cls, source: Source, file: str) -> WeightsFile:
        """Open ``file``, its header checked. Raises as ``Source.open`` and ``read_header`` do."""
        name = f"{source.name}/{file}"
        record, stream = Record(source.key(file)), None
        if not isinstance(source, CachedSource):
            stream = await source.open(file)
            record = Record.of(source.key(file), stream.version)
        else:
            record, stream = await source.look(file)
            if not (record.is_whole or record.version.is_proof or is_immutable(record.address)):
                record.pieces.clear()  # the rest of the file may be of another version
        weights = cls(source, file, Header(name, (), 0), record, stream)
        raw: bytes
        try:
            known = next((piece for piece in record.pieces.values() if piece.start == 0 and not piece.label), None)
            if known is not None:
                raw = bytes(await weights._known_piece(known, 0))
            else:
                if stream is None:
                    stream = weights._stream = await source.open(file)
                raw = await read_header_bytes(stream, name)
                identity = identity_of(raw)
                weights._came.append((0, len(raw), "", identity))
                await weights._keep(Piece(0, len(raw), identity), raw)
            weights.header = parse_file_header(raw, record.size, name)
            record.size = weights.header.size
        except BaseException:
            await weights.close()
            raise
        return weights

    async def __aenter__(self) -> WeightsFile:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connection, and record what was read, also if that is not all."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()
        if self._cache is not None and set(self._record.pieces) != self._known:
            self._known = set(self._record.pieces)
            await self._cache.save(self._record)

    async def pause(self) -> None:
        """Let go of the connection until the next read, which opens one where it begins."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    @property
    def version(self) -> str | None:
        """The file's address with what tells its contents apart; None where nothing does."""
        if self._is_pinned:
            return self._record.address
        version = self._record.version
        return f"{self._record.address} {version}" if version.is_proof else None

    def identity(self, entry: TensorEntry) -> str | None:
        """A tensor's identity where it is known without reading it."""
        piece = self._piece(entry)
        return piece.identity if piece is not None else None

    async def read(self, entry: TensorEntry, room: int = 0) -> tuple[Block, str]:
        """A tensor's bytes and identity. A connection that breaks is taken up again where it broke.

        ``room`` is the block's: where the tensor takes more bytes in another dtype, it becomes that in the same place.
        Raises ``InvalidWeights`` for a truncated file, ``DownloadError`` for a connection that stays cut.
        """
        piece = self._piece(entry)
        if piece is not None:
            return await self._known_piece(piece, room), piece.identity
        label = label_of(entry)
        async with self._turn:
            data = await self._read_whole(entry, room)
            # A large one is hashed while the next arrives.
            hashed = identity_of(data, label) if data.nbytes <= SMALL else asyncio.ensure_future(_hash(data, label))
            self._came.append((entry.start, entry.stop, label, hashed))
        identity = hashed if isinstance(hashed, str) else await hashed
        await self._keep(Piece(entry.start, entry.stop, identity, label), data)
        return data, identity

    def is_local(self, identity: str) -> bool:
        """Whether the bytes can be read again without the network."""
        return self.source.is_local or identity in self._kept

    def read_again(self, entry: TensorEntry, identity: str, room: int = 0) -> ReadAgain:
        """How to get a tensor's bytes again later, checked: from the cache, or from where they came from."""
        piece = self._piece(entry) or Piece(entry.start, entry.stop, identity, label_of(entry))
        source, file = self.source, self.file
        cache = self._cache

        async def read() -> Block:
            if cache is not None:
                data = await cache.read(piece, room)
                if data is not None:
                    return data
            data = await _download(source, file, piece, None, room)
            if cache is not None:
                await cache.put(identity, data)
            return data

        return read

    def _piece(self, entry: TensorEntry) -> Piece | None:
        piece = self._record.pieces.get((entry.start, entry.stop))
        return piece if piece is not None and piece.label == label_of(entry) else None

    async def _known_piece(self, piece: Piece, room: int) -> Block:
        """From the cache; where it is missing there, just its range from the network."""
        assert self._cache is not None
        data = await self._cache.read(piece, room)
        if data is not None:
            self.from_cache += len(data)
            self._kept.add(piece.identity)
            self._report(piece.stop)
            return data
        try:
            data = await _download(self.source, self.file, piece, self._report, room)
        except InvalidWeights:
            await self._forget()
            raise
        if await self._cache.put(piece.identity, data):
            self._kept.add(piece.identity)
        return data

    async def _forget(self) -> None:
        if self._cache is not None:
            await self._cache.forget(self._record.address)
        self._record.pieces.clear()
        self._known.clear()

    async def _keep(self, piece: Piece, data: bytes | Block) -> None:
        if self._cache is not None and await self._cache.keep(self._record, piece, data):
            self._kept.add(piece.identity)

    async def _read_whole(self, entry: TensorEntry, room: int) -> Block:
        data, filled, most, waits = Block(entry.nbytes, room), 0, 0, iter(WAITS)
        while entry.nbytes:
            stream = None
            try:
                stream = await self._stream_at(entry.start + filled)
                if stream is None:
                    filled = 0
                    stream = await self._stream_again(entry.start)
                await stream.read_into(data, filled)
            except DownloadError as error:
                self._stream = None  # a read that failed closed it
                if isinstance(error, ShortReadError) and error.complete:
                    reason = f"truncated in tensor {quoted(entry.name)}: {error.reason}"
                    raise InvalidWeights(self.header.file, reason) from error
                filled = filled if stream is None else max(stream.position - entry.start, 0)
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
        """The connection, from there on; None where another one would not certainly be of the same file."""
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
        """A connection from the file's beginning on, which is compared with what was read before."""
        if self._known:  # by the record of another visit, which cannot be completed
            await self._forget()
            raise self._changed()
        stream = await self.source.open(self.file)
        try:
            if stream.size not in (None, self._record.size):
                raise self._changed()
            for begin, end, label, identity in self._came:
                await stream.skip(begin - stream.position)
                digests = [
                    hashlib.sha256(await stream.read_exact(min(PIECE, end - at))).digest()
                    for at in range(begin, end, PIECE)
                ]
                if joined(b"".join(digests), label) != (identity if isinstance(identity, str) else await identity):
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


async def _hash(data: Block, label: str) -> str:
    return await identity_beside(data, label)


async def _download(source: Source, file: str, piece: Piece, report: Callable[[int], None] | None, room: int) -> Block:
    """One range of a file, which must still be what it was."""

    def watch(position: int, size: int | None) -> None:
        if report is not None:
            report(position)

    data = Block(piece.stop - piece.start, room)
    if not data.nbytes:
        return data
    async with await source.open(file, piece.start, piece.stop, watch) as stream:
        await stream.read_into(data)
    if await identity_beside(data, piece.label) != piece.identity:
        raise InvalidWeights(
            f"{source.name}/{file}",
            f"bytes {piece.start:,} to {piece.stop:,} are other ones than when the file was first read: load it again",
        )
    return data
