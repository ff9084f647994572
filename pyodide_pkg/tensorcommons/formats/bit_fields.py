"""Integers of a few bits, several to a byte, as the fields of a block have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .format import Bytes, Floats


def unpacked(field: Bytes, bits: int, width: int, shifts: Sequence[int] | None = None) -> Bytes:
    """Return unsigned integers of ``bits`` bits: (blocks, bytes) -> (blocks, bytes * integers per byte).

    Of ``width`` bytes that follow each other come first the integers at ``shifts[0]`` of all, then those at
    ``shifts[1]``, and so on; the default is from the lowest bits up.
    """
    places = np.array(range(0, 8, bits) if shifts is None else shifts, np.uint8).reshape(1, 1, -1, 1)
    apart = (field.reshape(len(field), -1, 1, width) >> places) & np.uint8((1 << bits) - 1)
    return apart.reshape(len(field), -1)


def float16(field: Bytes) -> Floats:
    """Return float16 numbers as float32: (blocks, 2 * numbers) -> (blocks, numbers)."""
    numbers: Floats = np.ascontiguousarray(field).view("<f2").astype(np.float32)
    return numbers
