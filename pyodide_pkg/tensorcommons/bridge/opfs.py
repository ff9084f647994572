"""The browser's Origin Private File System as a byte store of :mod:`tensorcommons.hub.stores`.

OPFS and not the Cache API: a worker reads and writes its files without a copy between the file and Python's memory, and
2.5 times as fast (the figures are in ``opfs.js``). A page outside a worker takes the slower calls of the same API.
"""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .byte_buffer import ByteBuffer, Data, raw_of
from .digest import hasher
from .loader import load_js_module

FOLDER = "tensorcommons"
# What the browser calls it: what Python calls it. Anything else is an input/output error.
ERRNO = {
    "NotFoundError": errno.ENOENT,
    "QuotaExceededError": errno.ENOSPC,
    "NoModificationAllowedError": errno.EBUSY,
    "InvalidModificationError": errno.EBUSY,
    "SecurityError": errno.EACCES,
    "NotAllowedError": errno.EACCES,
}


class OpfsStore:
    """Files of the folder "tensorcommons", by name."""

    name = "this browser's private file system"

    def __init__(self, helper: Any, store: Any) -> None:
        self._helper = helper
        self._store = store

    async def list(self) -> dict[str, tuple[int, float]]:
        """Name: (bytes, seconds since 1970 of the last write)."""
        with _as_os_errors():
            found = json.loads(await self._helper.list(self._store))
        return {name: (size, written / 1000) for name, size, written in found}

    async def size(self, name: str) -> int | None:
        """Bytes of an entry; None if there is none."""
        with _as_os_errors():
            size = int(await self._helper.size(self._store, name))
        return None if size < 0 else size

    async def read(self, name: str, nbytes: int | None = None) -> tuple[ByteBuffer, bytes]:
        """See :class:`Store`."""
        block = None if nbytes is None else ByteBuffer(nbytes)
        with _as_os_errors():
            array, digests = await self._helper.read(self._store, name, None if block is None else block.raw)
        return block or ByteBuffer.taking(array), digests.to_bytes()

    async def write(self, name: str, data: Data) -> None:
        """Write an entry, whole or not at all."""
        with _as_os_errors():
            await self._helper.write(self._store, name, f"new-{secrets.token_hex(8)}", raw_of(data))

    async def text(self, name: str) -> bytes:
        """See :class:`Store`."""
        with _as_os_errors():
            text: bytes = (await self._helper.text(self._store, name)).to_bytes()
        return text

    async def append(self, name: str, data: Data) -> None:
        """Add to the end of an entry that is there."""
        with _as_os_errors():
            await self._helper.append(self._store, name, raw_of(data))

    async def remove(self, name: str) -> None:
        """Remove an entry, if it is there."""
        with _as_os_errors():
            await self._helper.remove(self._store, name)


async def open_opfs() -> OpfsStore:
    """The store. Raises OSError where the browser gives none (no secure context, a private window of some browsers)."""
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
