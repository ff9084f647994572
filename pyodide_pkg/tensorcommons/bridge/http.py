"""``fetch`` of the browser (and of Node) as a :class:`~tensorcommons.hub.streams.Body`.

The chunks of the response's reader are copied once, straight into the caller's buffer. A JavaScript object lives as
long as Python holds a proxy of it, so ``close`` drops them all.
"""

from __future__ import annotations

from typing import Any

from ..errors import DownloadError


class FetchBody:
    """The body of one response. ``status`` and ``headers`` (lower-case names) are those of the final response."""

    def __init__(self, url: str, response: Any, controller: Any) -> None:
        self.url = url
        self.status = int(response.status)
        names = ("content-length", "content-range", "content-encoding", "etag", "last-modified")
        # JavaScript's null is not Python's None but a value of its own, and false.
        self.headers = {name: str(value) for name in names if (value := response.headers.get(name))}
        self._controller: Any = controller
        self._reader: Any = response.body.getReader() if response.body else None
        self._chunk: Any = None  # the Uint8Array that is being handed out
        self._offset = 0

    async def readinto(self, view: memoryview) -> int:
        """Fill some of ``view``, return how many bytes; 0 at the end. Raises ``DownloadError``."""
        from pyodide.ffi import JsException

        while self._chunk is None:
            if self._reader is None:
                return 0
            try:
                result = await self._reader.read()
            except JsException as error:
                raise DownloadError(self.url, str(error.message)) from None
            if result.done:
                return 0
            if result.value.byteLength:
                self._chunk, self._offset = result.value, 0
        size = int(self._chunk.byteLength)
        count = min(size - self._offset, len(view))
        piece = self._chunk if count == size else self._chunk.subarray(self._offset, self._offset + count)
        piece.assign_to(view[:count])
        self._offset += count
        if self._offset == size:
            self._chunk = None
        return count

    async def close(self) -> None:
        """Abort what is still under way; a second call does nothing."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.abort()  # ends a read that waits; after the last byte it does nothing
        self._chunk = self._reader = None


async def open_fetch(url: str, headers: dict[str, str], method: str = "GET") -> FetchBody:
    """GET or HEAD ``url``; any status comes back as a body. Raises ``DownloadError`` where no response came at all."""
    from js import AbortController, Object, fetch
    from pyodide.ffi import JsException, to_js

    controller = AbortController.new()
    options = to_js({"method": method, "headers": headers}, dict_converter=Object.fromEntries)
    options.signal = controller.signal
    try:
        return FetchBody(url, await fetch(url, options), controller)
    except JsException as error:
        raise DownloadError(
            url, f"no response ({error.message}): no network, a wrong address, or a server without CORS headers"
        ) from None
    except BaseException:
        controller.abort()
        raise
