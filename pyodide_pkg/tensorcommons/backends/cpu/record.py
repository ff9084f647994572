"""Records of WebAssembly kernels (wasm/kernels.c): a kernel, its arguments, and addresses that each run fills in.

Kernels read their operands in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import numpy as np

from ...bridge.wasm import instantiate
from ...errors import DeviceUnavailable
from ...shapes import Layout, size_of
from ..base import Operand, Step

# as in kernels.c
PRODUCT, ATTENTION, NORM, TAKE, EACH, SOFTMAX, REDUCE, ROTARY, APPEND = range(9)
CONVOLUTION, QUANTIZED, QUANTIZED_TAKE, PACK, HALF_PRODUCT = range(9, 14)
PAGED_APPEND, PAGED_ROWS, PAGED_MASK, PAGED_ATTENTION = range(14, 18)
MODULES = {"relaxed": "WebAssembly with relaxed SIMD", "plain": "WebAssembly with SIMD"}
NUMBERS = 64  # floats of the scratch memory that kernels use for constants
# Multiply-adds of a record, or other work of their time, about 12 ms: a run can be cancelled between two records. A row
# of a softmax, norm, argmax or logsumexp is not divided.
MOST = 2**28
HEADER = 2  # words of a record before its arguments: the kernel, and the words of the record


@dataclass(frozen=True)
class Pointer:
    """The address of a byte of a place, or without one of the scratch memory of the plan."""

    base: tuple[str, int]
    offset: int = 0

    def plus(self, elements: int, itemsize: int = 4) -> Pointer:
        """Return the address of an element further on."""
        return replace(self, offset=self.offset + itemsize * elements)


SCRATCH = Pointer(("scratch", 0))
Word: TypeAlias = "int | Pointer"


@dataclass(frozen=True)
class Record:
    """A call of a kernel, with the operations it takes and the floats of scratch memory beside its numbers."""

    words: tuple[Word, ...]
    work: int
    scratch: int = 0

    @property
    def fits(self) -> bool:
        """True if all words have at most 32 bits; the axes of a broadcast operand may be longer."""
        return all(isinstance(word, Pointer) or -(2**31) <= word < 2**31 for word in self.words)


Kernel: TypeAlias = "Callable[[Step], Iterator[Record] | None]"  # the records of a step, None where it is left to NumPy


@cache
def loaded() -> tuple[Any, str]:
    """Return the kernels and what they are in words, or None and why there are none. They are loaded once."""
    files = [resources.files(__package__).joinpath("wasm", f"{name}.wasm") for name in MODULES]
    try:
        number, exports = instantiate([file.read_bytes() for file in files if file.is_file()])
    except DeviceUnavailable as error:
        return None, error.reason
    return exports, list(MODULES.values())[number]


def has_rows(layout: Layout) -> bool:
    """Return whether the elements of the last axis are contiguous."""
    return layout.strides[-1] == 1 or layout.shape[-1] <= 1


def are_float32(*operands: Operand) -> bool:
    """Return whether all operands are float32."""
    return all(each.dtype.name == "float32" for each in operands)


def address(operand: Operand, layout: Layout | None = None) -> Pointer:
    """Return the address of the first element, of another layout of the operand if one is given."""
    place, itemsize = operand.place, operand.dtype.itemsize
    return Pointer((place.kind, place.index), place.offset + (layout or operand.layout).offset * itemsize)


def float_bits(number: Any) -> int:
    """Return the bits of a float32 as an integer."""
    with np.errstate(all="ignore"):
        return int(np.float64(number).astype(np.float32).view(np.int32))


def pieces(size: int, most: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of pieces of about ``most``, multiples of ``unit`` but for the last."""
    length = size if 0 < size <= most else max(most // unit * unit, unit)
    for start in range(0, size, length):
        yield start, min(length, size - start)


def rows_of(layout: Layout) -> tuple[int, int] | None:
    """Return the number of rows and the elements from one to the next; None unless all leading axes are one."""
    rows = layout.reshape((size_of(layout.shape[:-1]), layout.shape[-1])) if has_rows(layout) else None
    return None if rows is None else (rows.shape[0], rows.strides[0])


def by_rows(kernel: int, count: int, work: int, words: tuple[Word, ...], scratch: int = 0) -> Iterator[Record]:
    """Compute ``count`` rows, or tiles, of ``work`` operations each."""
    for first, rows in pieces(count, MOST // max(work, 1), 1):
        yield Record((kernel, HEADER + 2 + len(words), first, first + rows, *words), rows * work, scratch)
