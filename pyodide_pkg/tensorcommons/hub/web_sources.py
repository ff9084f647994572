"""Sources of files that have a URL: the folder of a web server, and a repository of a Hugging Face hub."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from ..errors import DownloadError, InvalidWeights, shown
from .http import open_changed, open_http
from .source import Source, check_name, check_sibling, is_gguf_file
from .streams import OnBytes, Stream, UnreachableError
from .version import Version

PUBLIC_ENDPOINT = "https://huggingface.co"
REPOSITORY = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)


def split_address(address: str) -> SplitResult:
    """Split a URL into its parts. Raises ``DownloadError`` where it is malformed."""
    try:
        return urlsplit(address)
    except ValueError as error:
        raise DownloadError(address, f"not an address: {error}") from None


def repository(name: str, endpoint: str | None = None, token: str | None = None) -> HubSource | None:
    """Return the repository ``org/name`` or ``org/name@revision``; None if ``name`` is not of that form."""
    match = REPOSITORY.fullmatch(name)
    return match and HubSource(match["repo"], match["revision"] or "main", endpoint, token)


class _WebSource(Source):
    """Files that have a URL. ``_token`` grants access to them."""

    _token: str | None
    _login = ""  # user:password of the address, sent to its server
    _revision: str | None = None  # of the repository, as the responses so far state it

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        stream = await open_http(self.key(file), start, stop, on_bytes, self._granted(), store=not self.is_kept)
        return stream if start or stop is not None else await self._of_one_revision(stream)

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        stream = await open_changed(self.key(file), version, self._granted(), store=not self.is_kept)
        return None if stream is None else await self._of_one_revision(stream)

    async def _of_one_revision(self, stream: Stream) -> Stream:
        """Return ``stream`` if its repository still has the revision of the files opened before."""
        if stream.revision and self._revision not in (None, stream.revision):
            await stream.close()
            raise InvalidWeights(self.name, "the repository got another revision while it was read: load it again")
        self._revision = stream.revision or self._revision
        return stream

    def _granted(self) -> dict[str, str]:
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return {"Authorization": f"Basic {b64encode(self._login.encode()).decode()}"} if self._login else {}


class UrlSource(_WebSource):
    """Files below the URL of a folder."""

    def __init__(self, url: str, endpoint: str | None = None, token: str | None = None) -> None:
        parts = split_address(url)
        login, _, host = parts.netloc.rpartition("@")
        if not host:
            raise DownloadError(url, "the address has no host")
        self._parts = parts._replace(netloc=host, path=parts.path.rstrip("/"), fragment="")
        self._login = unquote(login)
        self._endpoint = endpoint
        self._token = token
        self.name = unquote(self._parts.path.rpartition("/")[2]) or host

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        check_name(file)
        return urlunsplit(self._parts._replace(path=f"{self._parts.path}/{quote(file)}"))

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        if found := repository(name, self._endpoint):
            return found
        check_sibling(self.name, name)
        path = f"{self._parts.path.rpartition('/')[0]}/{quote(name)}"
        beside = UrlSource(urlunsplit(self._parts._replace(path=path)), self._endpoint, self._token)
        beside._login = self._login
        return beside


class HubSource(_WebSource):
    """A repository in the layout of the Hugging Face hub."""

    def __init__(
        self, repo: str, revision: str = "main", endpoint: str | None = None, token: str | None = None
    ) -> None:
        self._organisation, _, self.name = repo.partition("/")
        self._endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or PUBLIC_ENDPOINT).rstrip("/")
        self._token = token
        self._base = f"{self._endpoint}/{repo}/resolve/{quote(revision, safe='')}"

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        check_name(file)
        return f"{self._base}/{quote(file)}"

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """See :class:`Source`."""
        try:
            return await super().open(file, start, stop, on_bytes)
        except UnreachableError:
            raise
        except DownloadError as error:
            if file != "config.json" and not is_gguf_file(file):
                raise
            what, end = ("a file", f"/{shown(file)}") if is_gguf_file(file) else ("a folder", "")
            hint = f'write {what}, also one beside the page, as "./{self._organisation}/{self.name}{end}"'
            raise type(error)(error.url, f"{error.reason}; {hint}") from None

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        if found := repository(name, self._endpoint, self._token):
            return found
        check_sibling(self.name, name)
        return HubSource(f"{self._organisation}/{name}", endpoint=self._endpoint, token=self._token)
