"""Activations of the precision "fast": int8 in blocks of 32 numbers of a row, each with a float32 scale.

The scale of a block is max|x| / 127, and its quants are x / scale, rounded to the nearest integer, halves to even. A
block whose scale is below the smallest normal float32 is zeros, and one with an infinity or a NaN is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SIZE = 32  # numbers of a block
SMALLEST = np.finfo(np.float32).tiny


def int8_blocks(x: Any) -> Any:
    """Return float32 ``x`` (..., depth), of whole blocks, as the numbers that its quants and scales stand for."""
    blocks = x.reshape(*x.shape[:-1], -1, SIZE)
    scales = np.abs(blocks).max(axis=-1, keepdims=True, initial=0) / np.float32(127)
    with np.errstate(all="ignore"):
        inverse = np.where(scales >= SMALLEST, np.float32(1) / scales, np.float32(0))
        numbers = np.rint(blocks * inverse) * scales
    return numbers.reshape(x.shape)
