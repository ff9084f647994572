"""Identity of bytes: SHA-256 over a label and the SHA-256 of each half MiB of them.

Pieces, because a browser hashes whole arrays only (``crypto.subtle``): with the processor's instructions, ten times as
fast as WebAssembly, but from a copy. So the copy is never one of a whole tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from .byte_buffer import PIECE, ByteBuffer, Data
from .loader import load_js_module
from .runtime import IN_BROWSER

Hash: TypeAlias = Callable[[ByteBuffer, Sequence[int]], Awaitable[bytes]]

BYTES = 32  # of a digest
SMALL = 1 << 15  # bytes that Python hashes in less time than a thread takes to respond


def identity_of(data: bytes | bytearray | Data, label: str = "") -> str:
    """Return the hex SHA-256 of ``data`` under ``label``. A tensor's label is its dtype and shape: "float32(2, 3)"."""
    return joined(digests_of(data), label)


async def identity_beside(data: bytes | bytearray | Data, label: str = "") -> str:
    """Return the same. In a browser a large block is hashed concurrently; it must not change meanwhile."""
    return joined(await digests_beside(data), label)


async def digests_beside(data: bytes | bytearray | Data, sizes: Sequence[int] = ()) -> bytes:
    """Return the SHA-256 of each piece, concatenated; concurrently, as :func:`identity_beside`.

    ``sizes`` are those of consecutive parts of ``data``, each of which begins a piece; :func:`divided` tells their
    digests apart.
    """
    if not isinstance(data, ByteBuffer) or data.nbytes <= SMALL or not _is_hashed_by_the_browser():
        return digests_of(data, sizes)
    return await _hash(data, sizes or [data.nbytes])


def digests_of(data: bytes | bytearray | Data, sizes: Sequence[int] = ()) -> bytes:
    """Return the SHA-256 of each piece, concatenated; see :func:`digests_beside`."""
    whole = data if isinstance(data, ByteBuffer) else memoryview(data)
    flat = whole.cast("B") if isinstance(whole, memoryview) and whole.nbytes else whole
    digests, at = b"", 0
    for size in sizes or [whole.nbytes]:
        for start in range(at, at + size, PIECE):
            stop = min(start + PIECE, at + size)
            piece = flat.read(start, stop) if isinstance(flat, ByteBuffer) else flat[start:stop]
            digests += hashlib.sha256(piece).digest()
        at += size
    return digests


def divided(digests: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return the digests of each part."""
    found, at = [], 0
    for size in sizes:
        stop = at + -(-size // PIECE) * BYTES
        found.append(digests[at:stop])
        at = stop
    return found


def joined(digests: bytes, label: str) -> str:
    """Return the identity of bytes with these ``digests``."""
    return hashlib.sha256(label.encode() + digests).hexdigest()


def hash_by(work: Hash) -> None:
    """Let ``work`` hash from now on, as the worker of the browser's storage does."""
    global _hash
    _hash = work


async def _hash_here(data: ByteBuffer, sizes: Sequence[int]) -> bytes:
    """Hash by the functions that the browser offers to this thread."""
    from pyodide.ffi import to_js

    digest = await load_js_module("digest", "digest.js")
    digests: bytes = (await digest.digestsOf(data.raw, to_js(list(sizes)))).to_bytes()
    return digests


_hash: Hash = _hash_here


def _is_hashed_by_the_browser() -> bool:
    """Return whether the browser hashes: a page without a secure connection has no ``crypto.subtle``."""
    if not IN_BROWSER:
        return False
    import js

    return bool(getattr(getattr(js, "crypto", None), "subtle", None))
