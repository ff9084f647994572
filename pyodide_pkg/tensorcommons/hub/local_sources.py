"""Sources of files that need no network: a folder, also one of Pyodide's file system, and bytes in memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..bridge.http import is_blob, open_blob
from ..errors import DownloadError, InvalidWeights, TensorCommonsError, quoted, shown
from .source import Source, check_name, check_sibling
from .streams import Body, FileMissingError, MemoryBody, OnBytes, Stream
from .version import Version
from .web_sources import repository

JUST_NOW = 2_000_000_000  # nanoseconds; the coarsest clock of a file system in use (FAT)


class FolderSource(Source):
    """A folder of a file system."""

    is_local = True

    def __init__(self, path: Path) -> None:
        try:
            self._path = path.expanduser().absolute()
        except RuntimeError as error:  # ~name of a user that does not exist
            raise DownloadError(str(path), str(error)) from None
        self.name = self._path.name

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        check_name(file)
        return (self._path / file).as_uri()

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """See :class:`Source`."""
        check_name(file)
        path = self._path / file
        try:
            handle = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise FileMissingError(str(path), "no such file" if self._path.is_dir() else "no such folder") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the folder's name
            raise DownloadError(str(path), str(error)) from None
        about = os.fstat(handle.fileno())
        try:
            size = handle.seek(0, os.SEEK_END)
            position = handle.seek(min(start, size))
        except OSError as error:  # not a regular file
            handle.close()
            raise DownloadError(str(path), str(error)) from None
        stream = Stream(_FileBody(handle, str(path), stop), size, position, on_bytes)
        stream.version = _version(about)
        return stream

    def files_in(self, folder: str) -> list[str]:
        """See :class:`Source`."""
        place = self._path / folder
        return sorted(f"{folder}/{path.name}" for path in place.iterdir()) if place.is_dir() else []

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        beside = self._path.parent / name
        found = None if os.path.isdir(beside) else _named(name)  # noqa: PTH112 - Path.is_dir raises for a long name
        if found is None:
            check_sibling(self.name, name)
        return found or FolderSource(beside)


class MemorySource(Source):
    """``{file name: bytes}``. Each has keys of its own, because nothing proves that two hold the same bytes.

    In a browser a Blob may be in the place of bytes, such as a file that was dropped on the page: it is read in parts.
    """

    _count = itertools.count(1)

    is_local = True

    def __init__(self, files: Mapping[str, Any]) -> None:
        for name, data in files.items():
            if not (isinstance(name, str) and (isinstance(data, (bytes, bytearray, memoryview)) or is_blob(data))):
                raise TensorCommonsError(f"files must be {{name: bytes}}, not {quoted(name)}: {type(data).__name__}")
        self._files = dict(files)
        self.name = f"memory-{next(self._count)}"

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        return f"memory:{self.name}/{file}"

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """See :class:`Source`."""
        if file not in self._files:
            raise FileMissingError(
                self.key(file), f"not among the files given: {shown(', '.join(sorted(self._files))) or 'none'}"
            )
        data = self._files[file]
        if is_blob(data):
            size = int(data.size)
            body: Body = await open_blob(file, data, min(start, size), size if stop is None else min(stop, size))
        else:
            view = memoryview(data).cast("B")
            size, body = len(view), MemoryBody(view[:stop], self.key(file), start)
        stream = Stream(body, size, min(start, size), on_bytes)
        stream.version = Version(size, '"memory"')
        return stream

    def files_in(self, folder: str) -> list[str]:
        """See :class:`Source`."""
        return sorted(name for name in self._files if name.rpartition("/")[0] == folder)

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        if found := _named(name):
            return found
        raise InvalidWeights(
            "config.json",
            f"the base model {quoted(name)} cannot be found beside files in memory: load it from a URL or folder",
        )


class _FileBody(Body):
    def __init__(self, handle: BinaryIO, url: str, stop: int | None) -> None:
        self.url = url
        self._handle = handle
        self._stop = stop
        self._written = os.fstat(handle.fileno()).st_mtime_ns

    async def readinto(self, view: memoryview) -> int:
        await asyncio.sleep(0)  # the event loop gets a turn, also on a page that reads its own file system
        limit = len(view) if self._stop is None else max(0, min(len(view), self._stop - self._handle.tell()))
        try:
            piece = self._handle.read(limit)
            written = os.fstat(self._handle.fileno()).st_mtime_ns
        except OSError as error:
            raise DownloadError(self.url, str(error)) from None
        if written != self._written:
            raise DownloadError(self.url, "the file was written to while it was read: load it again")
        view[: len(piece)] = piece
        return len(piece)

    async def close(self) -> None:
        self._handle.close()


def _named(name: str) -> Source | None:
    """Return the source that the base model ``org/name`` means: a local folder of that name, else the repository."""
    found = repository(name)
    return FolderSource(Path(name)) if found and os.path.isdir(name) else found  # noqa: PTH112 - as above


def _version(about: os.stat_result) -> Version:
    """Return a file's version. A file written just now has none, because a later write could have the same time."""
    written = max(about.st_mtime_ns, about.st_ctime_ns)
    if time.time_ns() - written < JUST_NOW:
        return Version(about.st_size)
    return Version(about.st_size, f'"{about.st_ino}-{about.st_mtime_ns}-{about.st_ctime_ns}-{about.st_size}"')
