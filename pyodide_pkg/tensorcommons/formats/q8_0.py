"""GGUF's Q8_0: blocks of 32 numbers, each an int8 times the float16 scale of its block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .format import BlockFormat, Bytes, Floats


def _widen(fields: Sequence[Bytes]) -> Floats:
    quants, scales = fields
    numbers: Floats = quants.view(np.int8).astype(np.float32)
    numbers *= np.ascontiguousarray(scales).view(np.float16).astype(np.float32)
    return numbers


def _narrow(numbers: Floats) -> Sequence[Bytes]:
    """Quantize as llama.cpp does: the largest number of a block becomes 127 or -127, halves round away from zero."""
    scale = np.abs(numbers).max(axis=1, keepdims=True) / np.float32(127)
    if (scale >= 65520).any():  # rounds to infinity
        raise ValueError(f"it has the value {_largest(numbers)}, and the scale of q8_0, a float16, would be infinite")
    with np.errstate(all="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    inverse[~np.isfinite(inverse)] = 0  # of a scale that float16 rounds to 0
    scaled = numbers * inverse
    whole = np.floor(np.abs(scaled))
    rounded = np.sign(scaled) * (whole + np.floor(2 * (np.abs(scaled) - whole)))
    return rounded.astype(np.int8).view(np.uint8), scale.astype(np.float16).view(np.uint8)


def _largest(numbers: Floats) -> np.float32:
    largest: np.float32 = numbers.ravel()[np.abs(numbers).argmax()]
    return largest


Q8_0 = BlockFormat("q8_0", 32, 34, ((2, 32), (0, 2)), _widen, _narrow)
