"""Identity of bytes: SHA-256 over a label and the SHA-256 of each half MiB of them.

Pieces, because a browser hashes whole arrays only (``crypto.subtle``): with the processor's instructions, ten times as
fast as WebAssembly, but from a copy. So the copy is never one of a whole tensor.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .byte_buffer import PIECE, ByteBuffer, Data
from .loader import load_js_module
from .runtime import IN_BROWSER

SMALL = 1 << 15  # bytes that Python hashes in less time than a thread takes to respond


def identity_of(data: bytes | bytearray | Data, label: str = "") -> str:
    """Return the hex SHA-256 of ``data`` under ``label``. A tensor's label is its dtype and shape: "float32(2, 3)"."""
    return joined(digests_of(data), label)


async def identity_beside(data: bytes | bytearray | Data, label: str = "") -> str:
    """Return the same. In a browser a large block is hashed concurrently; it must not change meanwhile."""
    return joined(await digests_beside(data), label)


async def digests_beside(data: bytes | bytearray | Data) -> bytes:
    """Return the SHA-256 of each piece, concatenated; concurrently, as :func:`identity_beside`."""
    if not isinstance(data, ByteBuffer) or data.nbytes <= SMALL or not _is_hashed_by_the_browser():
        return digests_of(data)
    digests: bytes = (await (await hasher()).digestsOf(data.raw)).to_bytes()
    return digests


def digests_of(data: bytes | bytearray | Data) -> bytes:
    """Return the SHA-256 of each piece, concatenated."""
    if isinstance(data, ByteBuffer):
        return b"".join(hashlib.sha256(piece).digest() for _, piece in data.pieces())
    whole = memoryview(data)
    if not whole.nbytes:
        return b""
    flat = whole.cast("B")
    return b"".join(hashlib.sha256(flat[start : start + PIECE]).digest() for start in range(0, flat.nbytes, PIECE))


def joined(digests: bytes, label: str) -> str:
    """Return the identity of bytes with these ``digests``."""
    return hashlib.sha256(label.encode() + digests).hexdigest()


async def hasher() -> Any:
    """Load ``digest.js``."""
    return await load_js_module("digest", "digest.js")


def _is_hashed_by_the_browser() -> bool:
    """Return whether the browser hashes: a page without a secure connection has no ``crypto.subtle``."""
    if not IN_BROWSER:
        return False
    import js

    return bool(getattr(getattr(js, "crypto", None), "subtle", None))
