"""GGUF's Q2_K to Q6_K: blocks of 256 numbers in groups, whose scales are quantised, too.

Q2_K, Q3_K and Q6_K have 16 groups of 16 numbers, Q4_K and Q5_K 8 groups of 32. ``d`` and ``dmin`` are float16::

    Q2_K              (d * scale) * quant - dmin * minimum       scales and minima of 4 bits
    Q3_K, Q6_K        (d * scale) * quant                        signed scales of 6 and 8 bits, signed quants
    Q4_K, Q5_K        (d * scale) * quant - dmin * minimum       scales and minima of 6 bits

The layouts are those of ggml-common.h of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .bit_fields import float16, unpacked
from .format import BlockFormat, Bytes, Floats

SIZE = 256  # numbers of a block
FOUR, SIX = np.uint8(0x0F), np.uint8(0x3F)


def _groups(quants: Any, scales: Floats, minima: Floats | None = None) -> Floats:
    """Return ``scale * quant - minimum`` for quants (blocks, 256) and scales and minima (blocks, groups)."""
    numbers: Floats = quants.reshape(*scales.shape, -1).astype(np.float32)
    numbers *= scales[:, :, None]
    if minima is not None:
        numbers -= minima[:, :, None]
    return numbers.reshape(len(numbers), SIZE)


def _scales_and_minima(field: Bytes) -> tuple[Bytes, Bytes]:
    """Return 8 scales and 8 minima of 6 bits: (blocks, 12) -> (blocks, 8) each.

    The first 4 of both are the low bits of bytes 0 to 7, whose upper 2 bits complete the last 4 in bytes 8 to 11.
    """
    scales, minima, last = field[:, :4], field[:, 4:8], field[:, 8:]
    upper = (scales >> np.uint8(6)) << np.uint8(4), (minima >> np.uint8(6)) << np.uint8(4)
    return (
        np.concatenate([scales & SIX, (last & FOUR) | upper[0]], axis=1),
        np.concatenate([minima & SIX, (last >> np.uint8(4)) | upper[1]], axis=1),
    )


def _q2(fields: Sequence[Bytes]) -> Floats:
    quants, packed, d, dmin = fields
    scales, minima = (packed & FOUR).astype(np.float32), (packed >> np.uint8(4)).astype(np.float32)
    return _groups(unpacked(quants, 2, 32), float16(d) * scales, float16(dmin) * minima)


def _q3(fields: Sequence[Bytes]) -> Floats:
    quants, absent, packed, d = fields
    scales = unpacked(packed[:, :8], 4, 8) | unpacked(packed[:, 8:], 2, 4) << np.uint8(4)
    # 4 is subtracted where the bit is 0.
    numbers = (unpacked(quants, 2, 32) | unpacked(absent, 1, 32) << np.uint8(2)).view(np.int8) - np.int8(4)
    return _groups(numbers, float16(d) * (scales.view(np.int8) - np.int8(32)).astype(np.float32))


def _with_minima(quants: Bytes, packed: Bytes, d: Bytes, dmin: Bytes) -> Floats:
    scales, minima = _scales_and_minima(packed)
    return _groups(quants, float16(d) * scales.astype(np.float32), float16(dmin) * minima.astype(np.float32))


def _q4(fields: Sequence[Bytes]) -> Floats:
    quants, *rest = fields
    return _with_minima(unpacked(quants, 4, 32), *rest)


def _q5(fields: Sequence[Bytes]) -> Floats:
    quants, fifths, *rest = fields
    return _with_minima(unpacked(quants, 4, 32) | unpacked(fifths, 1, 32) << np.uint8(4), *rest)


def _q6(fields: Sequence[Bytes]) -> Floats:
    low, high, scales, d = fields
    quants = unpacked(low, 4, 64) | unpacked(high, 2, 32) << np.uint8(4)
    signed = np.ascontiguousarray(scales).view(np.int8).astype(np.float32)
    return _groups(quants.view(np.int8) - np.int8(32), float16(d) * signed)


Q2_K = BlockFormat("q2_k", SIZE, 84, ((16, 64), (0, 16), (80, 2), (82, 2)), _q2)
Q3_K = BlockFormat("q3_k", SIZE, 110, ((32, 64), (0, 32), (96, 12), (108, 2)), _q3)
Q4_K = BlockFormat("q4_k", SIZE, 144, ((16, 128), (4, 12), (0, 2), (2, 2)), _q4)
Q5_K = BlockFormat("q5_k", SIZE, 176, ((48, 128), (16, 32), (4, 12), (0, 2), (2, 2)), _q5)
Q6_K = BlockFormat("q6_k", SIZE, 210, ((0, 128), (128, 64), (192, 16), (208, 2)), _q6)
