"""A GGUF file as the folder of a model: the small files of that are made from the file's metadata."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from ..errors import InvalidWeights, quoted
from .gguf import MAGIC
from .source import Source, check_name
from .streams import FileMissingError, MemoryBody, OnBytes, Stream
from .version import Version
from .weights import WeightsFile

Contents: TypeAlias = Mapping[str, Callable[[], Awaitable[bytes]]]
"""Files by name, each made when it is read."""

SPLIT = re.compile(r"-\d{5}-of-(\d{5})\.gguf$", re.IGNORECASE)


class GgufSource(Source):
    """The folder that the GGUF file ``file`` of ``folder`` stands for. It has files after :meth:`fill`."""

    def __init__(self, folder: Source, file: str) -> None:
        self.folder = folder
        self.file = file
        self.name = file.rpartition("/")[2]
        self.is_local = folder.is_local
        self._contents: Contents = {}

    def key(self, file: str) -> str:
        """See :class:`Source`."""
        check_name(file)
        return f"{self.folder.key(self.file)}#{file}"

    async def open_weights(self) -> WeightsFile:
        """Open the file.

        Raises ``InvalidWeights`` if it is one part of a split model, and the errors of :meth:`WeightsFile.open`.
        """
        if (split := SPLIT.search(self.file)) and int(split[1]) > 1:
            raise InvalidWeights(self.file, f"one of {int(split[1])} files of a model: {MERGE}")
        return await WeightsFile.open(self.folder, self.file)

    def fill(self, contents: Contents) -> None:
        """Let the folder have these files."""
        self._contents = contents

    async def open(self, file: str, start: int = 0, stop: int | None = None, on_bytes: OnBytes | None = None) -> Stream:
        """See :class:`Source`."""
        if file not in self._contents:
            raise FileMissingError(self.key(file), "the GGUF file has no metadata for it")
        data = memoryview(await self._contents[file]())
        stream = Stream(MemoryBody(data[:stop], self.key(file), start), len(data), min(start, len(data)), on_bytes)
        stream.version = Version(len(data), '"memory"')
        return stream

    async def exists(self, file: str) -> bool:
        """See :class:`Source`."""
        return file in self._contents

    def sibling(self, name: str) -> Source:
        """See :class:`Source`."""
        raise InvalidWeights(self.name, f"the base model {quoted(name)} cannot be found beside a GGUF file")


MERGE = "merge them into one with `llama-gguf-split --merge FIRST.gguf MERGED.gguf` of llama.cpp"


def is_gguf(data: object) -> bool:
    """Return whether ``data`` are the bytes of a GGUF file."""
    return isinstance(data, (bytes, bytearray, memoryview)) and bytes(memoryview(data)[:4]) == MAGIC
