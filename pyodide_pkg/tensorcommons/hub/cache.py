"""Files that survive a reload of the page: bytes by what they are, and a record of each file by where it came from.

::

    blob-<identity>          bytes, once however many files hold them; the identity is that of bridge/digest.py (with
                             dtype and shape for a tensor, as sharing/ has it)
    file-<hash of address>   a record: which blobs make up the file, its size and the server's validators. What is
                             shorter than a file of its own is worth (SMALL) is in the record itself
    new-<random>             a write under way, or one that a crash left

A record is written after its blobs, so that it never promises what is not there; blobs without a record are what an
interrupted load left, and are used by the next one. Everything is checked when it is read: an entry that is missing,
short or damaged is dropped, and its bytes come from the network again. Whatever the storage does (full, forbidden, in
use by another tab), a load goes on without it, and ``status`` says so.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

from ..bridge.blocks import Block, Data
from ..bridge.digest import identity_of, joined
from ..bridge.runtime import IN_BROWSER
from ..errors import DeviceUnavailable, TensorCommonsError, quoted
from .stores import FolderStore, Store
from .version import Version, is_immutable

LIMIT = 4 << 30  # bytes; what is used least recently goes when it is passed
CHECK_EVERY = 16 << 20  # bytes written between two looks at the limit: listing 400 entries takes 160 ms in Chromium
ORPHAN_AGE = 24 * 3600.0  # seconds until what no record names is taken for a leftover, not another tab's load
ABSENT_AGE = 24 * 3600.0  # seconds for which it is believed that a file does not exist: a 404 may be a passing fault
SMALL = 4 << 10  # bytes; opening a file costs a browser as much time as reading 200 kB
TOUCH = 3600.0  # seconds; how exactly a record knows when it was used
OURS = re.compile(r"(?:blob|file)-[0-9a-f]{64}|new-[0-9a-f]{16}")

CacheSpec: TypeAlias = "Cache | str | os.PathLike[str] | None"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes ``start`` to ``stop`` of a file, known by content: a blob, or these very bytes where they are few."""

    start: int
    stop: int
    identity: str
    label: str = ""
    data: bytes = field(default=b"", repr=False)

    def packed(self) -> list[Any]:
        """For JSON."""
        return [self.start, self.stop, self.identity, self.label, b64encode(self.data).decode()]

    @classmethod
    def unpacked(cls, start: int, stop: int, identity: str, label: str, data: str) -> Piece:
        """What :meth:`packed` gave."""
        return cls(start, stop, identity, label, b64decode(data))


@dataclass
class Record:
    """What is known of the file at ``address``: its bytes by ``pieces``, perhaps not all; or that it is ``absent``.

    The rest is its version; see :class:`Version`.
    """

    address: str
    size: int | None = None
    etag: str | None = None
    modified: str | None = None
    absent: bool = False
    pieces: dict[tuple[int, int], Piece] = field(default_factory=dict)
    used: float = 0.0
    is_settled: bool = False

    @classmethod
    def of(cls, address: str, version: Version) -> Record:
        """A record of a file of that version, of which nothing was read yet."""
        return cls(address, version.size, version.etag, version.modified, is_settled=version.is_settled)

    @property
    def version(self) -> Version:
        """What tells two contents of one address apart."""
        return Version(self.size, self.etag, self.modified, self.is_settled)

    @property
    def is_whole(self) -> bool:
        """True if the pieces are all bytes of the file."""
        end = 0
        for piece in sorted(self.pieces.values(), key=lambda piece: (piece.start, piece.stop)):
            if piece.start > end:
                return False
            end = max(end, piece.stop)
        return end == self.size

    def add(self, piece: Piece) -> None:
        """Note a piece."""
        self.pieces[piece.start, piece.stop] = piece

    def to_bytes(self) -> bytes:
        """The record with a checksum in front."""
        pieces = [piece.packed() for piece in self.pieces.values()]
        text = json.dumps({**self.__dict__, "pieces": pieces}).encode()
        return identity_of(text).encode() + text

    @classmethod
    def from_bytes(cls, data: bytes) -> Record | None:
        """The record in ``data``; None for one that is damaged, or of another version of this package."""
        if identity_of(data[64:]).encode() != data[:64]:
            return None
        try:
            table: dict[str, Any] = json.loads(data[64:])
            pieces = [Piece.unpacked(*piece) for piece in table.pop("pieces")]
            return cls(**table, pieces={(piece.start, piece.stop): piece for piece in pieces})
        except (ValueError, TypeError, KeyError):
            return None


class Cache:
    """The files that were loaded, in ``store``. ``limit`` in bytes: above it the least recently used files go.

    What this page has loaded stays, also above the limit, because its weights may be read again (see residency).
    """

    def __init__(
        self, store: Store | None, limit: int = LIMIT, *, reason: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self.limit = limit
        self._store = store
        self._clock = clock
        self._off = reason  # why nothing is kept, or nothing more
        self._note = ""
        self._in_use: set[str] = set()  # names of the entries that this page has read or written
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of writing, by identity
        self._unchecked = 0  # bytes written since the last look at the limit

    def __repr__(self) -> str:
        return f"<Cache {self.status}>"

    @property
    def status(self) -> str:
        """Whether it works, and if not why: one sentence that begins with "on", "reading only" or "off"."""
        if self._store is None:
            return f"off: {self._off}"
        state = f"reading only: {self._off}" if self._off else f"on: files are kept in {self._store.name}"
        return f"{state}; {self._note}" if self._note else state

    @property
    def is_on(self) -> bool:
        """Whether anything can be read from it."""
        return self._store is not None

    def note(self, sentence: str) -> None:
        """Have the status tell something about the last load."""
        self._note = sentence

    # --- bytes by identity ---

    async def read(self, piece: Piece, room: int = 0) -> Block | None:
        """The bytes of a record's piece, checked; None if they are not there, or were damaged and are dropped now.

        ``room`` is the block's.
        """
        if piece.data:
            return Block.of(piece.data, room)
        return await self.get(piece.identity, piece.label, piece.stop - piece.start, room)

    async def keep(self, record: Record, piece: Piece, data: bytes | bytearray | Block) -> bool:
        """Keep ``data`` as a piece of ``record``, which the caller saves. False if that was not possible."""
        if self._store is None:
            return False
        if len(data) <= SMALL:
            piece = replace(piece, data=bytes(data))
        elif not await self.put(piece.identity, data):
            return False
        record.add(piece)
        return True

    async def get(self, identity: str, label: str, nbytes: int, room: int = 0) -> Block | None:
        """The bytes of that identity, checked; None if they are not there, or were damaged and are dropped now.

        ``room`` is the block's.
        """
        if self._store is None:
            return None
        if not nbytes:
            return Block(0, room)
        try:
            data, digests = await self._store.read(_blob(identity), nbytes, room)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                await self._remove(_blob(identity))
            return None
        if joined(digests, label) != identity:
            await self._remove(_blob(identity))
            return None
        self._in_use.add(_blob(identity))
        return data

    async def put(self, identity: str, data: bytes | bytearray | Block) -> bool:
        """Keep ``data``, whose identity the caller computed. False if that was not possible; ``status`` says why."""
        if self._store is None:
            return False
        async with self._turns.setdefault(identity, asyncio.Lock()):  # equal tensors of one file come together
            return await self._put(self._store, identity, data)

    async def _put(self, store: Store, identity: str, data: bytes | bytearray | Block) -> bool:
        try:
            there = await store.size(_blob(identity))
        except OSError:
            there = None
        kept = there == len(data) or not data  # the same file at another address, or another file with this tensor
        if not kept:
            kept = await self._write(_blob(identity), data if isinstance(data, Block) else memoryview(data))
        if kept:
            self._in_use.add(_blob(identity))
        return kept

    # --- records by address ---

    async def record(self, address: str) -> Record | None:
        """What is known of the file at ``address``."""
        found = await self._read_record(_file(address))
        if found is None or found.address != address:
            return None
        if found.absent and self._clock() - found.used > ABSENT_AGE:
            return None
        self._in_use.add(_file(address))
        if not found.absent and self._clock() - found.used > TOUCH:
            found.used = self._clock()
            await self._write(_file(address), memoryview(found.to_bytes()))
        return found

    async def save(self, record: Record) -> bool:
        """Write a record, after its blobs. What another load found out about the same content is kept. False if it
        could not be written."""
        name = _file(record.address)
        other = await self._read_record(name)
        if other is not None and (is_immutable(record.address) or other.version.proves(record.version)):
            record.pieces = {**other.pieces, **record.pieces}
        record.used = self._clock()
        self._in_use.add(name)
        saved = await self._write(name, memoryview(record.to_bytes()))
        if self._unchecked >= CHECK_EVERY:
            await self.remove_unused()
        return saved

    async def forget(self, address: str) -> None:
        """Drop a record; its blobs may belong to others, too."""
        await self._remove(_file(address))

    # --- upkeep ---

    async def usage(self) -> int:
        """Bytes that the entries take."""
        return sum(size for size, _ in (await self._list()).values())

    async def clear(self) -> None:
        """Remove everything, and begin anew after a failure. Models that are loaded read from the network again."""
        for name in await self._list():
            await self._remove(name)
        self._in_use.clear()
        if self._store is not None:
            self._off = self._note = ""

    async def remove_unused(self, limit: int | None = None) -> int:
        """Remove leftovers, and the least recently used files until at most ``limit`` bytes are left.

        Files that this page has loaded stay. Gives how many bytes that freed.
        """
        self._unchecked = 0
        entries = await self._list()
        most = self.limit if limit is None else limit
        before = total = sum(size for size, _ in entries.values())
        records: dict[str, Record] = {}
        gone: list[str] = []
        for name in entries:
            if name.startswith("file-"):
                record = await self._read_record(name)
                if record is not None:
                    records[name] = record
        named = Counter(blob for record in records.values() for blob in _blobs(record))
        for name, (_, written) in entries.items():
            is_named = name.startswith("file-") or named[name] or name in self._in_use
            if not is_named and self._clock() - written > ORPHAN_AGE:
                gone.append(name)
        total -= sum(entries[name][0] for name in gone)
        for name in sorted(records.keys() - self._in_use, key=lambda name: records[name].used):
            if total <= most:
                break
            blobs = _blobs(records[name])
            named.subtract(blobs)
            unnamed = {blob for blob in blobs if not named[blob]} - self._in_use
            leaving = [name, *sorted(unnamed & entries.keys())]
            total -= sum(entries[each][0] for each in leaving)
            gone += leaving
        for name in gone:
            await self._remove(name)
        return before - total

    # --- the store, whose failures end here ---

    async def _read_record(self, name: str) -> Record | None:
        if self._store is None:
            return None
        try:
            data, _ = await self._store.read(name)
        except OSError:
            return None
        record = Record.from_bytes(bytes(data))
        if record is None:
            await self._remove(name)
        return record

    async def _write(self, name: str, data: Data) -> bool:
        if self._store is None or self._off:
            return False
        for attempt in range(2):
            try:
                await self._store.write(name, data)
            except OSError as error:
                if error.errno == errno.EBUSY:  # another tab writes or reads the same bytes
                    return False
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if full and not attempt and await self.remove_unused(0):
                    continue
                what = "is full" if full else "cannot be written to"
                self._off = f"{self._store.name} {what} ({error.strerror or error})"
                return False
            self._unchecked += data.nbytes
            return True
        return False

    async def _remove(self, name: str) -> None:
        if self._store is not None:
            try:
                await self._store.remove(name)
            except OSError:
                return  # in use by another tab, or forbidden: it is checked again when it is read again

    async def _list(self) -> dict[str, tuple[int, float]]:
        if self._store is None:
            return {}
        try:
            return {name: about for name, about in (await self._store.list()).items() if OURS.fullmatch(name)}
        except OSError:
            return {}


_of_this_page: Cache | None = None


async def open_cache(cache: CacheSpec = "auto") -> Cache:
    """The cache that ``cache`` means: "auto" for this browser's storage, None for none, a folder's path, or a Cache.

    "auto" is one cache for the whole page. Outside a browser it is off: a folder has to be named there.
    """
    global _of_this_page
    if isinstance(cache, Cache):
        return cache
    if cache is None:
        return Cache(None, reason="none was asked for")
    if not isinstance(cache, str | os.PathLike):
        raise TensorCommonsError(f'cache is "auto", None, the path of a folder, or an open Cache, not {quoted(cache)}')
    if cache != "auto":
        return Cache(FolderStore(cache))
    if not IN_BROWSER:
        return Cache(None, reason='this is no browser; name a folder to keep files in: cache="path"')
    if _of_this_page is None or not _of_this_page.is_on:
        _of_this_page = await _open_browser_cache()
    return _of_this_page


async def _open_browser_cache() -> Cache:
    from ..bridge.opfs import open_opfs

    try:
        return Cache(await open_opfs())
    except (OSError, DeviceUnavailable) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Cache(None, reason=f"this browser keeps no files for this page ({reason})")


def _blob(identity: str) -> str:
    return f"blob-{identity}"


def _file(address: str) -> str:
    return f"file-{identity_of(address.encode())}"


def _blobs(record: Record) -> set[str]:
    return {_blob(piece.identity) for piece in record.pieces.values() if not piece.data}
