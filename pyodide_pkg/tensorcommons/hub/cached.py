"""A source whose files are kept: a file that was downloaded once is read from this browser's storage.

On a second visit "nothing is downloaded" means: no byte of any file's body. What still goes over the network is

- for an address with an immutable revision (``/resolve/<40 hex digits>/`` as in a hub, or a ``?v=`` in it): nothing;
- for any other address: one conditional request a file (``If-None-Match`` with the ETag of the first time), answered by
  304 and headers. Another origin may refuse such a header, or hide its ETag; a HEAD request, which has no body either,
  then gives Last-Modified and size, which are compared. If the server sends neither, the whole file is requested again,
  as it is without an ETag if the file was changed in the second before it was first loaded (:mod:`.version`).

Where the server cannot be reached (no network, or a status from 500 on) the kept copy is used, and ``Cache.status``
reports it. The absence of a file is kept, too, and trusted under the same rules; a 404 cannot be conditional, so an
optional file that is missing costs the server's error page again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

from ..bridge.runtime import retrieve
from ..errors import shown_address
from .cache import Cache
from .records import Record
from .source import Source, read_whole
from .streams import FileMissingError, OnBytes, Stream, UnreachableError
from .version import Version, is_immutable

Looked: TypeAlias = tuple[Record, Stream | None]


class CachedSource:
    """``source`` with ``cache`` in front. Each file is compared with the server's once in the life of this object."""

    is_local = False
    is_kept = True

    def __init__(self, source: Source, cache: Cache) -> None:
        self.name = source.name
        self.source = source
        self.cache = cache
        source.is_kept = cache.keeps
        self.from_cache = 0  # bytes of small files
        self.offline = False  # a copy was used that could not be compared with the server's
        self._compared: set[str] = set()
        self._ahead: dict[str, asyncio.Future[Looked | None]] = {}

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        return self.source.key(file)

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """See :class:`Source`. Always from the network; :meth:`read` and ``WeightsFile`` use the cache."""
        return await self.source.open(file, start, stop, on_bytes)

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        """See :class:`Source`."""
        return await self.source.open_if_changed(file, version)

    async def exists(self, file: str) -> bool:
        """See :class:`Source`."""
        try:
            _, stream = await self.look(file)
        except FileMissingError:
            return False
        if stream is not None:
            await stream.close()
        return True

    def files_in(self, folder: str) -> list[str]:
        """See :class:`Source`."""
        return self.source.files_in(folder)

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        return CachedSource(self.source.sibling(name), self.cache)

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        """See :class:`Source`."""
        record, stream = await self.look(file)
        if stream is None:
            data = await self.cache.read_all(record)
            if data is not None:
                self.from_cache += len(data)
                return data
            stream = await self.source.open(file)
            record = _record_of(stream, record.address)
        stream.watch(on_bytes)
        received = await read_whole(self.source, file, stream)
        record.size = len(received)
        if await self.cache.keep_all(record, received):
            self._compared.add(file)
        return received

    async def look(self, file: str) -> Looked:
        """Return the record of ``file``, and its open stream if the file is new or has changed. Raises as ``open``.

        With a stream, the record is a new one.
        """
        ahead = self._ahead.pop(file, None)
        found = None if ahead is None else await ahead
        return found or await self._look(file, await self.cache.record(self.key(file)))

    @asynccontextmanager
    async def comparing(self, files: Iterable[str]) -> AsyncIterator[None]:
        """Compare those of ``files`` that are kept with the server's at once, not each when it is looked for."""
        ahead = self._ahead = {file: asyncio.ensure_future(self._look_ahead(file)) for file in files}
        every = list(ahead.values())
        for each in every:
            each.add_done_callback(retrieve)
        try:
            yield
        finally:
            unused, self._ahead = list(self._ahead.values()), {}
            for each in every:
                each.cancel()
            for found in await asyncio.gather(*unused, return_exceptions=True):
                if isinstance(found, tuple) and found[1] is not None:
                    await found[1].close()

    async def _look_ahead(self, file: str) -> Looked | None:
        record = await self.cache.record(self.key(file))
        return None if record is None else await self._look(file, record)

    async def _look(self, file: str, record: Record | None) -> Looked:
        address = self.key(file)
        trusted = file in self._compared or is_immutable(address)
        if record is not None and trusted:
            if record.absent:
                raise FileMissingError(address, "the server had no such file")
            return record, None
        try:
            if record is not None and (record.etag or record.modified):
                stream = await self.source.open_if_changed(file, record.version)
            else:
                stream = await self.source.open(file)
        except UnreachableError as error:
            if record is None:
                raise
            self.offline = True
            self.cache.note(
                f"{shown_address(address)} could not be compared with the server's ({error.reason}): the copy was used"
            )
            if record.absent:
                raise FileMissingError(address, "the server had no such file, and cannot be reached now") from None
            return record, None
        except FileMissingError:
            await self.cache.save(Record(address, absent=True))
            raise
        if stream is None:
            assert record is not None
            self._compared.add(file)
            return record, None
        return _record_of(stream, address), stream


def _record_of(stream: Stream, address: str) -> Record:
    return Record.of(address, stream.version)
