"""The browser's Origin Private File System as a byte store of :mod:`tensorcommons.hub.stores`.

OPFS and not the Cache API: a worker reads and writes its files without a copy in between (figures in ``files.js``), so
``opfs.js`` starts one, which hashes, too.
"""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from .byte_buffer import ByteBuffer, Data, raw_of
from .digest import hash_by
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
        found = json.loads(await self._do("list"))
        return {name: (size, written / 1000) for name, size, written in found}

    async def size(self, name: str) -> int | None:
        """See :class:`Store`."""
        size = int(await self._do("size", name))
        return None if size < 0 else size

    async def read(self, name: str, start: int, sizes: Sequence[int]) -> tuple[ByteBuffer, bytes]:
        """See :class:`Store`."""
        block = ByteBuffer(sum(sizes))
        digests = await self._do("read", name, start, sizes, data=block)
        return block, digests.to_bytes()

    async def write(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        await self._do("write", name, f"new-{secrets.token_hex(8)}", data=data)

    async def text(self, name: str) -> bytes:
        """See :class:`Store`."""
        text: bytes = (await self._do("text", name)).to_bytes()
        return text

    async def append(self, name: str, data: Data) -> None:
        """See :class:`Store`."""
        await self._do("append", name, data=data)

    async def remove(self, name: str) -> None:
        """See :class:`Store`."""
        await self._do("remove", name)

    async def digests(self, data: ByteBuffer, sizes: Sequence[int]) -> bytes:
        """Compute the digests of parts of ``sizes``; see ``digest.py``."""
        digests: bytes = (await self._do("digestsOf", sizes, data=data)).to_bytes()
        return digests

    async def _do(self, work: str, *given: Any, data: Data | None = None) -> Any:
        """Call a function of ``files.js`` beside this thread. Raises OSError if it fails."""
        from pyodide.ffi import to_js

        call = partial(self._helper.run, self._store, work, to_js(given))
        if isinstance(data, ByteBuffer) and data.is_alone:
            answer = await data.transferred(lambda raw: call(raw, True))
        else:
            answer = await call(None if data is None else raw_of(data), False)
        if failure := answer.failure:
            name = str(failure.name)
            raise OSError(ERRNO.get(name, errno.EIO), f"{name}: {failure.message}")
        return answer.result


async def open_opfs() -> OpfsStore:
    """Open the store. Raises OSError if the browser has none (no secure context, some browsers' private windows)."""
    from pyodide.ffi import JsException

    helper = await load_js_module("opfs", "opfs.js")
    try:
        store = OpfsStore(helper, await helper.openStore(FOLDER))
    except JsException as error:
        raise OSError(ERRNO.get(str(error.name), errno.EIO), f"{error.name}: {error.message}") from None
    hash_by(store.digests)
    return store
