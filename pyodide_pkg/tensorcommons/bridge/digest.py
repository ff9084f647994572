"""What bytes are known by: SHA-256 over a label and the SHA-256 of each MiB of them.

By the MiB, because a browser hashes whole arrays only (``crypto.subtle``): on a thread of its own and with the
processor's instructions, ten times as fast as WebAssembly can, but from a copy. So no second copy of a tensor is made.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from .blocks import PIECE, Block, Data
from .runtime import IN_BROWSER

SMALL = 1 << 15  # bytes that are hashed here in less time than a thread answers in
AT_ONCE = 4  # pieces on their way to that thread


def identity_of(data: bytes | bytearray | Data, label: str = "") -> str:
    """Hex SHA-256 that ``data`` has under ``label``. A tensor's label is its dtype and shape: "float32(2, 3)"."""
    if isinstance(data, Block):
        return _joined(label, [hashlib.sha256(piece).digest() for _, piece in data.pieces()])
    whole = memoryview(data)
    if not whole.nbytes:
        return _joined(label, [])
    flat = whole.cast("B")
    parts = range(0, flat.nbytes, PIECE)
    return _joined(label, [hashlib.sha256(flat[start : start + PIECE]).digest() for start in parts])


async def identity_beside(data: bytes | bytearray | Data, label: str = "") -> str:
    """The same. A large block of a browser's is hashed while others run; it must stay as it is meanwhile."""
    subtle = _subtle() if isinstance(data, Block) and data.nbytes > SMALL else None
    if subtle is None or not isinstance(data, Block):
        return identity_of(data, label)

    async def digest(start: int) -> bytes:
        piece = data.raw.subarray(start, min(start + PIECE, data.nbytes))
        found: bytes = (await subtle.digest("SHA-256", piece)).to_bytes()
        return found

    starts = list(range(0, data.nbytes, PIECE))
    digests: list[bytes] = []
    for first in range(0, len(starts), AT_ONCE):
        digests += await asyncio.gather(*(digest(start) for start in starts[first : first + AT_ONCE]))
    return _joined(label, digests)


def _joined(label: str, digests: list[bytes]) -> str:
    return hashlib.sha256(label.encode() + b"".join(digests)).hexdigest()


def _subtle() -> Any:
    """The browser's hashes; None where a page has none, for it did not come over a secure connection."""
    if not IN_BROWSER:
        return None
    import js

    return getattr(getattr(js, "crypto", None), "subtle", None) or None
