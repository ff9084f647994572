"""Identity of bytes: SHA-256 over a label and the SHA-256 of each half MiB of them.

By pieces, because a browser hashes whole arrays only (``crypto.subtle``): with the processor's instructions, ten times
as fast as WebAssembly can, but from a copy. So no second copy of a tensor is made.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .byte_buffer import PIECE, ByteBuffer, Data
from .loader import load_js_module
from .runtime import IN_BROWSER

SMALL = 1 << 15  # bytes that are hashed here in less time than a thread answers in


def identity_of(data: bytes | bytearray | Data, label: str = "") -> str:
    """Hex SHA-256 that ``data`` has under ``label``. A tensor's label is its dtype and shape: "float32(2, 3)"."""
    return joined(digests_of(data), label)


async def identity_beside(data: bytes | bytearray | Data, label: str = "") -> str:
    """The same. A large block of a browser's is hashed while others run; it must stay as it is meanwhile."""
    return joined(await digests_beside(data), label)


async def digests_beside(data: bytes | bytearray | Data) -> bytes:
    """The SHA-256 of each piece, one after another, as :func:`identity_beside` hashes."""
    if not isinstance(data, ByteBuffer) or data.nbytes <= SMALL or not _is_hashed_by_the_browser():
        return digests_of(data)
    digests: bytes = (await (await hasher()).digestsOf(data.raw)).to_bytes()
    return digests


def digests_of(data: bytes | bytearray | Data) -> bytes:
    """The SHA-256 of each piece, one after another."""
    if isinstance(data, ByteBuffer):
        return b"".join(hashlib.sha256(piece).digest() for _, piece in data.pieces())
    whole = memoryview(data)
    if not whole.nbytes:
        return b""
    flat = whole.cast("B")
    return b"".join(hashlib.sha256(flat[start : start + PIECE]).digest() for start in range(0, flat.nbytes, PIECE))


def joined(digests: bytes, label: str) -> str:
    """The identity of bytes with these ``digests``."""
    return hashlib.sha256(label.encode() + digests).hexdigest()


async def hasher() -> Any:
    """``digest.js``."""
    return await load_js_module("digest", "digest.js")


def _is_hashed_by_the_browser() -> bool:
    """A page has no hashes if it did not come over a secure connection."""
    if not IN_BROWSER:
        return False
    import js

    return bool(getattr(getattr(js, "crypto", None), "subtle", None))
