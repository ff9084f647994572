"""Groups of 32, 64 or 128 numbers of a row with one scale, for checkpoints of GPTQ, AWQ, compressed-tensors and FP8.

Those store the quants, scales and zero points of a matrix as tensors of their own. Blocks have the same numbers, in
whole bytes::

    int4_g32      scale * (quant - zero)    16 bytes of quants, 0 to 15; a scale; an int8 zero, 0 to 16
    int8_g32      scale * (quant - zero)    32 int8 quants; a scale; an int8 zero
    fp8_g32       scale * number            32 numbers of 8 bits (e4m3, of which 0x7F and 0xFF are NaN); a scale

The quants of 4 bits are ordered as those of Q4_0, for each 32 of a group: the low halves of 16 bytes are the first 16.
The scale is a float16, a bfloat16 if the name ends in "_bf16", and a float32 if in "_f32": as the checkpoint has it,
since neither of the small ones has all values of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .bit_fields import float16, unpacked
from .format import BlockFormat, Bytes, Floats

SIZES = (128, 64, 32)
SCALES = {"float16": ("", 2), "bfloat16": ("_bf16", 2), "float32": ("_f32", 4)}  # ends of names, and bytes


def _numbers_of_e4m3() -> Any:
    """Return the number of each byte: 1 bit of sign, 4 of exponent (bias 7), 3 of mantissa; subnormals below 2^-6."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    size = np.where(exponent > 0, 8 + mantissa, mantissa) * 2.0 ** (np.maximum(exponent, 1) - 10)
    size[bits & 127 == 127] = np.nan
    return np.where(bits < 128, size, -size).astype(np.float32)


E4M3: Floats = _numbers_of_e4m3()


def bfloat16(field: Bytes) -> Floats:
    """Return bfloat16 numbers as float32: (blocks, 2 * numbers) -> (blocks, numbers)."""
    wide = np.ascontiguousarray(field).view("<u2").astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


def _float32(field: Bytes) -> Floats:
    numbers: Floats = np.ascontiguousarray(field).view("<f4")
    return numbers


READ: dict[str, Callable[[Bytes], Floats]] = {"float16": float16, "bfloat16": bfloat16, "float32": _float32}


def _signed(field: Bytes) -> Floats:
    return np.ascontiguousarray(field).view(np.int8).astype(np.float32)


def _four(field: Bytes) -> Floats:
    return unpacked(field, 4, 16).astype(np.float32)


def _group(kind: str, size: int, scale: str) -> BlockFormat:
    end, width = SCALES[scale]
    of_scale, of_quant = READ[scale], _four if kind == "int4" else _signed

    def affine(fields: Sequence[Bytes]) -> Floats:
        quants, scales, zeros = fields
        return of_scale(scales) * (of_quant(quants) - _signed(zeros))

    def scaled(fields: Sequence[Bytes]) -> Floats:
        quants, scales = fields
        return of_scale(scales) * E4M3[quants]

    sizes = [size // 2 if kind == "int4" else size, width, *([] if kind == "fp8" else [1])]
    places = [(sum(sizes[:number]), nbytes) for number, nbytes in enumerate(sizes)]
    name, widen = f"{kind}_g{size}{end}", scaled if kind == "fp8" else affine
    return BlockFormat(name, size, sum(sizes), tuple(places), widen, integers=kind != "fp8")


GROUPS = {
    (kind, size, scale): _group(kind, size, scale)
    for kind in ("int4", "int8", "fp8")
    for size in SIZES
    for scale in SCALES
}
"""The formats by kind of quants, numbers of a group, and dtype of the scale."""
