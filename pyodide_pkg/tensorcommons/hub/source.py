"""The contract of a model's files, whichever place they come from: named bytes of one folder, read as streams.

Names of files come out of checkpoints (``model.safetensors.index.json`` lists some), so they are not trusted: a name
that would leave the folder is refused.
"""

from __future__ import annotations

import re
from typing import Protocol

from ..errors import InvalidWeights, quoted, shown
from .streams import READ, FileMissingError, OnBytes, ShortReadError, Stream
from .version import Version

LONGEST_NAME = 255  # characters of a file's name; no common file system takes more
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


class Source(Protocol):
    """A folder of files. ``name`` is its last part, for messages; ``is_local`` means that a read needs no network.

    ``is_kept`` is True while a :class:`Cache` keeps what is downloaded: the browser's HTTP cache would store it twice.
    """

    name: str
    is_local: bool = False
    is_kept: bool = False

    def key(self, file: str) -> str:
        """Return the address of ``file``, the same whenever the same source is opened again."""
        ...

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """Open ``file`` from byte ``start`` to ``stop`` (default: its end).

        Raises ``FileMissingError``, ``DownloadError``, or ``InvalidWeights`` for a name outside the folder.
        """
        ...

    async def open_if_changed(self, file: str, version: Version) -> Stream | None:
        """Open ``file`` as :meth:`open` does, or return None if it is still of ``version`` (a stream's attribute)."""
        return await self.open(file)

    async def exists(self, file: str) -> bool:
        """Return whether ``open`` would find ``file``. A browser prints a 404 in its console for what is missing."""
        try:
            stream = await self.open(file)
        except FileMissingError:
            return False
        await stream.close()
        return True

    def files_in(self, folder: str) -> list[str]:
        """List the files of a folder below this one, as ``open`` takes them; [] if the source cannot list files."""
        return []

    async def read(self, file: str, on_bytes: OnBytes | None = None) -> bytes:
        """Read all bytes of ``file``.

        Raises as ``open`` does, ``ShortReadError`` if they end early, and ``InvalidWeights`` for more bytes than such a
        file can reasonably have (LIMITS).
        """
        return await read_whole(self, file, await self.open(file, on_bytes=on_bytes))

    def sibling(self, name: str) -> Source:
        """Open the source that ``base_model_name_or_path`` in this source's ``config.json`` names.

        ``org/name`` is a repository wherever it is written; a bare ``name`` is the folder beside this one, or the
        repository of the same organisation. Raises ``InvalidWeights`` for any other name.
        """
        ...


async def read_whole(source: Source, file: str, stream: Stream) -> bytes:
    """Read all bytes of ``file`` from its open ``stream``, and close it. Raises as ``Source.read``."""
    most = LIMITS.get(file.rpartition("/")[2], LIMIT)
    data = bytearray()
    async with stream:
        while piece := await stream.read_some(min(READ, most + 1 - len(data))):
            data += piece
            if len(data) > most or (stream.size or 0) > most:
                raise InvalidWeights(f"{source.name}/{file}", f"over the limit of {most:,} bytes for such a file")
    if stream.hint is not None and len(data) < stream.hint:
        # The server announced more: either the size of a compressed body, or the browser hides that the body was cut.
        async with await source.open(file, 0, len(data) + 1) as again:
            while again.position <= len(data) and await again.read_some(len(data) + 1 - again.position):
                pass
        if again.position != len(data):
            raise ShortReadError(stream.url, len(data), stream.hint, complete=False)
    return bytes(data)


def is_gguf_file(file: str) -> bool:
    """Return whether a file's name is that of a GGUF file."""
    return file.lower().endswith(".gguf")


def check_name(file: str) -> None:
    """Raise ``InvalidWeights`` for a name that is not that of a file inside the folder."""
    wrong = not file or len(file) > LONGEST_NAME or re.search(r"[\\\0:\ud800-\udfff]", file)
    if wrong or any(part in ("", ".", "..") for part in file.split("/")):
        raise InvalidWeights(shown(file), "not the name of a file inside the model's folder")


def check_sibling(source: str, name: str) -> None:
    """Raise ``InvalidWeights`` if ``name``, the base model of ``source``, is not that of a folder."""
    if not name or name in (".", "..") or len(name) > LONGEST_NAME or re.search(r"[/\\\0\ud800-\udfff]", name):
        raise InvalidWeights(
            f"{source}/config.json", f"base model {quoted(name)} is neither org/name nor the name of a folder"
        )
