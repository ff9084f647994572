"""Bytes on their way to a device, outside of Python's own memory.

In a browser that memory is WebAssembly's: it grows and never shrinks, so whatever lay in it once, the process keeps. A
tensor on its way from the network therefore lies in an array of JavaScript's, which goes when it is done with; Python
sees a piece at a time. Elsewhere it is a plain buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from .runtime import IN_BROWSER

PIECE = 1 << 19  # bytes that Python holds of a block, or that are hashed, at a time (digest.py)
CHUNK = 16 * PIECE  # bytes of a tensor that are received, hashed and stored at a time


class Block:
    """``nbytes`` bytes. Where ``room`` is more, they are the last ones of that many: ``whole``.

    ``raw`` is a ``Uint8Array`` of JavaScript's or a memoryview. Writing a block to a device may use it up.
    """

    def __init__(self, nbytes: int, room: int = 0) -> None:
        total = max(nbytes, room)
        self._take(_new_array(total) if IN_BROWSER else memoryview(bytearray(total)), nbytes, total)

    _whole: Block | None

    def _take(self, whole: Any, nbytes: int, total: int) -> None:
        self._set(whole, total - nbytes, total)
        self._whole = None if total == nbytes else Block._over(whole, 0, total)

    @property
    def whole(self) -> Block:
        """The bytes with the room before them."""
        return self if self._whole is None else self._whole

    def _set(self, whole: Any, start: int, stop: int) -> None:
        self.nbytes = stop - start
        self.raw: Any = whole.subarray(start, stop) if IN_BROWSER else whole[start:stop]

    @classmethod
    def _over(cls, whole: Any, start: int, stop: int) -> Block:
        block: Block = cls.__new__(cls)
        block._set(whole, start, stop)
        block._whole = None
        return block

    @classmethod
    def taking(cls, whole: Any, nbytes: int) -> Block:
        """The last ``nbytes`` of ``whole``, an array of JavaScript's."""
        block: Block = cls.__new__(cls)
        block._take(whole, nbytes, int(whole.length))
        return block

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, room: int = 0) -> Block:
        """A copy of ``data``."""
        block = cls(len(data), room)
        block.write(0, memoryview(data))
        return block

    def first(self, nbytes: int) -> Block:
        """The first ``nbytes`` of these."""
        return Block._over(self.raw, 0, nbytes)

    def __len__(self) -> int:
        return self.nbytes

    def __bytes__(self) -> bytes:
        return b"".join(bytes(piece) for _, piece in self.pieces())

    def write(self, offset: int, data: memoryview) -> None:
        """Put ``data`` at ``offset``."""
        stop = offset + data.nbytes
        if not IN_BROWSER:
            self.raw[offset:stop] = data.cast("B")
        elif data.nbytes:
            self.raw.subarray(offset, stop).assign(data)

    def put(self, offset: int, other: Block) -> None:
        """Put another block's bytes at ``offset``."""
        stop = offset + other.nbytes
        if IN_BROWSER:
            self.raw.subarray(offset, stop).set(other.raw)
        else:
            self.raw[offset:stop] = other.raw

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop``; whether they are a copy is left open."""
        if not IN_BROWSER:
            return memoryview(self.raw[start:stop])
        piece = bytearray(stop - start)
        if piece:
            self.raw.subarray(start, stop).assign_to(piece)
        return memoryview(piece)

    def pieces(self, size: int = PIECE) -> Iterator[tuple[int, memoryview]]:
        """Offset and bytes of each piece of at most ``size`` bytes."""
        for start in range(0, self.nbytes, size):
            yield start, self.read(start, min(start + size, self.nbytes))


Data: TypeAlias = memoryview | Block


def pieces_of(data: bytes | bytearray | Data) -> Iterator[tuple[int, bytes | bytearray | memoryview]]:
    """Offset and bytes of each part of ``data`` that Python can hold at once."""
    if isinstance(data, Block):
        yield from data.pieces()
    else:
        yield 0, data


def raw_of(data: Data) -> Any:
    """What JavaScript is given for ``data``."""
    return data.raw if isinstance(data, Block) else data


def _new_array(nbytes: int) -> Any:
    from js import Uint8Array

    return Uint8Array.new(nbytes)
