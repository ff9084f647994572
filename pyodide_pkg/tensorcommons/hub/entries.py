"""A store whose failures end here: a cache that cannot be used costs a download, never a load.

::

    blob-<identity>          at most CHUNK bytes, once however many files hold them; the identity is that of
                             bridge/digest.py (with dtype and shape for a whole tensor, as sharing/ has it), or for
                             several tensors that of their identities
    file-<hash of address>   the record of a file (hub/records.py)
    new-<random>             a write under way, or a leftover of a crash

Everything is checked when it is read: an entry that is missing, short or damaged is dropped. Whatever the storage does
(full, forbidden, in use by another tab), callers continue without it, and ``status`` says so.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from ..bridge.byte_buffer import ByteBuffer, Data
from ..bridge.digest import divided, identity_of, joined
from ..bridge.runtime import yield_to_loop
from .records import Piece, Record
from .stores import Store

Read: TypeAlias = tuple[ByteBuffer, bytes]
"""Bytes and their digests."""
Reads: TypeAlias = list[Read]

OURS = re.compile(r"(?:blob|file)-[0-9a-f]{64}|new-[0-9a-f]{16}")


def blob_name(identity: str) -> str:
    """Return the name of the entry with the bytes of ``identity``."""
    return f"blob-{identity}"


def place_name(piece: Piece) -> str:
    """Return the name of the entry with a piece's bytes."""
    return blob_name(piece.pack or piece.identity)


def record_name(address: str) -> str:
    """Return the name of the entry with the record of the file at ``address``."""
    return f"file-{identity_of(address.encode())}"


class Entries:
    """The entries of ``store``, which is None where there is no storage, with the ``reason``.

    ``make_room`` is called when the store is full, and returns the bytes that it freed.
    """

    def __init__(self, store: Store | None, reason: str, make_room: Callable[[], Awaitable[int]]) -> None:
        self.off = reason  # why nothing, or nothing more, is written
        self.note = ""  # a sentence about the last load
        self.in_use: set[str] = set()  # names of the entries that this page has read or written
        self.unchecked = 0  # bytes written since the limit was last checked
        self._store = store
        self._make_room = make_room

    @property
    def status(self) -> str:
        """One sentence that begins with "on", "reading only" or "off", and gives the reason."""
        if self._store is None:
            return f"off: {self.off}"
        state = f"reading only: {self.off}" if self.off else f"on: files are kept in {self._store.name}"
        return f"{state}; {self.note}" if self.note else state

    @property
    def is_on(self) -> bool:
        """True if anything can be read."""
        return self._store is not None

    def reset(self) -> None:
        """Begin anew after a failure."""
        self.in_use.clear()
        if self._store is not None:
            self.off = self.note = ""

    async def list(self) -> dict[str, tuple[int, float]]:
        """Return name: (bytes, seconds since 1970 of the last write); {} where they cannot be listed."""
        if self._store is None:
            return {}
        try:
            return {name: about for name, about in (await self._store.list()).items() if OURS.fullmatch(name)}
        except OSError:
            return {}

    async def has(self, name: str, nbytes: int) -> bool:
        """Return whether there is an entry of ``nbytes`` bytes."""
        try:
            return self._store is not None and await self._store.size(name) == nbytes
        except OSError:
            return False

    async def blob(self, name: str, pieces: Sequence[Piece]) -> Reads | None:
        """Read ``pieces``, which adjoin in an entry, with their digests, checked; None if any is missing or damaged."""
        sizes = [piece.nbytes for piece in pieces]
        if self._store is None:
            return None
        if not any(sizes):
            return [(ByteBuffer(0), b"") for _ in pieces]
        try:
            block, digests = await self._store.read(name, pieces[0].offset, sizes)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EBUSY):
                await self.remove(name)
            return None
        of_each = divided(digests, sizes)
        if any(joined(some, piece.label) != piece.identity for some, piece in zip(of_each, pieces, strict=True)):
            block.free()
            await self.remove(name)
            return None
        self.in_use.add(name)
        return list(zip(block.split(sizes), of_each, strict=True))

    async def record(self, name: str) -> Record | None:
        """Read a record; None if it is missing or damaged."""
        if self._store is None:
            return None
        try:
            first, *lines = (await self._store.text(name)).split(b"\n")
        except OSError:
            return None
        record = Record.from_first_line(first)
        if record is None:
            await self.remove(name)
            return None
        for line in lines:
            record.learn(line)
            await yield_to_loop()
        return record

    async def write(self, name: str, data: Data, *, appends: bool = False) -> int:
        """Write an entry, or append to it, and return 0 or the number of the error.

        EBUSY, and ENOENT for an entry to append to, are another tab's doing; any other failure sets ``off``.
        """
        if self._store is None:
            return errno.EIO
        write = self._store.append if appends else self._store.write
        for attempt in range(2):
            try:
                await write(name, data)
            except OSError as error:
                number = error.errno or errno.EIO
                if number == errno.EBUSY or (appends and number == errno.ENOENT):
                    return number
                full = number in (errno.ENOSPC, errno.EDQUOT)
                if full and not attempt and await self._make_room():
                    continue
                what = "is full" if full else "cannot be written to"
                self.off = self.off or f"{self._store.name} {what} ({error.strerror or error})"
                return number
            self.unchecked += data.nbytes
            return 0
        return errno.ENOSPC

    async def remove(self, name: str) -> None:
        """Remove an entry; one that another tab uses, or that may not be removed, stays."""
        if self._store is not None:
            try:
                await self._store.remove(name)
            except OSError:
                return
