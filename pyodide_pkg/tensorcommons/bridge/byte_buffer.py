"""Byte buffers: bytes on their way to or from a device, outside of Python's own memory.

In a browser that memory is WebAssembly's: it grows and never shrinks, so the process keeps its largest size. A tensor
in transit is in arrays of JavaScript instead, and Python copies a piece at a time. JavaScript has no way to
free an array that works in every engine, and collects garbage late; so the arrays come from a pool and return to it,
and no tensor is on the host as a whole: it passes in chunks. A buffer has an array of its own, which can be transferred
to a worker and back without a copy. Outside a browser it is a plain buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

from .runtime import IN_BROWSER

PIECE = 1 << 19  # bytes that Python copies from a block, or hashes, at a time (digest.py)
CHUNK = 1 << 23  # bytes of a tensor that are read, hashed, stored and uploaded at a time
LEAST = 1 << 12  # bytes of the smallest block's room
KEPT = 6 * CHUNK  # bytes that the pool keeps for later blocks, at most


def room_of(nbytes: int) -> int:
    """Return the room of a block of ``nbytes`` in the pool: a power of two, from :data:`LEAST` to :data:`CHUNK`."""
    return 1 << (max(nbytes, LEAST) - 1).bit_length()


def _is_full(nbytes: int) -> bool:
    return 8 * nbytes >= 7 * room_of(nbytes) or nbytes <= LEAST


class Pool:
    """Free arrays by size, a power of two; ``taken`` counts those in use, ``free`` the bytes of the others."""

    def __init__(self) -> None:
        self.taken = self.free = 0
        self._arrays: dict[int, list[Any]] = {}

    def take(self, size: int) -> Any:
        """Return an array of ``size`` bytes, with any contents."""
        self.taken += 1
        if not (arrays := self._arrays.get(size)):
            return _new_array(size)
        self.free -= size
        return arrays.pop()

    def give(self, array: Any, size: int) -> None:
        """Return an array to the pool. While it would keep more than :data:`KEPT` bytes, the largest ones are freed."""
        self.taken -= 1
        self.free += size
        self._arrays.setdefault(size, []).append(array)
        while self.free > KEPT:
            largest = max(each for each, arrays in self._arrays.items() if arrays)
            self.free -= largest
            _drop(self._arrays[largest].pop())


class ByteBuffer:
    """``nbytes`` bytes. ``raw`` is a ``Uint8Array`` of JavaScript or a memoryview.

    Call :meth:`free` when done with a block, unless work that may still write to it failed or was cancelled: the array
    of a block that is dropped is not used again. Arrays of more than :data:`CHUNK` bytes are not pooled.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._whole: ByteBuffer | None = None  # the block of which this is a part
        self._parts = 0  # of this block that are not freed
        self._size = room_of(nbytes) if nbytes <= CHUNK else 0  # of its array in the pool
        array = pool.take(self._size) if self._size else _new_array(nbytes)
        self.raw: Any = array.subarray(0, nbytes) if IN_BROWSER else array[:nbytes]

    @classmethod
    def taking(cls, array: Any) -> ByteBuffer:
        """Take over an array of JavaScript, which must not be used otherwise any more."""
        block: ByteBuffer = cls.__new__(cls)
        block.nbytes, block.raw, block._size = int(array.length), array, 0
        block._whole, block._parts = None, 0
        return block

    def part(self, start: int, stop: int) -> ByteBuffer:
        """Return bytes ``start`` to ``stop`` as a block over the same room; the last part that is freed frees it."""
        part: ByteBuffer = ByteBuffer.__new__(ByteBuffer)
        part.nbytes, part._size, part._whole, part._parts = stop - start, 0, self, 0
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
        if self._whole is None and (not self._size or _is_full(self.nbytes)):
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
        elif self._size:
            pool.give(_array_of(raw), self._size)
        else:
            _drop(raw)

    async def transferred(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Pass the array, of which there must be no parts, to ``work`` in JavaScript, and return its answer.

        The answer's ``bytes`` is the array again. If the caller is cancelled or ``work`` fails, it does not come back.
        """
        raw, self.raw = self.raw, None
        answer = await work(raw)
        self.raw = answer.bytes
        return answer

    @property
    def is_alone(self) -> bool:
        """True if the block is not a part of another one, and has no parts."""
        return self._whole is None and not self._parts

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


def _array_of(view: Any) -> Any:
    """Return the whole array that ``view`` begins."""
    if not IN_BROWSER:
        return memoryview(view.obj)
    from js import Uint8Array

    return Uint8Array.new(view.buffer)


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
