"""Files that survive a reload of the page: bytes by content, and a record of each file by its address.

A record (hub/records.py) names the blobs that make up the file, its size and the server's validators; bytes shorter
than a file of their own is worth (SMALL) are in the record itself. It grows while its file arrives, each line after the
blobs that it names, so that it never promises bytes that are missing; a blob that no record names yet is what a crash
left, and is used by the next load of the same bytes or removed after a day (hub/eviction.py).
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakSet, WeakValueDictionary

from ..bridge.byte_buffer import CHUNK, ByteBuffer
from ..bridge.digest import digests_of, identity_of
from ..bridge.runtime import yield_to_loop
from .entries import Entries, Read, blob_name, place_name, record_name
from .eviction import leaving
from .records import AT_ONCE, Piece, Record, as_lines, pack_of
from .stores import Store

LIMIT = 4 << 30  # bytes; the least recently used files leave above it
CHECK_EVERY = 16 << 20  # bytes written, at least, between two checks of the limit: Chromium lists 400 entries in 160 ms
ABSENT_AGE = 24 * 3600.0  # seconds for which a missing file is believed to be missing: a 404 may be a passing fault
SMALL = 4 << 10  # bytes; opening a file costs a browser as much time as reading 200 kB
BUSY = "another tab used a file that was to be stored, so some bytes are downloaded again at the next visit"
TOUCH = 3600.0  # seconds; the precision of a record's time of use


class Cache:
    """The files that were downloaded. Above ``limit`` bytes (4 GiB) the least recently used ones are removed.

    Files that this page has loaded stay, also above the limit, because their weights may be read again.

    >>> cache = await tc.open_cache(None)  # "auto" in a page
    >>> cache.is_on, cache.status
    (False, 'off: cache=None')
    >>> await cache.usage()
    0
    >>> await cache.remove_unused(limit=2**30)
    0
    >>> await cache.clear()
    """

    def __init__(
        self, store: Store | None, limit: int = LIMIT, *, reason: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self.limit = limit
        self._entries = Entries(store, reason, lambda: self.remove_unused(0))
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of writing, by name
        self._check_after = CHECK_EVERY
        _made.add(self)

    def __repr__(self) -> str:
        return f"<Cache {self.status}>"

    @property
    def status(self) -> str:
        """One sentence that begins with "on", "reading only" or "off", and gives the reason."""
        return self._entries.status

    @property
    def is_on(self) -> bool:
        """True if anything can be read from the cache."""
        return self._entries.is_on

    @property
    def keeps(self) -> bool:
        """True if new files are stored, False if they are only read, or not even that."""
        return self.is_on and not self._entries.off

    def note(self, sentence: str) -> None:
        """Add a sentence about the last load to the status."""
        self._entries.note = sentence

    # --- bytes by identity ---

    async def read(self, pieces: Sequence[Piece]) -> list[Read] | None:
        """Read pieces of a record that adjoin in an entry, or one piece, with their digests, checked.

        Returns None if any is missing or damaged, except that one piece may have its own entry beside its pack's.
        """
        first, *others = pieces
        if first.data and not others:
            return [(ByteBuffer.of(first.data), digests_of(first.data))]
        found = await self._entries.blob(place_name(first), pieces)
        if found is None and first.pack and not others:
            found = await self._entries.blob(blob_name(first.identity), [replace(first, pack="", offset=0)])
        return found

    async def keep(self, record: Record, pieces: Sequence[Piece], data: bytes | bytearray | ByteBuffer) -> bool:
        """Keep ``data`` as consecutive pieces of ``record``, which the caller saves. Returns False if it could not."""
        if not self.is_on:
            return False
        if len(data) <= SMALL:
            start, raw = pieces[0].start, bytes(data)
            pieces = [replace(piece, data=raw[piece.start - start : piece.stop - start]) for piece in pieces]
        else:
            if pack := pack_of(pieces):
                pieces = [replace(piece, pack=pack, offset=piece.start - pieces[0].start) for piece in pieces]
            if not await self.put(pack or pieces[0].identity, data):
                return False
        for piece in pieces:
            record.add(piece)
        return True

    async def read_all(self, record: Record) -> bytes | None:
        """Read all bytes of a file that :meth:`keep_all` kept; None if some are missing or damaged."""
        if not record.is_whole:
            return None
        found = bytearray()
        for piece in sorted(record.pieces.values(), key=lambda piece: piece.start):
            part = await self.read([piece])
            if part is None or piece.start != len(found):
                return None
            with part[0][0] as block:
                found += bytes(block)
        return bytes(found)

    async def keep_all(self, record: Record, data: bytes) -> bool:
        """Keep ``data``, the whole file, and its record. Returns False if that was not possible."""
        view = memoryview(data)
        for start in range(0, len(data) or 1, CHUNK):
            part = view[start : start + CHUNK]
            piece = Piece(start, start + len(part), identity_of(part))
            if not await self.keep(record, [piece], bytes(part)):
                return False
            await yield_to_loop()
        return await self.save(record)

    async def put(self, identity: str, data: bytes | bytearray | ByteBuffer) -> bool:
        """Keep ``data``, whose identity the caller computed. Returns False if that was not possible; see ``status``."""
        if not self.is_on:
            return False
        name, raw = blob_name(identity), data if isinstance(data, ByteBuffer) else memoryview(data)
        async with self._turn(name):  # equal tensors of one file come together
            # The bytes may be there from another file, or another tab may have written them in the meantime.
            kept = not data or await self._entries.has(name, len(data))
            if not kept and not self._entries.off:
                kept = not await self._entries.write(name, raw) or await self._entries.has(name, len(data))
            if kept:
                self._entries.in_use.add(name)
            elif not self._entries.off:
                self.note(BUSY)
        return kept

    # --- records by address ---

    async def record(self, address: str) -> Record | None:
        """Return the record of the file at ``address``."""
        name, now = record_name(address), self._clock()
        found = await self._entries.record(name)
        if found is None or found.address != address or (found.absent and now - found.used > ABSENT_AGE):
            return None
        self._entries.in_use.add(name)
        if not found.absent and now - found.used > TOUCH:
            found.used = now
            async with self._turn(name):
                if found.is_whole and len(found.pieces) <= AT_ONCE:  # nothing is lost if another tab adds to it now
                    await self._entries.write(name, memoryview(found.text()))
                else:
                    await self._entries.write(name, memoryview(as_lines([found.used_line()])), appends=True)
        return found

    async def save(self, record: Record) -> bool:
        """Write what was added to a record since the last time, after its blobs.

        Returns False if that was not possible: it is written with what is added next.
        """
        name = record_name(record.address)
        self._entries.in_use.add(name)
        async with self._turn(name):
            saved = await self._save(name, record)
            if not (saved or self._entries.off):
                self.note(BUSY)
        if self._entries.unchecked >= self._check_after:
            await self.remove_unused()
        return saved

    async def _save(self, name: str, record: Record) -> bool:
        lines, facts = [], list(record.unsaved)
        if not record.is_kept:
            record.used = self._clock()
            other = await self._entries.record(name)  # of another load of this page, or of another tab
            if other is not None and other.is_of_the_same(record):
                record.is_kept = True
                lines.append(record.used_line())
        lines += record.lines(facts)
        if record.is_kept and lines:
            failure = await self._entries.write(name, memoryview(as_lines(lines)), appends=True)
            if failure not in (0, errno.ENOENT):
                return False
            record.is_kept = not failure
        if not record.is_kept:
            facts = list(record.unsaved)
            if await self._entries.write(name, memoryview(record.text())):
                return False
            record.is_kept = True
        del record.unsaved[: len(facts)]
        return True

    async def forget(self, address: str) -> None:
        """Drop a record; its blobs may belong to other files, too."""
        await self._entries.remove(record_name(address))

    # --- upkeep ---

    async def usage(self) -> int:
        """Return the bytes of all entries."""
        return sum(size for size, _ in (await self._entries.list()).values())

    async def clear(self) -> None:
        """Remove all files, also after a failure. Loaded models read from the network again."""
        for name in await self._entries.list():
            await self._entries.remove(name)
        self._entries.reset()

    async def remove_unused(self, limit: int | None = None) -> int:
        """Remove incomplete files, and the least recently used ones until at most ``limit`` bytes are left.

        Files that this page has loaded stay. Return the freed bytes.
        """
        self._entries.unchecked = 0
        entries = await self._entries.list()
        total = sum(size for size, _ in entries.values())
        self._check_after = max(CHECK_EVERY, (self.limit - total) // 2, total // 8)  # another tab may write as much
        found = {name: await self._entries.record(name) for name in entries if name.startswith("file-")}
        records = {name: record for name, record in found.items() if record is not None}
        most = self.limit if limit is None else limit
        gone = leaving(entries, records, self._entries.in_use, most, self._clock())
        for name in gone:
            await self._entries.remove(name)
        return sum(entries[name][0] for name in gone)

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())


_made: WeakSet[Cache] = WeakSet()


def known_caches() -> list[Cache]:
    """List the caches that something refers to."""
    return list(_made)
