"""A file as it arrives: read forward, a piece at a time, never whole in memory.

Every source (HTTP, folder, memory) provides its bytes as a ``Body``, the smallest interface for reading; ``Stream``
adds what readers need: exact reads, skipping, progress, and one kind of error for bytes that ended too early.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, Self

from ..bridge.byte_buffer import ByteBuffer
from ..errors import DownloadError
from .version import Version

if TYPE_CHECKING:
    from types import TracebackType

READ = 1 << 20  # bytes requested at a time: large enough to amortise Python's part, small enough for smooth progress

OnBytes = Callable[[int, int | None], None]
"""Called after each piece with ``(bytes of the file so far, bytes of the file or None)``."""


class FileMissingError(DownloadError):
    """The source has no such file. ``status`` is 404, whatever the kind of source."""

    status = 404


class UnreachableError(DownloadError):
    """There was no response, or one with a status from 500 on: the server itself failed."""


class ShortReadError(DownloadError):
    """The bytes ended early: ``received`` of ``expected`` (None if the size of the file is not known).

    ``complete`` is True if the whole file arrived and is shorter than its reader needs (a truncated file), and False
    if the connection was cut, with the network's ``complaint``.
    """

    def __init__(self, url: str, received: int, expected: int | None, *, complete: bool, complaint: str = "") -> None:
        cause = "the file ends" if complete else "the connection was cut"
        of = "" if expected is None else f" of {expected:,}"
        super().__init__(url, f"{cause} after {received:,}{of} bytes" + (f" ({complaint})" if complaint else ""))
        self.received = received
        self.expected = expected
        self.complete = complete


class Body(Protocol):
    """Bytes in order. ``url`` names them in messages."""

    url: str

    async def readinto(self, view: memoryview) -> int:
        """Fill a part of ``view`` (never empty) and return its bytes; 0 at the end. Raises ``DownloadError``."""
        ...

    async def fill(self, block: ByteBuffer, offset: int) -> int:
        """Fill a part of ``block`` from ``offset`` on, as :meth:`readinto` does."""
        piece = bytearray(min(block.nbytes - offset, READ))
        received = await self.readinto(memoryview(piece))
        with memoryview(piece) as view, view[:received] as some:
            block.write(offset, some)
        return received

    async def close(self) -> None:
        """Close the connection or file, also during a read; a second call does nothing."""
        ...


class Stream:
    """Forward reads over a :class:`Body`; use it as ``async with await source.open(file) as stream``.

    ``size`` is the size of the whole file if the source states it, else None; ``position`` is the offset of the next
    byte in the file; ``version`` identifies the file's content. ``hint`` is a size that may be the one of a compressed
    body, ``revision`` the repository's, if a hub states it. A read that fails or is cancelled closes the stream.
    """

    def __init__(self, body: Body, size: int | None, position: int = 0, on_bytes: OnBytes | None = None) -> None:
        self.url = body.url
        self.size = size
        self.hint: int | None = None
        self.revision: str | None = None
        self.version = Version(size)
        self.position = position
        self._body = body
        self._on_bytes = on_bytes
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._closed:
            self._closed = True
            await self._body.close()

    def watch(self, on_bytes: OnBytes | None) -> None:
        """Report every later piece to ``on_bytes``."""
        self._on_bytes = on_bytes

    async def read_some(self, limit: int = READ) -> bytearray:
        """Read 1 to ``limit`` bytes, as they arrive; none at the end of the file. Raises ``ShortReadError``."""
        piece = bytearray(limit)
        received = await self._readinto(memoryview(piece)) if limit else 0
        if limit and not received and self.size is not None and self.position < self.size:
            raise await self._short(self.position, self.size)
        del piece[received:]
        return piece

    async def read_exact(self, count: int) -> bytearray:
        """Read exactly ``count`` bytes. Raises ``ShortReadError`` (a ``DownloadError``) if the file ends before.

        The buffer is allocated at once only if the file is known to be that long: a header with a wrong length does
        not cause an allocation for bytes that never arrive.
        """
        if count < 0:
            raise ValueError(f"cannot read {count} bytes")
        known = self.size is not None and self.position + count <= self.size
        start = self.position
        data = bytearray(count if known else min(count, READ))
        filled = 0
        while filled < count:
            if filled == len(data):
                data.extend(bytes(min(count - filled, READ)))
            with memoryview(data) as view:
                received = await self._readinto(view[filled : filled + READ])
            if not received:
                if self.size is None:
                    raise await self._short(filled, count)
                raise await self._short(self.position, start + count)
            filled += received
        return data

    async def read_into(self, block: ByteBuffer, offset: int = 0) -> None:
        """Read 1 to :data:`READ` bytes into ``block`` from ``offset`` on, as they arrive.

        Raises ``ShortReadError`` if there are none; ``position`` is then the number that arrived.
        """
        if not await self._received(self._body.fill(block, offset)):
            raise await self._short(self.position, self.position + block.nbytes - offset)

    async def skip(self, count: int) -> None:
        """Skip ``count`` bytes."""
        while count:
            piece = await self.read_some(min(count, READ))
            if not piece:
                raise await self._short(self.position, self.position + count)
            count -= len(piece)

    def unread(self, data: bytes) -> None:
        """Take back ``data``, the bytes that were read last: the next read begins with them."""
        if data:
            self._body = _UnreadBody(data, self._body)
            self.position -= len(data)

    async def _readinto(self, view: memoryview) -> int:
        try:
            return await self._received(self._body.readinto(view))
        finally:
            view.release()

    async def _received(self, read: Coroutine[Any, Any, int]) -> int:
        if self._closed:
            read.close()
            raise DownloadError(self.url, "the stream is closed")
        try:
            received = await read
        except DownloadError as error:
            await self.close()
            raise ShortReadError(self.url, self.position, self.size, complete=False, complaint=error.reason) from None
        except BaseException:  # CancelledError too: the download must not continue
            await self.close()
            raise
        self.position += received
        if self.size is not None and self.position > self.size:
            await self.close()
            raise DownloadError(self.url, f"more bytes arrived than the {self.size:,} that were announced")
        if received and self._on_bytes is not None:
            self._on_bytes(self.position, self.size)
        return received

    async def _short(self, received: int, expected: int) -> ShortReadError:
        size = self.hint if self.size is None else self.size
        complete = size is None or self.position >= size
        await self.close()
        return ShortReadError(self.url, received, expected, complete=complete)


class MemoryBody(Body):
    """Bytes in memory."""

    def __init__(self, data: memoryview, url: str, start: int) -> None:
        self.url = url
        self._data = data
        self._position = min(start, len(data))

    async def readinto(self, view: memoryview) -> int:
        """See :class:`Body`."""
        piece = self._data[self._position : self._position + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    async def close(self) -> None:
        """See :class:`Body`."""


class _UnreadBody(Body):
    """Bytes that were taken back, and then a body."""

    def __init__(self, data: bytes, body: Body) -> None:
        self.url = body.url
        self._data = memoryview(data)
        self._body = body

    async def readinto(self, view: memoryview) -> int:
        """See :class:`Body`."""
        if not self._data:
            return await self._body.readinto(view)
        piece = self._data[: len(view)]
        view[: len(piece)] = piece
        self._data = self._data[len(piece) :]
        return len(piece)

    async def fill(self, block: ByteBuffer, offset: int) -> int:
        """See :class:`Body`."""
        return await (super().fill(block, offset) if self._data else self._body.fill(block, offset))

    async def close(self) -> None:
        """See :class:`Body`."""
        await self._body.close()
