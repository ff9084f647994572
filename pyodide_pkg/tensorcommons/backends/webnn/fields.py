"""The tensors of a quantised weight: WebNN has no operation on bits, and is slow on parts of a tensor of bytes.

So each field of its blocks has a tensor under a handle of its own, beside the storage's handle, which is that of the
first field.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ...shapes import Shape, size_of
from ..base import BlockSpec
from .splitting import Kind

ITEMSIZE = {"int8": 1, "float16": 2}
# By format: the numbers of a block, and dtype and elements a block of each field, in their order in the storage.
BLOCKS: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {"q8_0": (32, (("int8", 32), ("float16", 1)))}


def field_tensors(form: str, shape: Shape) -> list[Kind]:
    """Return dtype and shape of the tensor of each field of a weight of ``shape``."""
    size, fields = BLOCKS[form]
    return [(dtype, (shape[0], shape[1] // size * count)) for dtype, count in fields]


class Fields:
    """The tensors of all quantised weights of a device, by the handles of their storages."""

    def __init__(self) -> None:
        self._numbers = itertools.count(-1, -1)  # handles of devices are positive
        self._found: dict[int, list[tuple[int, int]]] = {}  # by storage: handle and bytes of each field

    def make(self, handle: int, spec: BlockSpec) -> Iterator[tuple[int, Kind]]:
        """Yield handle and kind of each tensor to make for a storage."""
        found = self._found[handle] = []
        for dtype, shape in field_tensors(spec.format, spec.weight_shape):
            number = next(self._numbers) if found else handle
            found.append((number, size_of(shape) * ITEMSIZE[dtype]))
            yield number, (dtype, shape)

    def handles(self, handle: int) -> list[int]:
        """Return the handles of all tensors of a storage."""
        return [number for number, _ in self._found.get(handle, ())] or [handle]

    def drop(self, handle: int) -> list[int]:
        """Forget a storage, and return the handles of its tensors."""
        handles = self.handles(handle)
        self._found.pop(handle, None)
        return handles

    def clear(self) -> None:
        """Forget all storages."""
        self._found.clear()

    def ranges(self, handle: int, offset: int, nbytes: int) -> list[tuple[int, int, int, int]]:
        """Cut a range of a storage's bytes: tensor, offset in it, and (start, stop) within the range.

        The bytes that fill up the last word have no tensor.
        """
        if handle not in self._found:
            return [(handle, offset, 0, nbytes)]
        found, begin = list[tuple[int, int, int, int]](), 0
        for number, size in self._found[handle]:
            first, end = max(offset, begin), min(offset + nbytes, begin + size)
            if first < end:
                found.append((number, first - begin, first - offset, end - offset))
            begin += size
        return found

    def beside(self, handles: Sequence[int]) -> list[int]:
        """Return the handles of the tensors of ``handles``, in their order, except for those of first fields."""
        if not self._found:  # a replayed run has a hundred handles
            return []
        return [number for handle in handles for number in self.handles(handle)[1:]]
