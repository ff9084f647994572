"""Where a model's files come from: a URL, a Hugging Face repository, a folder, or bytes in memory.

``open_source(spec)`` tells them apart in this order:

1. a mapping ``{"config.json": bytes, ...}``: memory;
2. a ``pathlib`` path, or a string that starts with ``/``, ``./``, ``../``, ``~`` or ``file://``: a folder; on a web
   page ``./name`` and ``../name`` are relative to the page (in a worker: to its script), unless Python's file system
   has that folder;
3. a string with ``http://`` or ``https://``: the URL of a folder (a query is kept and sent with every file);
4. a string that names an existing folder: that folder, as in ``transformers``;
5. ``org/name`` or ``org/name@revision``: ``{endpoint}/{org}/{name}/resolve/{revision}/{file}``, where the endpoint is
   the argument, else the environment's ``HF_ENDPOINT``, else the public one, and the revision is ``main``.

Anything else is refused. ``models/name`` without the dot is a repository ``name`` of the organisation ``models``.

File names come out of checkpoints (``model.safetensors.index.json`` lists some), so they are not trusted: a name that
would leave the folder is refused.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from ..bridge.runtime import IN_BROWSER
from ..errors import DownloadError, InvalidWeights, TensorCommonsError, quoted, shown
from .http import open_changed, open_http
from .streams import READ, Body, MemoryBody, OnBytes, ShortReadError, Stream
from .streams import FileMissingError as FileMissingError
from .streams import UnreachableError as UnreachableError
from .version import Version

PUBLIC_ENDPOINT = "https://huggingface.co"
JUST_NOW = 2_000_000_000  # nanoseconds; the coarsest clock of a file system in use (FAT)
LONGEST_NAME = 255  # characters of a file's name: file systems take no longer ones
MB = 1 << 20
LIMIT = 8 * MB  # bytes of a file that is read whole: configurations take some kB, with 20,000 labels 2 MB
LIMITS = {
    "model.safetensors.index.json": 64 * MB,
    "tokenizer.json": 128 * MB,  # 33 MB for 262,144 words
    "tokenizer.model": 32 * MB,
    "spiece.model": 32 * MB,
    "sentencepiece.bpe.model": 32 * MB,
    "vocab.json": 64 * MB,
    "vocab.txt": 64 * MB,
    "merges.txt": 64 * MB,
}
REPOSITORY = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)

Spec = str | os.PathLike[str] | Mapping[str, bytes]


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

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        """``open``, but None where the file is still of this version (a stream has one)."""
        ...

    async def exists(self, file: str) -> bool:
        """Return whether ``open`` would find ``file``. A browser prints a 404 in its console for what is missing."""
        ...

    def files_in(self, folder: str) -> list[str]:
        """The files of a folder below this one, as ``open`` takes them; none where a source cannot list them."""
        ...

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        """All bytes of ``file``. Raises as ``open`` does, ``ShortReadError`` where they end early, and
        ``InvalidWeights`` for more than such a file can reasonably have (LIMITS)."""
        ...

    def sibling(self, name: str) -> Source:
        """Open the source that ``base_model_name_or_path`` in this source's ``config.json`` names.

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
        raise DownloadError(
            quoted(spec), f"not a model source: {type(spec).__name__} is not an address, path or mapping"
        )
    if isinstance(spec, str) and spec.startswith(("./", "../")) and not os.path.isdir(spec):  # noqa: PTH112 - see below
        beside = _beside_page(spec)
        if beside is not None:
            return _UrlSource(beside, endpoint, token)
    if not isinstance(spec, str) or spec.startswith(("/", "./", "../", "~")):
        return _FolderSource(Path(spec))
    if spec.startswith("file://"):
        return _FolderSource(Path(unquote(_split(spec).path)))
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


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise DownloadError(address, f"not an address: {error}") from None


def _beside_page(spec: str) -> str | None:
    if not IN_BROWSER:
        return None
    from ..bridge.http import url_beside_page

    return url_beside_page(spec)


class _Files:
    """Shared by all kinds of sources: everything but ``open``, ``key`` and ``sibling``."""

    name: str
    is_local = False

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        raise NotImplementedError

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        return await self.open(file)

    async def exists(self, file: str) -> bool:
        try:
            stream = await self.open(file)
        except FileMissingError:
            return False
        await stream.close()
        return True

    def files_in(self, folder: str) -> list[str]:
        return []

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        return await read_whole(self, file, await self.open(file, on_bytes=on_bytes))


async def read_whole(source: Source | _Files, file: str, stream: Stream) -> bytes:
    """All bytes of ``file``, whose ``stream`` is open and closed afterwards. Raises as ``Source.read``."""
    most = LIMITS.get(file.rpartition("/")[2], LIMIT)
    data = bytearray()
    async with stream:
        while piece := await stream.read_some(min(READ, most + 1 - len(data))):
            data += piece
            if len(data) > most or (stream.size or 0) > most:
                raise InvalidWeights(f"{source.name}/{file}", f"over the limit of {most:,} bytes for such a file")
    if stream.hint is not None and len(data) < stream.hint:
        # The server announced more. Either that counts a compressed body, or the browser does not tell of a cut.
        async with await source.open(file, 0, len(data) + 1) as again:
            while again.position <= len(data) and await again.read_some(len(data) + 1 - again.position):
                pass
        if again.position != len(data):
            raise ShortReadError(stream.url, len(data), stream.hint, complete=False)
    return bytes(data)


class _HttpFiles(_Files):
    """Files that have a URL. ``_token`` is who asks for them."""

    _token: str | None
    _login = ""  # what an address gave before its host, for the server that has it
    _revision: str | None = None  # of the repository, as the answers so far state it

    def key(self, file: str) -> str:
        raise NotImplementedError

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        stream = await open_http(self.key(file), start, stop, on_bytes, self._granted())
        return stream if start or stop is not None else await self._of_one_revision(stream)

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        stream = await open_changed(self.key(file), version, self._granted())
        return None if stream is None else await self._of_one_revision(stream)

    async def _of_one_revision(self, stream: Stream) -> Stream:
        """``stream``, if its repository has not moved on since another file of it was opened."""
        if stream.revision and self._revision not in (None, stream.revision):
            await stream.close()
            raise InvalidWeights(self.name, "the repository got another revision while it was read: load it again")
        self._revision = stream.revision or self._revision
        return stream

    def _granted(self) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return {"Authorization": f"Basic {b64encode(self._login.encode()).decode()}"} if self._login else {}


class _UrlSource(_HttpFiles):
    """Files below the URL of a folder."""

    def __init__(self, url: str, endpoint: str | None = None, token: str | None = None) -> None:
        parts = _split(url)
        login, _, host = parts.netloc.rpartition("@")
        self._parts = parts._replace(netloc=host)
        self._login = unquote(login)
        self._endpoint = endpoint
        self._token = token
        if not host:
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
        beside = _UrlSource(address, self._endpoint, self._token)
        beside._login = self._login
        return beside

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

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        try:
            return await super().open(file, start, stop, on_bytes)
        except UnreachableError:
            raise
        except DownloadError as error:
            if file != "config.json":
                raise
            hint = f'a folder, also one beside the page, is written "./{self._organisation}/{self.name}"'
            raise type(error)(error.url, f"{error.reason}; {hint}") from None

    def sibling(self, name: str) -> Source:
        if _is_repository(name):
            return open_source(name, self._endpoint, self._token)
        _check_sibling(self.name, name)
        return _HubSource(f"{self._organisation}/{name}", endpoint=self._endpoint, token=self._token)


class _FolderSource(_Files):
    """A local folder, or one of Pyodide's file system."""

    is_local = True

    def __init__(self, path: Path) -> None:
        try:
            self._path = path.expanduser().absolute()
        except RuntimeError as error:  # ~name of a user that does not exist
            raise DownloadError(str(path), str(error)) from None
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
        about = os.fstat(handle.fileno())
        size = handle.seek(0, os.SEEK_END)
        handle.seek(min(start, size))
        stream = Stream(_FileBody(handle, str(path), stop), size, min(start, size), on_bytes)
        stream.version = _local_version(about)
        return stream

    def files_in(self, folder: str) -> list[str]:
        place = self._path / folder
        return sorted(f"{folder}/{path.name}" for path in place.iterdir()) if place.is_dir() else []

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
                raise TensorCommonsError(f"files are {{name: bytes}}, not {quoted(name)}: {type(data).__name__}")
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
        stream = Stream(MemoryBody(view[:stop], self.key(file), start), len(view), min(start, len(view)), on_bytes)
        stream.version = Version(len(view), '"memory"')
        return stream

    def files_in(self, folder: str) -> list[str]:
        return sorted(name for name in self._files if name.rpartition("/")[0] == folder)

    def sibling(self, name: str) -> Source:
        if _is_repository(name):
            return open_source(name)
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
        await asyncio.sleep(0)  # a page that reads its own file system still gets its turn, and a cancel is noticed
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


def _local_version(about: os.stat_result) -> Version:
    """A file's version. What was written just now could be written again without another time."""
    written = max(about.st_mtime_ns, about.st_ctime_ns)
    if time.time_ns() - written < JUST_NOW:
        return Version(about.st_size)
    return Version(about.st_size, f'"{about.st_ino}-{about.st_mtime_ns}-{about.st_ctime_ns}-{about.st_size}"')


def _is_repository(name: str) -> bool:
    return REPOSITORY.fullmatch(name) is not None


def _check_sibling(source: str, name: str) -> None:
    if not name or name in (".", "..") or len(name) > LONGEST_NAME or re.search(r"[/\\\0\ud800-\udfff]", name):
        raise InvalidWeights(
            f"{source}/config.json", f"base model {quoted(name)} is neither org/name nor the name of a folder"
        )


def _check_name(file: str) -> None:
    wrong = not file or len(file) > LONGEST_NAME or re.search(r"[\\\0:\ud800-\udfff]", file)
    if wrong or any(part in ("", ".", "..") for part in file.split("/")):
        raise InvalidWeights(shown(file), "not the name of a file inside the model's folder")
