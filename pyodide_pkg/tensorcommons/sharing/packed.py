"""Weights of block formats on devices that do not store them: widened to float32, and how to read the blocks again.

The blocks do not follow from the numbers of a widened weight, so its entry has the place where to read them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..backends.base import BlockSpec
from ..bridge.byte_buffer import CHUNK, ByteBuffer
from ..bridge.digest import digests_beside, joined
from ..bridge.runtime import yield_to_loop
from ..formats import BLOCKS
from ..shapes import size_of
from .provenance import Origin, content_label

Chunks: TypeAlias = Callable[[], AsyncGenerator[ByteBuffer]]


@dataclass
class Packed:
    """The blocks of a widened weight: the spec of their storage, where to read its bytes, and their identity.

    ``content`` is None until :meth:`identity` has read them.
    """

    spec: BlockSpec
    origin: Origin
    content: str | None = None

    async def identity(self) -> str:
        """Return the identity of the storage's bytes. Raises what reading them raises."""
        if self.content is None:
            label = content_label(self.spec.weight_shape, self.spec.format)
            self.content = await identity_of_chunks(self.origin.chunks, label)
        return self.content


async def identity_of_chunks(chunks: Chunks, label: str) -> str:
    """Return the identity of the bytes of ``chunks``, which are of CHUNK bytes but for the last."""
    digests = b""
    async with aclosing(chunks()) as reading:
        async for block in reading:
            with block:
                digests += await digests_beside(block)
    return joined(digests, label)


async def widened(spec: BlockSpec, packed: Chunks) -> AsyncGenerator[ByteBuffer]:
    """Yield the float32 numbers of a weight of ``spec``, from the bytes of its storage, in chunks of CHUNK bytes.

    Host memory holds the storage's bytes and the numbers of some rows.
    """
    words, filled = np.empty(spec.nbytes, np.uint8), 0
    async with aclosing(packed()) as reading:
        async for block in reading:
            with block:
                for start, piece in block.pieces():
                    first = filled + start
                    words[first : first + piece.nbytes] = np.frombuffer(piece, np.uint8)
                filled += block.nbytes
    form, shape, left, filled = BLOCKS[spec.format], spec.weight_shape, 4 * size_of(spec.weight_shape), 0
    chunk = ByteBuffer(min(left, CHUNK))
    try:
        for rows in form.parts(shape):
            await yield_to_loop()
            numbers = memoryview(np.ascontiguousarray(form.dense(words, shape, rows)).reshape(-1).view(np.uint8))
            while numbers.nbytes:
                some = numbers[: chunk.nbytes - filled]
                chunk.write(filled, some)
                numbers, filled = numbers[some.nbytes :], filled + some.nbytes
                if filled == chunk.nbytes and filled < left:
                    left -= filled
                    full, chunk, filled = chunk, ByteBuffer(min(left, CHUNK)), 0
                    yield full
    except BaseException:
        chunk.free()
        raise
    yield chunk
