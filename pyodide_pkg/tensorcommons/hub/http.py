"""Requests over HTTP as streams: whole files, ranges of them, and files that may have changed.

Servers differ. A range may be answered by the whole file, by another range, by several in one, or be refused; a page
does not see all headers of another origin (``Content-Range``, ``Content-Encoding`` and ``ETag`` are hidden unless the
server exposes them). A response is used only if it is certain which bytes of the file it has; otherwise the whole file
is requested, and read from its beginning.
"""

from __future__ import annotations

import re
import sys
from typing import Protocol

from ..errors import DownloadError
from .streams import Body, FileMissingError, OnBytes, Stream, UnreachableError
from .version import Version


class Response(Body, Protocol):
    """A response with its body. ``headers`` have lower-case names; ``shows_all`` is False if some may be hidden."""

    status: int
    headers: dict[str, str]
    shows_all: bool


async def open_http(
    url: str, start: int, stop: int | None, on_bytes: OnBytes | None, granted: dict[str, str], *, store: bool = True
) -> Stream:
    """Open ``url`` from ``start`` to ``stop``; see ``Source.open``. ``granted`` are headers that grant access.

    ``store=False`` passes by the browser's HTTP cache.
    """
    if start or stop is not None:
        last = "" if stop is None else str(stop - 1)
        response = await _request(url, granted | {"Range": f"bytes={start}-{last}"}, store=store)
        stream = await _range_of(url, response, start, stop)
        if stream is not None:
            return await _from(stream, start, on_bytes)
    response = await _request(url, granted, store=store)
    return await _from(await _whole_of(url, response), start, on_bytes)


async def open_changed(url: str, version: Version, granted: dict[str, str], *, store: bool = True) -> Stream | None:
    """Open ``url``, or return None if it is still of ``version``. Raises as ``Source.open`` does.

    A date is compared here: a server would report an older file that was put back as unchanged.
    """
    if version.etag:
        try:
            response = await _request(url, granted | {"If-None-Match": version.etag}, store=store)
        except UnreachableError:
            pass  # another origin may refuse this header: then there is no response at all
        else:
            if response.status == 304:
                await response.close()
                return None
            return await _unless_it_matches(await _whole_of(url, response), version)
    try:
        response = await _request(url, granted, "HEAD", store=store)  # allowed to any origin
    except UnreachableError:
        pass  # some servers do not support it
    else:
        await response.close()
        if response.status == 200 and version.matches(Version.of(response.headers, _length(response))):
            return None
    return await _unless_it_matches(await _whole_of(url, await _request(url, granted, store=store)), version)


async def _unless_it_matches(stream: Stream, version: Version) -> Stream | None:
    if not version.matches(stream.version):
        return stream
    await stream.close()
    return None


async def _request(url: str, headers: dict[str, str], method: str = "GET", *, store: bool) -> Response:
    """Return a response with a status below 500. Raises ``UnreachableError`` for any other, or none."""
    try:
        response = await _send(url, headers, method, store=store)
    except DownloadError as error:  # the transports raise it only if no response came
        raise UnreachableError(error.url, error.reason) from None
    if response.status >= 500:
        await response.close()
        raise UnreachableError(url, f"the server answered with status {response.status}")
    return response


async def _send(url: str, headers: dict[str, str], method: str, *, store: bool) -> Response:
    if sys.platform == "emscripten":
        from ..bridge.http import open_fetch

        return await open_fetch(url, headers, method, store=store)
    from .native_http import open_native

    return await open_native(url, headers, method)


async def _from(stream: Stream, start: int, on_bytes: OnBytes | None) -> Stream:
    await stream.skip(start - stream.position)
    stream.watch(on_bytes)
    return stream


async def _whole_of(url: str, response: Response) -> Stream:
    """Return the stream of a response to a plain GET."""
    length = _length(response)
    if response.status == 200:
        return _stream(response, length, 0)
    place = _place(response) if response.status == 206 else None
    if place is not None and place[0] == 0 and place[1] + 1 == place[2]:
        return _stream(response, place[2], 0)
    await response.close()
    if response.status == 206:
        raise DownloadError(url, "the server sent a part of the file, though all of it was requested (status 206)")
    if response.status in (404, 410):
        raise FileMissingError(url, f"the server has no such file (status {response.status})")
    why = " (pass token= for a private or gated model)" if response.status in (401, 403) else ""
    raise DownloadError(url, f"the server answered with status {response.status}{why}")


async def _range_of(url: str, response: Response, start: int, stop: int | None) -> Stream | None:
    """Return the stream of a response to a range request; None if it is not certain which bytes it has."""
    if response.status != 206:
        if response.status in (412, 416):
            await response.close()
            return None
        return await _whole_of(url, response)  # a server without ranges
    place, length = _place(response), _length(response, ranged=True)
    encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
    several = response.headers.get("content-type", "").lower().startswith("multipart/")
    if not encoded and not several:
        if place is not None and place[0] == start:
            return _stream(response, place[2], start)
        hidden = "content-range" not in response.headers and not response.shows_all
        if hidden and length is not None and (stop is None or length <= stop - start):
            return _stream(response, start + length if stop is None else None, start)
    await response.close()
    return None


def _stream(response: Response, size: int | None, start: int) -> Stream:
    stream = Stream(response, size, start)
    stream.version = Version.of(response.headers, size)
    stream.revision = response.headers.get("x-repo-commit")
    if size is None:
        stream.hint = _number(response.headers.get("content-length"))
    return stream


def _length(response: Response, *, ranged: bool = False) -> int | None:
    """Return the size of the body if it is certain: ``Content-Length`` counts the bytes of an encoded body.

    A browser requests ranges without encoding.
    """
    encoding = response.headers.get("content-encoding", "identity" if response.shows_all or ranged else "")
    return _number(response.headers.get("content-length")) if encoding.lower() == "identity" else None


def _place(response: Response) -> tuple[int, int, int | None] | None:
    """Return first and last byte, and the file's size, as ``Content-Range`` states them."""
    match = re.fullmatch(
        r"\s*bytes\s+(\d+)-(\d+)/(\d+|\*)\s*", response.headers.get("content-range", ""), re.IGNORECASE
    )
    if match is None:
        return None
    first, last, size = int(match[1]), int(match[2]), _number(match[3])
    return (first, last, size) if first <= last and (size is None or last < size) else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else None
