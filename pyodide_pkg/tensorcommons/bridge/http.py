"""``fetch`` of the browser (and of Node) as a :class:`~tensorcommons.hub.streams.Body`.

The chunks of the response's reader are copied once, straight into the caller's buffer; every JavaScript proxy made here
is destroyed here.
"""

from __future__ import annotations

from typing import Any

from tensorcommons.errors import DownloadError


class FetchBody:
    """The body of one response. ``status`` and ``headers`` (lower-case names) are those of the final response."""

    def __init__(self, url: str, response: Any, controller: Any) -> None:
        self.url = url
        self.status = int(response.status)
        self.headers = {
            name: value
            for name in ("content-length", "content-range", "content-encoding")
            if (value := response.headers.get(name)) is not None
        }
        self._controller: Any = controller
        self._reader: Any = response.body.getReader() if response.body is not None else None
        self._chunk: Any = None  # the Uint8Array that is being handed out
        self._offset = 0
        response.destroy()

    async def readinto(self, view: memoryview) -> int:
        """Fill some of ``view``, return how many bytes; 0 at the end. Raises ``DownloadError``."""
        from pyodide.ffi import JsException

        while self._chunk is None:
            if self._reader is None:
                return 0
            try:
                result = await self._reader.read()
            except JsException as error:
                raise DownloadError(self.url, f"the connection was cut: {error.message}") from None
            try:
                if result.done:
                    return 0
                if result.value.byteLength:
                    self._chunk, self._offset = result.value, 0
            finally:
                result.destroy()
        size = int(self._chunk.byteLength)
        count = min(size - self._offset, len(view))
        whole = count == size
        piece = self._chunk if whole else self._chunk.subarray(self._offset, self._offset + count)
        piece.assign_to(view[:count])
        if not whole:
            piece.destroy()
        self._offset += count
        if self._offset == size:
            self._chunk.destroy()
            self._chunk = None
        return count

    async def close(self) -> None:
        """Abort what is still under way; a second call does nothing."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.abort()  # ends a read that waits; after the last byte it does nothing
            controller.destroy()
        for proxy in (self._chunk, self._reader):
            if proxy is not None:
                proxy.destroy()
        self._chunk = self._reader = None


async def open_fetch(url: str, headers: dict[str, str]) -> FetchBody:
    """GET ``url``; any status comes back as a body. Raises ``DownloadError`` where no response came at all."""
    from js import AbortController, Object, fetch
    from pyodide.ffi import JsException, to_js

    controller = AbortController.new()
    options = to_js({"headers": headers}, dict_converter=Object.fromEntries)
    options.signal = controller.signal
    try:
        return FetchBody(url, await fetch(url, options), controller)
    except JsException as error:
        controller.destroy()
        raise DownloadError(
            url, f"no response ({error.message}): no network, a wrong address, or a server without CORS headers"
        ) from None
    except BaseException:
        controller.abort()
        controller.destroy()
        raise
    finally:
        options.destroy()
