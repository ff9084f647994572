"""The format of a weight: how its numbers are stored on a device, and how a file's bytes become that.

A weight is a matrix or a table over one storage. In a dense format the storage has the matrix's own shape and dtype. In
a block format each block of consecutive numbers of a row is a few quants with a scale, as GGUF files store them; on a
device the same fields of all blocks lie together, the largest first, so that shaders read aligned words::

    file    scale quants | scale quants | ...           34 bytes a block for Q8_0
    device  quants quants ... | scale scale ... | 0     whole words of 4 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..backends.base import BlockSpec, Spec
from ..dtypes import as_dtype, int8
from ..errors import InternalError
from ..shapes import Shape, size_of

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
AT_ONCE = 1 << 20  # numbers that are widened at a time


class Format(Protocol):
    """The members of a format that loading, ops and reports use."""

    @property
    def name(self) -> str:
        """Name in reports and attributes."""

    def spec(self, shape: Shape) -> Spec:
        """Return the spec of the storage of a weight of ``shape``."""

    def misfit(self, shape: Shape) -> str:
        """Return why a weight of ``shape`` cannot have this format; empty if it can."""

    def dense(self, words: Any, shape: Shape, rows: slice = slice(None)) -> Floats:
        """Return ``rows`` of a weight of ``shape`` as float32, from the bytes of its storage."""


@dataclass(frozen=True)
class DenseFormat:
    """Numbers of one dtype, in the order of the file."""

    name: str

    def spec(self, shape: Shape) -> Spec:
        """See :class:`Format`."""
        return Spec(shape, as_dtype(self.name))

    def misfit(self, shape: Shape) -> str:
        """Return "": any shape fits."""
        return ""

    def dense(self, words: Any, shape: Shape, rows: slice = slice(None)) -> Floats:
        """See :class:`Format`."""
        dtype = as_dtype(self.name).numpy
        return np.asarray(np.asarray(words).reshape(-1).view(dtype).reshape(shape)[rows], np.float32)


@dataclass(frozen=True)
class BlockFormat:
    """Blocks of ``size`` numbers, each of ``nbytes`` bytes in a file.

    ``fields`` are (offset, bytes) of each field in a block of the file, in their order on the device. ``widen`` returns
    the numbers (blocks, size) of an array (blocks, bytes) of each field, ``narrow`` the fields of numbers; it is None
    for a format that is only read. ``integers``: its quants are int8, which devices can multiply as such; products with
    other formats are always "exact".
    """

    name: str
    size: int
    nbytes: int
    fields: tuple[tuple[int, int], ...]
    widen: Callable[[Sequence[Bytes]], Floats]
    narrow: Callable[[Floats], Sequence[Bytes]] | None = None
    integers: bool = True

    def spec(self, shape: Shape) -> BlockSpec:
        """See :class:`Format`: bytes, of which there are whole words."""
        return BlockSpec((-(-self.blocks(shape) * self.nbytes // 4) * 4,), int8, self.name, shape)

    def misfit(self, shape: Shape) -> str:
        """See :class:`Format`."""
        if len(shape) != 2:
            return f"{self.name} is a format of matrices, and the shape is {shape}"
        if shape[1] % self.size or not size_of(shape):
            return f"{self.name} has blocks of {self.size} numbers, and rows have {shape[1]}"
        return ""

    def blocks(self, shape: Shape) -> int:
        """Return the number of blocks of a weight of ``shape``."""
        return size_of(shape) // self.size

    def places(self, shape: Shape) -> list[tuple[int, int]]:
        """Return (first, end) of the bytes of each field in the storage of a weight of ``shape``."""
        sizes = [nbytes * self.blocks(shape) for _, nbytes in self.fields]
        return list(pairwise(accumulate(sizes, initial=0)))

    def split(self, file: Any) -> list[Bytes]:
        """Return each field of whole blocks of a file, (blocks, bytes)."""
        blocks = np.frombuffer(file, np.uint8).reshape(-1, self.nbytes)
        return [blocks[:, offset : offset + nbytes] for offset, nbytes in self.fields]

    def numbers(self, file: Any) -> Floats:
        """Return the numbers (blocks, size) of whole blocks of a file."""
        return self.widen(self.split(file))

    def pack(self, file: Any) -> bytes:
        """Return the storage's bytes of the blocks of a file."""
        packed = b"".join(field.tobytes() for field in self.split(file))
        return packed + bytes(-len(packed) % 4)

    def unpack(self, words: Any, shape: Shape) -> bytes:
        """Return the blocks of the file, bit for bit, from the storage's bytes."""
        blocks = np.empty((self.blocks(shape), self.nbytes), np.uint8)
        for (offset, nbytes), field in zip(self.fields, self._fields(words, shape, slice(None)), strict=True):
            blocks[:, offset : offset + nbytes] = field
        return blocks.tobytes()

    def _fields(self, words: Any, shape: Shape, rows: slice) -> list[Bytes]:
        """Return each field of ``rows``, (blocks, bytes)."""
        flat = np.asarray(words).reshape(-1).view(np.uint8)
        first, end, _ = rows.indices(shape[0])
        by_row = ((flat[at:stop].reshape(shape[0], -1), n) for (at, stop), (_, n) in self._placed(shape))
        return [field[first:end].reshape(-1, nbytes) for field, nbytes in by_row]

    def _placed(self, shape: Shape) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        return zip(self.places(shape), self.fields, strict=True)

    def dense(self, words: Any, shape: Shape, rows: slice = slice(None)) -> Floats:
        """See :class:`Format`."""
        return self.widen(self._fields(words, shape, rows)).reshape(-1, shape[1])

    def rows(self, words: Any, shape: Shape, ids: Any) -> Floats:
        """Return the rows ``ids`` (a vector) as float32."""
        flat = np.asarray(words).reshape(-1).view(np.uint8)
        by_row = ((flat[at:stop].reshape(shape[0], -1)[ids], n) for (at, stop), (_, n) in self._placed(shape))
        return self.widen([field.reshape(-1, nbytes) for field, nbytes in by_row]).reshape(-1, shape[1])

    def parts(self, shape: Shape) -> Iterator[slice]:
        """Yield ranges of rows of about :data:`AT_ONCE` numbers, to be widened one after another."""
        count = max(AT_ONCE // shape[1], 1)
        for first in range(0, shape[0], count):
            yield slice(first, min(first + count, shape[0]))

    def quantize(self, values: Any) -> bytes:
        """Return the blocks of a file for float32 numbers, as many as whole blocks have.

        Raises:
            ValueError: a number is not finite, or too large for a scale of float16.
        """
        numbers = np.ascontiguousarray(values, np.float32).reshape(-1, self.size)
        if not np.isfinite(numbers).all():
            odd = numbers[~np.isfinite(numbers)][0]
            raise ValueError(f"it has the value {odd}, and {self.name} stores finite numbers")
        if self.narrow is None:
            raise InternalError(f"numbers are to be quantised to {self.name}, which is only read")
        fields = self.narrow(numbers)
        blocks = np.empty((len(numbers), self.nbytes), np.uint8)
        for (offset, nbytes), field in zip(self.fields, fields, strict=True):
            blocks[:, offset : offset + nbytes] = field
        return blocks.tobytes()


class Packer:
    """Pack a tensor whose blocks arrive in chunks: the first field leaves at once, the others after the last chunk.

    Host memory holds a chunk, and of the whole tensor only the fields but the first: 1/17 of Q8_0.
    """

    def __init__(self, form: BlockFormat) -> None:
        self.form = form
        self._kept: list[list[bytes]] = [[] for _ in form.fields[1:]]
        self._size = 0

    def add(self, file: bytes) -> bytes:
        """Return the first field of whole blocks of the file, and keep the others."""
        first, *others = (field.tobytes() for field in self.form.split(file))
        for kept, field in zip(self._kept, others, strict=True):
            kept.append(field)
        self._size += len(file)
        return first

    def rest(self) -> bytes:
        """Return what follows the first field in the storage."""
        kept, self._kept = self._kept, []
        return b"".join(piece for field in kept for piece in field) + bytes(-self._size % 4)
