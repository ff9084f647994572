"""The identity of bytes, and the origin that gives them again.

A weight's identity is the SHA-256 of its bytes with dtype and shape, so two models that carry the same weight under
any two names hold the same storage. Bytes that nothing compares (activations) get an identity of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from ..bridge import byte_buffer
from ..bridge.byte_buffer import ByteBuffer, Data
from ..bridge.digest import identity_of
from ..dtypes import DType

ANONYMOUS = "anonymous-"
_serial = itertools.count()


@dataclass(frozen=True)
class Origin:
    """Source of a storage's bytes: ``chunks`` gives them again, checked, as blocks that the caller frees.

    A local origin (``is_local``) needs no network, which may be gone.
    """

    chunks: Callable[[], AsyncGenerator[ByteBuffer]]
    is_local: bool

    @classmethod
    def of_bytes(cls, data: bytes) -> Origin:
        """Make the origin of bytes that are small enough to be kept on the host as well."""

        async def chunks() -> AsyncGenerator[ByteBuffer]:
            for block in blocks_of(memoryview(data)):
                yield block

        return cls(chunks, is_local=True)


def content_identity(data: Data, shape: Sequence[int], dtype: DType) -> str:
    """Compute the identity of a tensor: a hash over dtype, shape and bytes (``bridge/digest.py``)."""
    return identity_of(data, content_label(shape, dtype.name))


def content_label(shape: Sequence[int], form: str) -> str:
    """Return the text that a tensor's identity covers beside its bytes: its dtype or block format, and its shape."""
    return f"{form}{tuple(shape)}"


def anonymous_identity() -> str:
    """Return an identity that nothing else has, for bytes that are not compared."""
    return f"{ANONYMOUS}{next(_serial)}"


def blocks_of(data: memoryview) -> Iterator[ByteBuffer]:
    """Copy ``data`` into blocks."""
    flat = data.cast("B")
    for start in range(0, flat.nbytes, byte_buffer.CHUNK):
        yield from ByteBuffer.of(flat[start : start + byte_buffer.CHUNK]).packed()
