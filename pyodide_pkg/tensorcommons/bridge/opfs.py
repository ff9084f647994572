"""The browser's Origin Private File System as a byte store of :mod:`tensorcommons.hub.stores`.

OPFS and not the Cache API: a worker reads and writes its files without a copy in between (figures in ``opfs.js``). A
page outside a worker takes the slower calls of the same API.
"""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .byte_buffer import ByteBuffer, Data, raw_of
from .digest import hasher
from .loader import load_js_module

FOLDER = "tensorcommons"
# The browser's name of an error: Python's. Any other is an input/output error.
ERRNO = {
    "NotFoundError": errno.ENOENT,
    "QuotaExceededError": errno.ENOSPC,
    "NoModificationAllowedError": errno.EBUSY,
    "InvalidModificationError": errno.EBUSY,
    "SecurityError": errno.EACCES,
    "NotAllowedError": errno.EACCES,
}


class OpfsStore:
    """The files of the folder "tensorcommons", by name. See :class:`Store`."""

    name = "this browser's private file system"

    def __init__(self, helper: Any, store: Any) -> None:
        self._helper = helper
        self._store = store

    async def list(self) -> dict[str, tuple[int, float]]:
        """See :class:`Store`."""
        with _as_os_errors():
            found = json.loads(await self._helper.list(self._store))
        return {name: (size, written / 1000) for name, size, written in found}

    async def size(self, name: str) -> int | None:
        """See :class:`Store`."""
        with _as_os_errors():
            size = int(await self._helper.size(self._store, name))
        return None if size < 0 else size

    async def read(self, name: str, start: int, sizes: Sequence[int]) -> tuple[ByteBuffer, bytes]:
        """See :class:`Store`."""
        from pyodide.ffi import to_js

        block = ByteBuffer(sum(sizes))
        with _as_os_errors():
            digests = await self._helper.read(self._store, name, start, to_js(sizes), block.raw)
        return block, digests.to_bytes()

    async def write(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        with _as_os_errors():
            await self._helper.write(self._store, name, f"new-{secrets.token_hex(8)}", raw_of(data))

    async def text(self, name: str) -> bytes:
        """See :class:`Store`."""
        with _as_os_errors():
            text: bytes = (await self._helper.text(self._store, name)).to_bytes()
        return text

    async def append(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        with _as_os_errors():
            await self._helper.append(self._store, name, raw_of(data))

    async def remove(self, name: str) -> None:
        """See :class:`Store`."""
        with _as_os_errors():
            await self._helper.remove(self._store, name)


async def open_opfs() -> OpfsStore:
    """Open the store. Raises OSError if the browser has none (no secure context, some browsers' private windows)."""
    helper = await load_js_module("opfs", "opfs.js")
    with _as_os_errors():
        return OpfsStore(helper, await helper.openStore(FOLDER, (await hasher()).arriving))


@contextmanager
def _as_os_errors() -> Iterator[None]:
    from pyodide.ffi import JsException

    try:
        yield
    except JsException as error:
        name = str(error.name)
        raise OSError(ERRNO.get(name, errno.EIO), f"{name}: {error.message}") from None
