"""Files that survive a reload of the page: bytes by what they are, and a record of each file by where it came from.

::

    blob-<identity>          at most CHUNK bytes, once however many files hold them; the identity is that of
                             bridge/digest.py (with dtype and shape for a whole tensor, as sharing/ has it)
    file-<hash of address>   a record (hub/records.py): which blobs make up the file, its size and the server's
                             validators. What is shorter than a file of its own is worth (SMALL) is in the record itself
    new-<random>             a write under way, or one that a crash left

A record grows while its file arrives, each line after the blobs that it names, so that it never promises what is not
there; a blob that no record names yet is what a crash left, and is used by the next load of the same bytes or removed
after a day. Everything is checked when it is read: an entry that is missing, short or damaged is dropped, and its bytes
come from the network again. Whatever the storage does (full, forbidden, in use by another tab), a load goes on without
it, and ``status`` says so.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias
from weakref import WeakSet, WeakValueDictionary

from ..bridge.byte_buffer import CHUNK, ByteBuffer, Data
from ..bridge.digest import digests_of, identity_of, joined
from ..bridge.runtime import IN_BROWSER, breathe
from ..errors import DeviceUnavailable, TensorCommonsError, quoted
from .records import AT_ONCE, Piece, Record
from .stores import FolderStore, Store

LIMIT = 4 << 30  # bytes; what is used least recently goes when it is passed
CHECK_EVERY = 16 << 20  # bytes written, at least, between two looks at the limit: Chromium lists 400 entries in 160 ms
ORPHAN_AGE = 24 * 3600.0  # seconds until what no record names is taken for a leftover, not another tab's load
ABSENT_AGE = 24 * 3600.0  # seconds for which it is believed that a file does not exist: a 404 may be a passing fault
SMALL = 4 << 10  # bytes; opening a file costs a browser as much time as reading 200 kB
TOUCH = 3600.0  # seconds; how exactly a record knows when it was used
OURS = re.compile(r"(?:blob|file)-[0-9a-f]{64}|new-[0-9a-f]{16}")

CacheSpec: TypeAlias = "Cache | str | os.PathLike[str] | None"


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
        self._check_after = CHECK_EVERY
        _made.add(self)

    def __repr__(self) -> str:
        return f"<Cache {self.status}>"

    @property
    def status(self) -> str:
        """True if it works, and if not why: one sentence that begins with "on", "reading only" or "off"."""
        if self._store is None:
            return f"off: {self._off}"
        state = f"reading only: {self._off}" if self._off else f"on: files are kept in {self._store.name}"
        return f"{state}; {self._note}" if self._note else state

    @property
    def is_on(self) -> bool:
        """True if anything can be read from it."""
        return self._store is not None

    def note(self, sentence: str) -> None:
        """Have the status tell something about the last load."""
        self._note = sentence

    # --- bytes by identity ---

    async def read(self, piece: Piece) -> tuple[ByteBuffer, bytes] | None:
        """Read a record's piece, checked: its bytes and their digests. None if they are not there, or were damaged and
        are dropped now."""
        if piece.data:
            data = ByteBuffer.of(piece.data)
            return data, digests_of(data)
        return await self.get(piece.identity, piece.label, piece.stop - piece.start)

    async def keep(self, record: Record, piece: Piece, data: bytes | bytearray | ByteBuffer) -> bool:
        """Keep ``data`` as a piece of ``record``, which the caller saves. False if that was not possible."""
        if self._store is None:
            return False
        if len(data) <= SMALL:
            piece = replace(piece, data=bytes(data))
        elif not await self.put(piece.identity, data):
            return False
        record.add(piece)
        return True

    async def read_all(self, record: Record) -> bytes | None:
        """Read all bytes of a file that :meth:`keep_all` kept; None if they are not there."""
        if not record.is_whole:
            return None
        found = bytearray()
        for piece in sorted(record.pieces.values(), key=lambda piece: piece.start):
            part = await self.read(piece)
            if part is None or piece.start != len(found):
                return None
            with part[0] as block:
                found += bytes(block)
        return bytes(found)

    async def keep_all(self, record: Record, data: bytes) -> bool:
        """Keep ``data``, the whole file, and its record."""
        view = memoryview(data)
        for start in range(0, len(data) or 1, CHUNK):
            part = view[start : start + CHUNK]
            piece = Piece(start, start + len(part), identity_of(part))
            if not await self.keep(record, piece, bytes(part)):
                return False
            await breathe()
        return await self.save(record)

    async def get(self, identity: str, label: str, nbytes: int) -> tuple[ByteBuffer, bytes] | None:
        """Read the bytes of that identity, checked, and their digests; None if they are not there, or were damaged and
        are dropped now."""
        if self._store is None:
            return None
        if not nbytes:
            return ByteBuffer(0), b""
        try:
            data, digests = await self._store.read(_blob(identity), nbytes)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                await self._remove(_blob(identity))
            return None
        if joined(digests, label) != identity:
            await self._remove(_blob(identity))
            return None
        self._in_use.add(_blob(identity))
        return data, digests

    async def put(self, identity: str, data: bytes | bytearray | ByteBuffer) -> bool:
        """Keep ``data``, whose identity the caller computed. False if that was not possible; ``status`` says why."""
        if self._store is None:
            return False
        async with self._turn(_blob(identity)):  # equal tensors of one file come together
            return await self._put(self._store, identity, data)

    async def _put(self, store: Store, identity: str, data: bytes | bytearray | ByteBuffer) -> bool:
        try:
            there = await store.size(_blob(identity))
        except OSError:
            there = None
        kept = there == len(data) or not data  # the same file at another address, or another file with this tensor
        if not kept and not self._off:
            raw = data if isinstance(data, ByteBuffer) else memoryview(data)
            kept = not await self._written(_blob(identity), raw)
        if kept:
            self._in_use.add(_blob(identity))
        return kept

    # --- records by address ---

    async def record(self, address: str) -> Record | None:
        """Return the record of the file at ``address``."""
        name = _file(address)
        found = await self._read_record(name)
        if found is None or found.address != address:
            return None
        if found.absent and self._clock() - found.used > ABSENT_AGE:
            return None
        self._in_use.add(name)
        if not found.absent and self._clock() - found.used > TOUCH:
            found.used = self._clock()
            async with self._turn(name):
                if found.is_whole and len(found.pieces) <= AT_ONCE:  # nothing is lost if another tab adds to it now
                    await self._written(name, memoryview(_text(found)))
                else:
                    await self._written(name, memoryview(_joined([found.used_line()])), appends=True)
        return found

    async def save(self, record: Record) -> bool:
        """Write down what was added to a record since the last time, after its blobs. False if that was not possible:
        it is tried again with what is added next."""
        name = _file(record.address)
        self._in_use.add(name)
        async with self._turn(name):
            saved = await self._save(name, record)
        if self._unchecked >= self._check_after:
            await self.remove_unused()
        return saved

    async def _save(self, name: str, record: Record) -> bool:
        lines, facts = [], list(record.unsaved)
        if not record.is_kept:
            record.used = self._clock()
            other = await self._read_record(name)  # of another load of this page, or of another tab
            if other is not None and other.is_of_the_same(record):
                record.is_kept = True
                lines.append(record.used_line())
        lines += record.lines(facts)
        if record.is_kept and lines:
            failure = await self._written(name, memoryview(_joined(lines)), appends=True)
            if failure not in (0, errno.ENOENT):
                return False
            record.is_kept = not failure
        if not record.is_kept:
            facts = list(record.unsaved)
            if await self._written(name, memoryview(_text(record))):
                return False
            record.is_kept = True
        del record.unsaved[: len(facts)]
        return True

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
        self._check_after = max(CHECK_EVERY, (self.limit - total) // 2, total // 8)  # another tab may write as much
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

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    async def _read_record(self, name: str) -> Record | None:
        if self._store is None:
            return None
        try:
            first, *lines = (await self._store.text(name)).split(b"\n")
        except OSError:
            return None
        record = Record.from_first_line(first)
        if record is None:
            await self._remove(name)
            return None
        for line in lines:
            record.learn(line)
            await breathe()
        return record

    async def _written(self, name: str, data: Data, *, appends: bool = False) -> int:
        """Write an entry, or add to it. Gives 0, or the error's number; a failure other than another tab's turn ends
        all writing but that of records, which take little."""
        if self._store is None:
            return errno.EIO
        write = self._store.append if appends else self._store.write
        for attempt in range(2):
            try:
                await write(name, data)
            except OSError as error:
                number = error.errno or errno.EIO
                if number == errno.EBUSY or (appends and number == errno.ENOENT):
                    return number  # another tab writes or reads the same bytes, or has removed them
                full = number in (errno.ENOSPC, errno.EDQUOT)
                if full and not attempt and await self.remove_unused(0):
                    continue
                what = "is full" if full else "cannot be written to"
                self._off = self._off or f"{self._store.name} {what} ({error.strerror or error})"
                return number
            self._unchecked += data.nbytes
            return 0
        return errno.ENOSPC

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
_made: WeakSet[Cache] = WeakSet()


def known_caches() -> list[Cache]:
    """List the caches that something refers to."""
    return list(_made)


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


def _text(record: Record) -> bytes:
    return record.first_line() + _joined(record.lines([*record.pieces.values(), *record.tensors]))


def _joined(lines: Iterable[bytes]) -> bytes:
    """Lines that follow a record's first."""
    return b"".join(b"\n" + line for line in lines)


def _blobs(record: Record) -> set[str]:
    return {_blob(piece.identity) for piece in record.pieces.values() if not piece.data}
