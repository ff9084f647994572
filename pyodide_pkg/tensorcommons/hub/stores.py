"""The storage below a cache: named entries, each written whole or not at all.

A store does not check what it returns, and may lose or damage it: the cache above it checks everything. The browser's
store is :mod:`tensorcommons.bridge.opfs`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..bridge.byte_buffer import PIECE, ByteBuffer, Data, pieces_of
from ..bridge.digest import digests_of


class Store(Protocol):
    """Entries by name (letters, digits, hyphens). ``name`` is the store's own, for messages.

    Every method raises OSError if the store fails: ENOENT for an entry that does not exist, ENOSPC if the store is
    full, EBUSY for an entry that another tab uses.
    """

    name: str

    async def list(self) -> dict[str, tuple[int, float]]:
        """Return name: (bytes, seconds since 1970 of the last write)."""
        ...

    async def size(self, name: str) -> int | None:
        """Return the bytes that an entry takes; None if there is none."""
        ...

    async def read(self, name: str, start: int, sizes: Sequence[int]) -> tuple[ByteBuffer, bytes]:
        """Read parts of ``sizes``, which adjoin in an entry from ``start`` on, and their digests, of which identities
        are made (``bridge/digest.py``). Raises OSError (EIO) for an entry that is shorter."""
        ...

    async def text(self, name: str) -> bytes:
        """Read all bytes of an entry into Python's memory."""
        ...

    async def write(self, name: str, data: Data) -> None:
        """Write an entry, whole or not at all, also if it is interrupted."""
        ...

    async def append(self, name: str, data: Data) -> None:
        """Append to an existing entry. An interruption may leave a part."""
        ...

    async def remove(self, name: str) -> None:
        """Remove an entry, if it exists."""
        ...


class MemoryStore:
    """Entries in a dict, for tests."""

    name = "memory"

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.written: dict[str, float] = {}

    async def list(self) -> dict[str, tuple[int, float]]:
        """See :class:`Store`."""
        return {name: (len(data), self.written.get(name, 0.0)) for name, data in self.entries.items()}

    async def size(self, name: str) -> int | None:
        """See :class:`Store`."""
        return len(self.entries[name]) if name in self.entries else None

    async def read(self, name: str, start: int, sizes: Sequence[int]) -> tuple[ByteBuffer, bytes]:
        """See :class:`Store`."""
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "no such entry", name)
        whole, stop = self.entries[name], start + sum(sizes)
        if len(whole) < stop:
            raise _shorter(len(whole), stop)
        block = ByteBuffer.of(memoryview(whole)[start:stop])
        return block, digests_of(block, sizes)

    async def text(self, name: str) -> bytes:
        """See :class:`Store`."""
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "no such entry", name)
        return self.entries[name]

    async def write(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        self.entries[name] = bytes(data)
        self.written[name] = time.time()

    async def append(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        await self.write(name, memoryview(await self.text(name) + bytes(data)))

    async def remove(self, name: str) -> None:
        """See :class:`Store`."""
        self.entries.pop(name, None)


class FolderStore:
    """Files of a folder, which is created by the first write."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).expanduser()
        self.name = f"the folder {self._path}"

    async def list(self) -> dict[str, tuple[int, float]]:
        """See :class:`Store`."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._path):
                with contextlib.suppress(FileNotFoundError):  # removed by another process in the meantime
                    about = entry.stat()
                    found[entry.name] = (about.st_size, about.st_mtime)
        return found

    async def size(self, name: str) -> int | None:
        """See :class:`Store`."""
        try:
            return (self._path / name).stat().st_size
        except FileNotFoundError:
            return None

    async def read(self, name: str, start: int, sizes: Sequence[int]) -> tuple[ByteBuffer, bytes]:
        """See :class:`Store`."""
        with (self._path / name).open("rb", buffering=0) as file:
            file.seek(start)
            block, filled, size = ByteBuffer(sum(sizes)), 0, sum(sizes)
            while filled < size and (piece := file.read(min(size - filled, PIECE))):
                block.write(filled, memoryview(piece))
                filled += len(piece)
        if filled < size:
            raise _shorter(filled, size)
        return block, digests_of(block, sizes)

    async def write(self, name: str, data: Data) -> None:
        """See :class:`Store`. A reader gets the old entry or the new one, never a part."""
        self._path.mkdir(parents=True, exist_ok=True)
        draft = self._path / f"new-{secrets.token_hex(8)}"
        try:
            with draft.open("wb") as file:
                for _, piece in pieces_of(data):
                    file.write(piece)
            draft.replace(self._path / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    async def text(self, name: str) -> bytes:
        """See :class:`Store`."""
        return (self._path / name).read_bytes()

    async def append(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        with (self._path / name).open("r+b") as file:
            file.seek(0, os.SEEK_END)
            for _, piece in pieces_of(data):
                file.write(piece)

    async def remove(self, name: str) -> None:
        """See :class:`Store`."""
        (self._path / name).unlink(missing_ok=True)


def _shorter(there: int, wanted: int) -> OSError:
    return OSError(errno.EIO, f"{there:,} of {wanted:,} bytes")
