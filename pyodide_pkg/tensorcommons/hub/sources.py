"""Sources of a model's files: a URL, a Hugging Face repository, a folder, or bytes in memory.

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

Each may name one GGUF file instead of a folder: a mapping with that file alone, its bytes, its path, its URL, or
``org/name[@revision]/file.gguf``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlunsplit

from ..bridge.runtime import IN_BROWSER
from ..errors import DownloadError, TensorCommonsError, quoted
from .cache import Cache
from .cached import CachedSource
from .gguf_source import GgufSource, is_gguf
from .local_sources import FolderSource, MemorySource
from .source import Source, is_gguf_file
from .web_sources import UrlSource, repository, split_address

Spec: TypeAlias = str | os.PathLike[str] | Mapping[str, bytes] | bytes
FILE_OF_REPOSITORY = re.compile(r"(?P<folder>[\w][\w.-]*/[\w][\w.-]*(?:@[\w][\w./-]*)?)/(?P<file>.+)", re.ASCII)


def open_source(spec: Spec, endpoint: str | None = None, token: str | None = None) -> Source:
    """Return the source that ``spec`` names; nothing is fetched yet. Raises ``DownloadError`` where it names none.

    ``token`` is sent with every request to the repository's endpoint, or to the URL's own origin, and nowhere else:
    no message, address or record contains it. Raises ``TensorCommonsError`` for a malformed one.
    """
    if token is not None and not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
        raise TensorCommonsError("token must be one word of printable ASCII characters")  # it is not shown
    if is_gguf(spec):
        spec = {"model.gguf": spec}  # type: ignore[dict-item]
    if isinstance(spec, Mapping):
        files = MemorySource(spec)
        only = next(iter(spec), "")
        return GgufSource(files, only) if len(spec) == 1 and is_gguf_file(only) else files
    if (place := _gguf_place(spec)) is not None:
        folder, file = place
        return GgufSource(open_source(folder, endpoint, token), file)
    if not isinstance(spec, (str, os.PathLike)):
        raise DownloadError(
            quoted(spec), f"not a model source: {type(spec).__name__} is not an address, path or mapping"
        )
    if not isinstance(spec, str):
        return FolderSource(Path(spec))
    if spec.startswith(("http://", "https://")):
        return UrlSource(spec, endpoint, token)
    if spec.startswith("file://"):
        return FolderSource(Path(unquote(split_address(spec).path)))
    is_folder = os.path.isdir(spec)  # noqa: PTH112 - Path.is_dir raises for a name that is too long
    if not is_folder and spec.startswith(("./", "../")) and (beside := _beside_page(spec)):
        return UrlSource(beside, endpoint, token)
    if is_folder or spec.startswith(("/", "./", "../", "~")):
        return FolderSource(Path(spec))
    found = repository(spec, endpoint, token)
    if found is None:
        raise DownloadError(
            spec,
            'not a model source: use a URL of a folder, "org/name[@revision]", a local folder, {file name: bytes}, or '
            'one of these with a file: "org/name/file.gguf"',
        )
    return found


def cached(source: Source, cache: Cache) -> Source:
    """Return ``source`` with ``cache`` in front of what it downloads."""
    if not cache.is_on or source.is_local:
        return source
    if isinstance(source, GgufSource):
        return GgufSource(CachedSource(source.folder, cache), source.file)
    return CachedSource(source, cache)


def _gguf_place(spec: object) -> tuple[Spec, str] | None:
    """Return the folder and the name of the GGUF file that ``spec`` names; None if it names another thing."""
    if isinstance(spec, os.PathLike):
        path = Path(spec)
        return (path.parent, path.name) if is_gguf_file(path.name) and not path.is_dir() else None
    if not isinstance(spec, str):
        return None
    if spec.startswith(("http://", "https://", "file://")):
        parts = split_address(spec)
        folder, _, file = parts.path.rpartition("/")
        return (urlunsplit(parts._replace(path=folder)), unquote(file)) if is_gguf_file(file) else None
    if not is_gguf_file(spec) or os.path.isdir(spec):  # noqa: PTH112 - as above
        return None
    if not os.path.isfile(spec) and not spec.startswith(("/", "./", "../", "~")):  # noqa: PTH113 - as above
        match = FILE_OF_REPOSITORY.fullmatch(spec)
        return match and (match["folder"], match["file"])
    folder, slash, file = spec.rpartition("/")
    return folder + slash or "./", file


def _beside_page(spec: str) -> str | None:
    if not IN_BROWSER:
        return None
    from ..bridge.http import url_beside_page

    return url_beside_page(spec)
