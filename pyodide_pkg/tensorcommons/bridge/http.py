"""``fetch`` of the browser (and of Node) as a :class:`~tensorcommons.hub.streams.Body`.

The chunks of the response's reader are copied once, into the caller's buffer or block. A JavaScript object lives as
long as Python has a proxy of it, so ``close`` drops them all.
"""

from __future__ import annotations

from typing import Any

from ..errors import DownloadError
from .byte_buffer import ByteBuffer
from .loader import load_js_module
from .runtime import IN_BROWSER

HEADERS = (
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "x-repo-commit",
)


def url_beside_page(path: str) -> str | None:
    """Resolve ``path`` against the page, or in a worker against its script; None where neither has a URL (Node)."""
    import js
    from pyodide.ffi import JsException

    document, location = getattr(js, "document", None), getattr(js, "location", None)
    base = document.baseURI if document else location.href if location else ""
    try:
        url = str(js.URL.new(path, base).href)
    except JsException:  # a worker made of a blob
        return None
    return url if url.startswith(("http://", "https://")) else None


class FetchBody:
    """The body of one response. ``status`` and ``headers`` (lower-case names) are those of the final response.

    ``shows_all`` is False for another origin's, of which a page sees only the headers that the server exposes.
    """

    def __init__(self, url: str, response: Any, controller: Any, helper: Any) -> None:
        self.url = url
        self.status = int(response.status)
        self.shows_all = str(response.type) != "cors"
        # JavaScript's null is a value of its own, not None, and false.
        self.headers = {name: str(value) for name in HEADERS if (value := response.headers.get(name))}
        self._controller: Any = controller
        self._helper = helper
        self._body: Any = helper.open(response)

    async def readinto(self, view: memoryview) -> int:
        """See :class:`~tensorcommons.hub.streams.Body`."""
        some = await self._answer(self._helper.next(self._body, len(view)))
        count = int(some.length)
        if count:
            some.assign_to(view[:count])
        return count

    async def fill(self, block: ByteBuffer, offset: int) -> int:
        """See :class:`~tensorcommons.hub.streams.Body`. No byte passes through Python's memory."""
        return int(await self._answer(self._helper.fill(self._body, block.raw, offset)))

    async def _answer(self, promise: Any) -> Any:
        from pyodide.ffi import JsException

        try:
            return await promise
        except JsException as error:
            raise DownloadError(self.url, str(error.message)) from None

    async def close(self) -> None:
        """Abort the transfer; a second call does nothing."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.abort()  # ends a pending read; after the last byte it does nothing
        self._body = None


def is_blob(value: object) -> bool:
    """Return whether ``value`` is a Blob or File of JavaScript."""
    return IN_BROWSER and hasattr(value, "js_id") and hasattr(value, "arrayBuffer") and hasattr(value, "slice")


async def open_blob(url: str, blob: Any, start: int, stop: int) -> FetchBody:
    """Open a part of a Blob, which may be a file on the disk, as a body. ``url`` names it in messages."""
    from js import AbortController, Response

    helper = await load_js_module("http", "http.js")
    return FetchBody(url, Response.new(blob.slice(start, stop)), AbortController.new(), helper)


async def open_fetch(url: str, headers: dict[str, str], method: str = "GET", *, store: bool = True) -> FetchBody:
    """GET or HEAD ``url``; any status is returned as a body. Raises ``DownloadError`` if there was no response.

    ``store=False`` passes by the browser's HTTP cache: writing 91 MB to it takes Chromium as long as receiving them.
    """
    from js import AbortController, Object, fetch
    from pyodide.ffi import JsException, to_js

    helper = await load_js_module("http", "http.js")
    controller = AbortController.new()
    options = to_js({"method": method, "headers": headers}, dict_converter=Object.fromEntries)
    if "Range" in headers or not store:
        options.cache = "no-store"  # Chromium cuts ranges out of compressed bodies in its cache
    options.signal = controller.signal
    try:
        return FetchBody(url, await fetch(url, options), controller, helper)
    except JsException as error:
        raise DownloadError(
            url, f"no response ({error.message}): no network, a wrong address, or a server without CORS headers"
        ) from None
    except BaseException:
        controller.abort()
        raise
