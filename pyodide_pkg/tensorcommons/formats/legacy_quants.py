"""GGUF's Q4_0, Q4_1, Q5_0, Q5_1 and IQ4_NL: blocks of 32 numbers of 4 or 5 bits with a float16 scale.

The low halves of the 16 bytes of quants are the numbers 0 to 15, the high halves 16 to 31. The fifth bits are together
in 4 bytes. The formats "_0" are symmetric, those "_1" have a float16 minimum as well::

    Q4_0, Q5_0   scale * (quant - 8), scale * (quant - 16)
    Q4_1, Q5_1   scale * quant + minimum
    IQ4_NL       scale * TABLE[quant]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .bit_fields import float16, unpacked
from .format import BlockFormat, Bytes, Floats

# The levels of IQ4_NL, closer to each other around 0 (ggml-common.h of llama.cpp).
TABLE = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)

Widen = Callable[[Sequence[Bytes]], Floats]


def _four(quants: Bytes) -> Bytes:
    return unpacked(quants, 4, 16)


def _five(quants: Bytes, fifths: Bytes) -> Bytes:
    """Return the quants (blocks, 32), whose fifth bits are those of ``fifths`` (blocks, 4) from the lowest up."""
    return _four(quants) | unpacked(fifths, 1, 1) << np.uint8(4)


def _symmetric(quants: Bytes, scale: Bytes, zero: int) -> Floats:
    return float16(scale) * (quants.view(np.int8) - np.int8(zero)).astype(np.float32)


def _affine(quants: Bytes, scale: Bytes, minimum: Bytes) -> Floats:
    return float16(scale) * quants.astype(np.float32) + float16(minimum)


def _narrow_to_q4_0(numbers: Floats) -> Sequence[Bytes]:
    """Quantise as `gguf` does: the number of largest magnitude becomes -8, others are rounded in float64."""
    extreme = np.take_along_axis(numbers, np.abs(numbers).argmax(axis=1)[:, None], axis=1)
    scale = extreme / np.float32(-8)
    if (np.abs(scale) >= 65520).any():  # rounds to infinity
        largest = extreme.ravel()[np.abs(extreme).argmax()]
        raise ValueError(f"it has the value {largest}, and the scale of q4_0, a float16, would be infinite")
    with np.errstate(all="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    inverse[~np.isfinite(inverse)] = 0  # of a scale that float16 rounds to 0
    scaled = (numbers.astype(np.float64) * inverse + 8.5).astype(np.float32)
    quants = np.minimum(scaled.astype(np.uint8), np.uint8(15))
    return quants[:, :16] | quants[:, 16:] << np.uint8(4), scale.astype(np.float16).view(np.uint8)


def _block(
    name: str,
    fields: Sequence[tuple[int, int]],
    widen: Widen,
    narrow: Callable[[Floats], Sequence[Bytes]] | None = None,
) -> BlockFormat:
    return BlockFormat(name, 32, sum(nbytes for _, nbytes in fields), tuple(fields), widen, narrow)


Q4_0 = _block("q4_0", [(2, 16), (0, 2)], lambda f: _symmetric(_four(f[0]), f[1], 8), _narrow_to_q4_0)
Q4_1 = _block("q4_1", [(4, 16), (0, 2), (2, 2)], lambda f: _affine(_four(f[0]), f[1], f[2]))
Q5_0 = _block("q5_0", [(6, 16), (2, 4), (0, 2)], lambda f: _symmetric(_five(f[0], f[1]), f[2], 16))
Q5_1 = _block("q5_1", [(8, 16), (4, 4), (0, 2), (2, 2)], lambda f: _affine(_five(f[0], f[1]), f[2], f[3]))
IQ4_NL = _block("iq4_nl", [(2, 16), (0, 2)], lambda f: float16(f[1]) * TABLE[_four(f[0])])
