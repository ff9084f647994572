"""HTTP under plain CPython, where there is no ``fetch``: ``http.client`` in a thread, for tests and tools.

Proxies are not used. Closing shuts the socket down, so a thread that waits for bytes returns at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import zlib
from urllib.parse import SplitResult, urljoin, urlsplit

from ..errors import DownloadError, quoted, shown
from .streams import Body

TIMEOUT = 30.0  # seconds without a byte
REDIRECTS = 10
DECODED = ("gzip", "x-gzip", "deflate")
ZLIB_OR_GZIP = 47  # zlib's "either header"


class NativeBody(Body):
    """The body of one response. ``status`` and ``headers`` (lower-case names) are those of the final response.

    A body that is compressed, although no compression was accepted, is decoded as by a browser.
    """

    shows_all = True

    def __init__(self, url: str, response: http.client.HTTPResponse, sock: socket.socket) -> None:
        self.url = url
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self._response = response
        self._socket = sock
        self._closed = False
        self._encoding = self.headers.get("content-encoding", "identity").strip().lower()
        self._decoder = zlib.decompressobj(wbits=ZLIB_OR_GZIP) if self._encoding in DECODED else None

    async def readinto(self, view: memoryview) -> int:
        """Fill some of ``view``, return how many bytes; 0 at the end. Raises ``DownloadError``."""
        if self._decoder is None:
            if self._encoding not in ("identity", ""):
                raise DownloadError(self.url, f"unaccepted compression {quoted(self._encoding)}")
            piece = await self._some(len(view))
        else:
            piece = await self._decoded(self._decoder, len(view))
        view[: len(piece)] = piece
        return len(piece)

    async def _decoded(self, decoder: zlib._Decompress, most: int) -> bytes:
        """Return the next bytes of a compressed body, at most ``most``."""
        while not decoder.eof:
            raw = decoder.unconsumed_tail or await self._some(1 << 16)
            try:
                piece = decoder.decompress(raw, most)
            except zlib.error as error:
                raise DownloadError(self.url, f"its compressed bytes cannot be decoded: {error}") from None
            if piece:
                return piece
            if not raw:
                raise DownloadError(self.url, "its compressed bytes are truncated")
        return b""

    async def _some(self, most: int) -> bytes:
        try:
            # Returns what has arrived, while readinto would wait for all of it. A thread may outlive a cancelled read,
            # so it does not get the caller's memory.
            return await asyncio.to_thread(self._response.read1, most)
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            raise DownloadError(self.url, _describe(error)) from None

    def discard(self) -> None:
        """Close without waiting; the body must not have been read from."""
        self._closed = True
        _close(self._response, self._socket)

    async def close(self) -> None:
        """Close the connection, also during a read; a second call does nothing."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            closing = asyncio.get_running_loop().run_in_executor(None, _close, self._response, self._socket)
            await asyncio.shield(closing)  # a cancellation now must not remove it from the queue of the threads


async def open_native(url: str, headers: dict[str, str], method: str = "GET") -> NativeBody:
    """GET or HEAD ``url``, following redirects; any other status is returned as a body. Raises ``DownloadError``."""
    opening = asyncio.ensure_future(asyncio.to_thread(_open, url, headers, method))
    try:
        await asyncio.wait([opening])
    except asyncio.CancelledError:
        opening.add_done_callback(_discard)  # the thread cannot be stopped: what it still opens is closed
        raise
    return opening.result()


def _open(url: str, headers: dict[str, str], method: str) -> NativeBody:
    target = url
    for _ in range(REDIRECTS):
        parts = urlsplit(target)
        secure = parts.scheme == "https"
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise DownloadError(url, f"not an HTTP address: {shown(target)}")
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        try:
            connection = kind(parts.hostname, parts.port, timeout=TIMEOUT)
            connection.connect()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(url, f"no connection to {_host(parts)}: {_describe(error)}") from None
        sock = connection.sock
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, path, headers={"Accept-Encoding": "identity", "Connection": "close", **headers})
            response = connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            sock.close()
            raise DownloadError(url, f"no response from {_host(parts)}: {_describe(error)}") from None
        location = response.getheader("Location")
        if response.status not in (301, 302, 303, 307, 308) or location is None:
            return NativeBody(url, response, sock)
        _close(response, sock)
        try:
            target = urljoin(target, location)
            moved = urlsplit(target)
        except ValueError:
            raise DownloadError(url, f"redirected to {quoted(location)}, which is not an address") from None
        if moved[:2] != parts[:2]:  # as browsers do: the token is not for another origin
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
    raise DownloadError(url, f"more than {REDIRECTS} redirects")


def _discard(opening: asyncio.Future[NativeBody]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().discard()


def _close(response: http.client.HTTPResponse, sock: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        response.close()
    sock.close()


def _host(parts: SplitResult) -> str:
    """Host and port, without ``user:password@``, for a message."""
    return shown(parts.netloc.rpartition("@")[2])


def _describe(error: Exception) -> str:
    return shown(str(error)) or type(error).__name__  # may quote what the server sent
