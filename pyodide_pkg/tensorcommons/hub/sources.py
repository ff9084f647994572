"""Where a model's files come from: a URL, a Hugging Face repository, a folder, or bytes in memory.

``open_source(spec)`` tells them apart in this order:

1. a mapping ``{"config.json": bytes, ...}``: memory;
2. a ``pathlib`` path, or a string that starts with ``/``, ``./``, ``../``, ``~`` or ``file://``: a folder;
3. a string with ``http://`` or ``https://``: the URL of a folder (a query is kept and sent with every file);
4. a string that names an existing folder: that folder, as in ``transformers``;
5. ``org/name`` or ``org/name@revision``: ``{endpoint}/{org}/{name}/resolve/{revision}/{file}``, where the endpoint is
   the argument, else the environment's ``HF_ENDPOINT``, else the public one, and the revision is ``main``.

Anything else is refused. In a browser a relative URL has no meaning of its own: the caller resolves it against the
worker's location first.

File names come out of checkpoints (``model.safetensors.index.json`` lists some), so they are not trusted: a name that
would leave the folder is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ..errors import DownloadError, InvalidWeights, TensorCommonsError
from .streams import Body, MemoryBody, OnBytes, Stream

PUBLIC_ENDPOINT = "https://huggingface.co"
REPOSITORY = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)

Spec = str | os.PathLike[str] | Mapping[str, bytes]


class FileMissingError(DownloadError):
    """The source answers, and has no such file. ``status`` is 404, whatever the kind of source."""

    status = 404


class UnreachableError(DownloadError):
    """No answer at all, or one that says that the server itself is in trouble (a status from 500 on)."""


class Source(Protocol):
    """A folder of files. ``name`` is its last part, for messages; ``is_local`` that reading again needs no network."""

    name: str
    is_local: bool

    def key(self, file: str) -> str:
        """The address of ``file``, the same whenever the same source is opened again."""
        ...

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """The bytes of ``file`` from offset ``start`` to ``stop`` (else its end).

        Raises ``FileMissingError``, ``DownloadError``, or ``InvalidWeights`` for a name outside the folder.
        """
        ...

    async def open_if_changed(self, file: str, etag: str | None, modified: str | None) -> Stream | None:
        """``open``, but None where the file is still the one that came with these validators (a stream has them)."""
        ...

    async def exists(self, file: str) -> bool:
        """Whether ``open`` would find ``file``. A browser prints a 404 in its console for what is missing."""
        ...

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        """All bytes of ``file``. Raises as ``open`` does, and ``ShortReadError`` where they end early."""
        ...

    def sibling(self, name: str) -> Source:
        """What ``base_model_name_or_path`` in a ``config.json`` of this source means.

        ``org/name`` is a repository wherever it is written; a bare ``name`` is the folder beside this one, or the
        repository of the same organisation. Raises ``InvalidWeights`` where that has no meaning.
        """
        ...


def open_source(spec: Spec, endpoint: str | None = None, token: str | None = None) -> Source:
    """The source that ``spec`` names; nothing is fetched yet. Raises ``DownloadError`` where it names none.

    ``token`` goes along with every request to the repository's endpoint, or to the URL's own origin, and nowhere else:
    no message, address or record holds it. Raises ``TensorCommonsError`` for what cannot be one.
    """
    if token is not None and not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
        raise TensorCommonsError("a token is one word of printable ASCII characters")  # it is not shown
    if isinstance(spec, Mapping):
        return _MemorySource(spec)
    if not isinstance(spec, (str, os.PathLike)):
        raise DownloadError(repr(spec), f"not a model source: {type(spec).__name__} is no address, path or mapping")
    if not isinstance(spec, str) or spec.startswith(("/", "./", "../", "~")):
        return _FolderSource(Path(spec))
    if spec.startswith("file://"):
        return _FolderSource(Path(unquote(urlsplit(spec).path)))
    if spec.startswith(("http://", "https://")):
        return _UrlSource(spec, endpoint, token)
    if os.path.isdir(spec):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        return _FolderSource(Path(spec))
    match = REPOSITORY.fullmatch(spec)
    if match is None:
        raise DownloadError(
            spec,
            'not a model source: use a URL of a folder, "org/name[@revision]", a local folder or {file name: bytes}',
        )
    return _HubSource(match["repo"], match["revision"] or "main", endpoint, token)


class _Files:
    """What all kinds share: everything but ``open``, ``key`` and ``sibling``."""

    name: str
    is_local = False

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        raise NotImplementedError

    async def open_if_changed(self, file: str, etag: str | None, modified: str | None) -> Stream | None:
        return await self.open(file)

    async def exists(self, file: str) -> bool:
        try:
            stream = await self.open(file)
        except FileMissingError:
            return False
        await stream.close()
        return True

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        async with await self.open(file, on_bytes=on_bytes) as stream:
            data = bytearray()
            while piece := await stream.read_some():
                data += piece
            return bytes(data)


class _HttpFiles(_Files):
    """Files that have a URL. ``_token`` is who asks for them."""

    _token: str | None

    def key(self, file: str) -> str:
        raise NotImplementedError

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        return await _open_http(self.key(file), start, stop, on_bytes, self._granted())

    async def open_if_changed(self, file: str, etag: str | None, modified: str | None) -> Stream | None:
        return await _open_changed(self.key(file), etag, modified, self._granted())

    def _granted(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


class _UrlSource(_HttpFiles):
    """Files below the URL of a folder."""

    def __init__(self, url: str, endpoint: str | None = None, token: str | None = None) -> None:
        self._parts = urlsplit(url)
        self._endpoint = endpoint
        self._token = token
        if not self._parts.netloc:
            raise DownloadError(url, "the address has no host")
        self._path = self._parts.path.rstrip("/")
        self.name = unquote(self._path.rpartition("/")[2]) or self._parts.netloc

    def key(self, file: str) -> str:
        _check_name(file)
        return self._address(f"{self._path}/{quote(file)}")

    def sibling(self, name: str) -> Source:
        if _is_repository(name):
            return open_source(name, self._endpoint)
        _check_sibling(self.name, name)
        address = self._address(f"{self._path.rpartition('/')[0]}/{quote(name)}")
        return _UrlSource(address, self._endpoint, self._token)

    def _address(self, path: str) -> str:
        return urlunsplit((self._parts.scheme, self._parts.netloc, path, self._parts.query, ""))


class _HubSource(_HttpFiles):
    """A repository in the layout of the Hugging Face hub."""

    def __init__(
        self, repo: str, revision: str = "main", endpoint: str | None = None, token: str | None = None
    ) -> None:
        self._organisation, _, self.name = repo.partition("/")
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/")
        self._token = token
        self._base = f"{self._endpoint}/{repo}/resolve/{quote(revision, safe='')}"

    def key(self, file: str) -> str:
        _check_name(file)
        return f"{self._base}/{quote(file)}"

    def sibling(self, name: str) -> Source:
        if _is_repository(name):
            return open_source(name, self._endpoint, self._token)
        _check_sibling(self.name, name)
        return _HubSource(f"{self._organisation}/{name}", endpoint=self._endpoint, token=self._token)


class _FolderSource(_Files):
    """A local folder, or one of Pyodide's file system."""

    is_local = True

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()
        self.name = self._path.name

    def key(self, file: str) -> str:
        _check_name(file)
        return (self._path / file).as_uri()

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        _check_name(file)
        path = self._path / file
        try:
            handle = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise FileMissingError(str(path), "no such file" if self._path.is_dir() else "no such folder") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL in the folder's name
            raise DownloadError(str(path), str(error)) from None
        size = handle.seek(0, os.SEEK_END)
        handle.seek(min(start, size))
        return Stream(_FileBody(handle, str(path), stop), size, min(start, size), on_bytes)

    def sibling(self, name: str) -> Source:
        beside = self._path.parent / name
        if _is_repository(name) and not beside.is_dir():
            return open_source(name)
        _check_sibling(self.name, name)
        return _FolderSource(beside)


class _MemorySource(_Files):
    """``{file name: bytes}``. Two of them never share a key: nothing tells whether they hold the same."""

    _count = itertools.count(1)

    is_local = True

    def __init__(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            if not (isinstance(name, str) and isinstance(data, (bytes, bytearray, memoryview))):
                raise TensorCommonsError(f"files are {{name: bytes}}, not {name!r:.40}: {type(data).__name__}")
        self._files = dict(files)
        self.name = f"memory-{next(self._count)}"

    def key(self, file: str) -> str:
        return f"memory:{self.name}/{file}"

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        if file not in self._files:
            raise FileMissingError(
                self.key(file), f"not among the files given: {', '.join(sorted(self._files)) or 'none'}"
            )
        view = memoryview(self._files[file]).cast("B")
        return Stream(MemoryBody(view[:stop], self.key(file), start), len(view), min(start, len(view)), on_bytes)

    def sibling(self, name: str) -> Source:
        if _is_repository(name):
            return open_source(name)
        raise InvalidWeights(
            "config.json",
            f"the base model {name!r} cannot be found beside files in memory: load it from a URL or folder",
        )


class _FileBody(Body):
    def __init__(self, handle: BinaryIO, url: str, stop: int | None) -> None:
        self.url = url
        self._handle = handle
        self._stop = stop

    async def readinto(self, view: memoryview) -> int:
        await asyncio.sleep(0)  # a page that reads its own file system still gets its turn, and a cancel is noticed
        limit = len(view) if self._stop is None else max(0, min(len(view), self._stop - self._handle.tell()))
        try:
            piece = self._handle.read(limit)
        except OSError as error:
            raise DownloadError(self.url, str(error)) from None
        view[: len(piece)] = piece
        return len(piece)

    async def close(self) -> None:
        self._handle.close()


class _Response(Body, Protocol):
    status: int
    headers: dict[str, str]


async def _request(url: str, headers: dict[str, str], method: str = "GET") -> _Response:
    """Any answer below 500. Raises ``UnreachableError``."""
    try:
        response = await _send(url, headers, method)
    except DownloadError as error:  # the transports raise it only where no answer came
        raise UnreachableError(error.url, error.reason) from None
    if response.status >= 500:
        await response.close()
        raise UnreachableError(url, f"the server answered with status {response.status}")
    return response


async def _send(url: str, headers: dict[str, str], method: str) -> _Response:
    if sys.platform == "emscripten":
        from ..bridge.http import open_fetch

        return await open_fetch(url, headers, method)
    from .native_http import open_native

    return await open_native(url, headers, method)


async def _open_http(
    url: str, start: int, stop: int | None, on_bytes: OnBytes | None, granted: dict[str, str]
) -> Stream:
    ranged = start > 0 or stop is not None
    last = "" if stop is None else str(stop - 1)
    response = await _request(url, granted | ({"Range": f"bytes={start}-{last}"} if ranged else {}))
    return await _stream_of(url, response, start, stop, on_bytes)


async def _open_changed(url: str, etag: str | None, modified: str | None, granted: dict[str, str]) -> Stream | None:
    condition = {"If-None-Match": etag} if etag else {"If-Modified-Since": modified} if modified else {}
    try:
        response = await _request(url, granted | condition)
    except UnreachableError:
        # Another origin may refuse these headers, which is told by no answer at all: HEAD needs no such permission.
        response = await _request(url, granted, "HEAD")
        await response.close()
        mine, its = (etag, "etag") if etag else (modified, "last-modified")
        if response.status == 200 and response.headers.get(its) == mine:
            return None
        response = await _request(url, granted)
    if response.status == 304 and condition:
        await response.close()
        return None
    return await _stream_of(url, response, 0, None, None)


async def _stream_of(url: str, response: _Response, start: int, stop: int | None, on_bytes: OnBytes | None) -> Stream:
    ranged = start > 0 or stop is not None
    length = None
    if response.headers.get("content-encoding", "identity").lower() == "identity":  # else it counts compressed bytes
        length = _number(response.headers.get("content-length"))
    if response.status == 200:
        stream = _validated(Stream(response, length), response)
        await stream.skip(start)  # a server without Range support sends the file from its beginning
        stream.watch(on_bytes)
        return stream
    if response.status == 206 and ranged:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
        if match is None:  # a cross-origin page does not see Content-Range; the length tells as much
            size = start + length if length is not None and stop is None else None
            return _validated(Stream(response, size, start, on_bytes), response)
        if int(match[1]) == start:
            return _validated(Stream(response, _number(match[2]), start, on_bytes), response)
        await response.close()
        raise DownloadError(url, f"asked for the bytes from {start:,} on, the server sent {match[0]!r}")
    await response.close()
    if response.status in (404, 410):
        raise FileMissingError(url, f"the server has no such file (status {response.status})")
    if response.status == 416 and ranged:
        raise DownloadError(url, f"the file ends before byte {start:,} (status 416)")
    why = " (a private or gated model is opened with a token)" if response.status in (401, 403) else ""
    raise DownloadError(url, f"the server answered with status {response.status}{why}")


def _validated(stream: Stream, response: _Response) -> Stream:
    stream.etag, stream.modified = response.headers.get("etag"), response.headers.get("last-modified")
    return stream


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _is_repository(name: str) -> bool:
    return REPOSITORY.fullmatch(name) is not None


def _check_sibling(source: str, name: str) -> None:
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise InvalidWeights(
            f"{source}/config.json", f"base model {name!r} is neither org/name nor the name of a folder"
        )


def _check_name(file: str) -> None:
    if not file or re.search(r"[\\\0:]", file) or any(part in ("", ".", "..") for part in file.split("/")):
        raise InvalidWeights(file, "not the name of a file inside the model's folder")
