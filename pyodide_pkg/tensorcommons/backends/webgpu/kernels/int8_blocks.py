"""Activations rounded to int8 in blocks of 32 numbers, for products of many rows (graph/int8_activations.py)."""

from __future__ import annotations

import struct

from ...base import Step
from ..accessors import Buffer
from ..shader import Dispatch
from .common import Adapter, Kernel, along_rows, spread


def _int8_blocks(step: Step, adapter: Adapter) -> list[Dispatch]:
    (x,) = step.inputs
    count = x.layout.size // 4
    buffers = (Buffer("x", x, "vectors"), Buffer("y", step.output, "vectors", written=True))
    return [Dispatch("matmul/int8_blocks", {}, struct.pack("<I12x", count), buffers, spread(count, 128))]


KERNELS = [Kernel("int8_blocks", _int8_blocks, cut=along_rows)]
