"""Byte buffers: bytes on their way to or from a device, outside of Python's own memory.

In a browser that memory is WebAssembly's: it grows and never shrinks, so the process keeps its largest size. A tensor
in transit is in arrays of JavaScript instead, and Python copies a piece at a time. JavaScript has no way to
free an array that works in every engine, and collects garbage late; so the arrays come from a pool and return to it,
and no tensor is on the host as a whole: it passes in chunks. Outside a browser a block is a plain buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from .runtime import IN_BROWSER

PIECE = 1 << 19  # bytes that Python copies from a block, or hashes, at a time (digest.py)
CHUNK = 1 << 23  # bytes of a tensor that are read, hashed, stored and uploaded at a time
LEAST = 1 << 12  # bytes of the smallest block's room
KEPT = 6  # slabs that the pool keeps for later blocks, at most


def room_of(nbytes: int) -> int:
    """Return the room of a block of ``nbytes`` in the pool: a power of two, from :data:`LEAST` to :data:`CHUNK`."""
    return 1 << (max(nbytes, LEAST) - 1).bit_length()


def _is_full(nbytes: int) -> bool:
    return 8 * nbytes >= 7 * room_of(nbytes) or nbytes <= LEAST


class Pool:
    """Slabs of :data:`CHUNK` bytes in a buddy system: halved for smaller blocks, and merged when both are free."""

    def __init__(self) -> None:
        self.slabs: dict[int, Any] = {}
        self._numbers = itertools.count()
        self._free: dict[int, set[tuple[int, int]]] = {}  # by size: slab and offset

    def take(self, size: int) -> tuple[int, int]:
        """Return slab and offset of ``size`` free bytes, a power of two, with any contents."""
        found = size
        while found < CHUNK and not self._free.get(found):
            found *= 2
        if self._free.get(found):
            slab, offset = self._free[found].pop()
        else:
            slab, offset = next(self._numbers), 0
            self.slabs[slab] = _new_array(CHUNK)
        while found > size:
            found //= 2
            self._free.setdefault(found, set()).add((slab, offset + found))
        return slab, offset

    def give(self, slab: int, offset: int, size: int) -> None:
        """Return what :meth:`take` returned to the pool."""
        if slab not in self.slabs:  # abandoned
            return
        while size < CHUNK and (slab, offset ^ size) in self._free.get(size, ()):
            self._free[size].remove((slab, offset ^ size))
            offset &= ~size
            size *= 2
        if size == CHUNK and len(self._free.get(size, ())) >= KEPT:
            _drop(self.slabs.pop(slab))
        else:
            self._free.setdefault(size, set()).add((slab, offset))

    def abandon(self, slab: int) -> None:
        """Remove ``slab`` from the pool; it is collected as garbage with the last block in it."""
        self.slabs.pop(slab, None)
        for places in self._free.values():
            places.difference_update([place for place in places if place[0] == slab])


class ByteBuffer:
    """``nbytes`` bytes. ``raw`` is a ``Uint8Array`` of JavaScript or a memoryview.

    Call :meth:`free` when done with a block, unless work that may still write to it failed or was cancelled: a block
    that is dropped takes its slab out of the pool. One of more than :data:`CHUNK` bytes has an array of its own.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._place: tuple[int, int, int] | None = None
        self._whole: ByteBuffer | None = None  # the block of which this is a part
        self._parts = 0  # of this block that are not freed
        self.raw: Any = None
        if nbytes > CHUNK:
            self.raw = _new_array(nbytes)
        else:
            size = room_of(nbytes)
            slab, offset = pool.take(size)
            self._place = slab, offset, size
            array = pool.slabs[slab]
            self.raw = array.subarray(offset, offset + nbytes) if IN_BROWSER else array[offset : offset + nbytes]

    @classmethod
    def taking(cls, array: Any) -> ByteBuffer:
        """Take over an array of JavaScript, which must not be used otherwise any more."""
        block: ByteBuffer = cls.__new__(cls)
        block.nbytes, block.raw, block._place = int(array.length), array, None
        block._whole, block._parts = None, 0
        return block

    def part(self, start: int, stop: int) -> ByteBuffer:
        """Return bytes ``start`` to ``stop`` as a block over the same room; the last part that is freed frees it."""
        part: ByteBuffer = ByteBuffer.__new__(ByteBuffer)
        part.nbytes, part._place, part._whole, part._parts = stop - start, None, self, 0
        part.raw = self.raw.subarray(start, stop) if IN_BROWSER else self.raw[start:stop]
        self._parts += 1
        return part

    def split(self, sizes: Sequence[int]) -> list[ByteBuffer]:
        """Return consecutive parts of ``sizes``."""
        return [self.part(stop - size, stop) for size, stop in zip(sizes, itertools.accumulate(sizes), strict=True)]

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> ByteBuffer:
        """Copy ``data`` into a new block."""
        block = cls(memoryview(data).nbytes)
        block.write(0, memoryview(data))
        return block

    def copy(self) -> ByteBuffer:
        """Return another block with these bytes."""
        block = ByteBuffer(self.nbytes)
        if IN_BROWSER:
            block.raw.set(self.raw)
        else:
            block.raw[:] = self.raw
        return block

    def packed(self) -> list[ByteBuffer]:
        """Return these bytes in blocks to keep, which leave at most an eighth of their room empty; free this one.

        A buffer's room is a power of two, which may be twice its bytes.
        """
        if self._whole is None and (self._place is None or _is_full(self.nbytes)):
            return [self]
        parts: list[ByteBuffer] = []
        with self:
            at = 0
            while at < self.nbytes:
                left = self.nbytes - at
                size = left if _is_full(left) else 1 << left.bit_length() - 1
                part = ByteBuffer(size)
                if IN_BROWSER:
                    part.raw.set(self.raw.subarray(at, at + size))
                else:
                    part.raw[:] = self.raw[at : at + size]
                parts.append(part)
                at += size
        return parts

    def free(self) -> None:
        """Return the room to the pool. A second call does nothing."""
        raw, self.raw = self.raw, None
        if raw is None:
            return
        if self._whole is not None:
            self._whole._parts -= 1
            if not self._whole._parts:
                self._whole.free()
        elif self._place is None:
            _drop(raw)
        else:
            pool.give(*self._place)

    def __del__(self) -> None:
        if self._place is not None and self.raw is not None:
            pool.abandon(self._place[0])

    def __enter__(self) -> ByteBuffer:
        return self

    def __exit__(self, *error: object) -> None:
        self.free()

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

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes ``start`` to ``stop``, which may be a copy or a view."""
        if not IN_BROWSER:
            return memoryview(self.raw[start:stop])
        piece = bytearray(stop - start)
        if piece:
            self.raw.subarray(start, stop).assign_to(piece)
        return memoryview(piece)

    def copy_to(self, target: memoryview) -> None:
        """Copy all bytes to ``target``, which has as many."""
        if not IN_BROWSER:
            target[:] = self.raw
        elif self.nbytes:
            self.raw.assign_to(target)

    def pieces(self, size: int = PIECE) -> Iterator[tuple[int, memoryview]]:
        """Yield offset and bytes of each piece of at most ``size`` bytes."""
        for start in range(0, self.nbytes, size):
            yield start, self.read(start, min(start + size, self.nbytes))


Data: TypeAlias = memoryview | ByteBuffer


def pieces_of(data: bytes | bytearray | Data) -> Iterator[tuple[int, bytes | bytearray | memoryview]]:
    """Yield offset and bytes of each part of ``data`` that Python can hold at once."""
    if isinstance(data, ByteBuffer):
        yield from data.pieces()
    else:
        yield 0, data


def part_of(data: Data, start: int, stop: int) -> Data:
    """Return bytes ``start`` to ``stop`` of ``data``; they may be a copy."""
    if (start, stop) == (0, data.nbytes):
        return data
    return data.read(start, stop) if isinstance(data, ByteBuffer) else data.cast("B")[start:stop]


def raw_of(data: Data) -> Any:
    """Return the JavaScript array over ``data``."""
    return data.raw if isinstance(data, ByteBuffer) else data


def _new_array(nbytes: int) -> Any:
    if not IN_BROWSER:
        return memoryview(bytearray(nbytes))
    from js import Uint8Array

    return Uint8Array.new(nbytes)


def _drop(array: Any) -> None:
    """Free an array of JavaScript at once.

    Chromium keeps an array that was passed to WebGPU or hashed until garbage is collected, and ``transfer(0)`` does not
    change that; a clone is garbage of the same size. Transferring it to a closed port frees it.
    """
    if IN_BROWSER and array.length:
        from js import MessageChannel
        from pyodide.ffi import to_js

        channel = MessageChannel.new()
        channel.port2.close()
        channel.port1.postMessage(None, to_js([array.buffer]))
        channel.port1.close()


pool = Pool()
