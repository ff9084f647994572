"""Reads of a device's bytes, through a staging buffer that is counted, and kept for the next read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..bridge import byte_buffer
from ..bridge.byte_buffer import ByteBuffer
from ..errors import DeviceMemoryError, InternalError
from .backend import Backend
from .base import Range
from .memory import Memory

STAGING = 4096, 64 * 2**20  # bytes that are kept for reads, at least and at most


class Readable(Memory):
    """The memory of a device that is read through a staging buffer."""

    def __init__(self, backend: Backend[Any]) -> None:
        super().__init__(backend)
        self._staging = 0  # bytes that are kept for reads

    @property
    def idle_staging_bytes(self) -> int:
        """Bytes that are kept for reads if no read is under way, else 0."""
        return 0 if self.budget.reading.locked() else self._staging

    @property
    def busy_staging_bytes(self) -> int:
        """Bytes that are kept for reads while a read is under way, else 0."""
        return self._staging - self.idle_staging_bytes

    @abstractmethod
    def free_scratch(self) -> None:
        """Free the scratch memory that is idle."""

    async def read(self, handle: int, offset: int, nbytes: int) -> memoryview:
        """Read bytes of ``handle``."""
        return (await self.read_together([(handle, offset, nbytes)]))[0]

    async def read_together(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Read the bytes of every (handle, offset, nbytes), at once where there is memory for it.

        The staging copy is counted while it lives, kept for the next read, and made in pieces where memory is short.

        Raises DeviceError or DeviceMemoryError where what computed the bytes, or the read itself, failed on the device,
        and InternalError for a range outside its value.
        """
        for handle, offset, size in ranges:
            nbytes, _ = self._handles.get(handle, (0, None))
            if not 0 <= offset <= offset + size <= nbytes and not self._closed:
                raise InternalError(f"bytes {offset} to {offset + size} of a value of {nbytes} bytes on {self.kind}")
        try:
            return await self._read_together(ranges)
        except DeviceMemoryError:  # the arena may be what could not be made: the next run takes another
            self.free_scratch()
            raise

    async def _read_together(self, ranges: Sequence[Range]) -> list[memoryview]:
        if self.backend.facts.is_host:
            return await self.backend.read(ranges)
        async with self.budget.reading:
            total = sum([_words(offset, size) for _, offset, size in ranges])
            if total > self._staging:
                self._free_staging()
            if total <= self.backend.buffer_bytes and (total <= self._staging or total <= self.budget.free_bytes()):
                with self._staged(total):
                    return await self.backend.read(ranges)
            return [await self._read_in_pieces(*each) for each in ranges]

    @contextmanager
    def _staged(self, nbytes: int) -> Iterator[None]:
        """Charge ``nbytes`` for a read in the block; a device that keeps staging gets a power of two for later ones."""
        least, most = STAGING
        if not self.backend.keeps_staging or nbytes > most:
            with self.charged(nbytes, "staging"):
                yield
            return
        if nbytes > self._staging:
            ample = max(1 << (nbytes - 1).bit_length(), least)
            size = ample if ample <= self.budget.free_bytes() else nbytes
            self.charge(size, "staging")
            self._staging = size
            self.backend.stage(size)
        try:
            yield
        except BaseException:  # its buffer may be mapped, or gone with the device
            self._free_staging()
            raise

    def _free_staging(self) -> None:
        if self._staging:
            self.refund(self._staging, "staging")
            self._staging = 0
            self.backend.stage(0)

    async def read_chunk(self, handle: int, start: int, stop: int) -> ByteBuffer:
        """Read bytes from ``start`` on as a block: at most CHUNK of them where it reads parts, less if memory is short.

        ``start`` is a multiple of 4, and so is the end if it is not ``stop``. Raises as :meth:`read`.
        """
        size = stop - start if self.backend.reads_whole else min(stop - start, byte_buffer.CHUNK)
        if self.backend.facts.is_host:
            return await self.backend.read_block(handle, start, size)
        async with self.budget.reading:
            if _words(start, size) > self._staging:
                self._free_staging()
                size = min(size, max(self.budget.free_bytes() // 4, 1) * 4)
            with self._staged(_words(start, size)):
                return await self.backend.read_block(handle, start, size)

    async def chunks(self, handle: int, nbytes: int) -> AsyncGenerator[ByteBuffer]:
        """Yield all ``nbytes`` of ``handle`` as blocks, which the caller frees. Raises as :meth:`read`."""
        start = 0
        while start < nbytes:
            block = await self.read_chunk(handle, start, nbytes)
            start += block.nbytes
            yield block

    async def _read_in_pieces(self, handle: int, offset: int, nbytes: int) -> memoryview:
        result = bytearray(nbytes)
        done = 0
        while done < nbytes:
            start = offset + done
            most = min(max(self.budget.free_bytes() // 4, 1) * 4, self.backend.buffer_bytes)
            size = min(nbytes - done, most - start % 4)
            with self.charged(_words(start, size), "staging"):
                (piece,) = await self.backend.read([(handle, start, size)])
            result[done : done + size] = piece
            done += size
        return memoryview(result)


def _words(offset: int, nbytes: int) -> int:
    """Return the bytes of the whole words of 4 bytes that a range touches, which a device copies to read it."""
    return -(-(offset + nbytes) // 4) * 4 - offset // 4 * 4
