"""Formats of weights by name.

``BLOCKS`` are the block formats, of which each backend stores those of its ``block_formats``. Weights in the others are
widened while they are loaded.
"""

from __future__ import annotations

from .format import BlockFormat, DenseFormat, Format, Packer
from .groups import GROUPS
from .k_quants import Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from .legacy_quants import IQ4_NL, Q4_0, Q4_1, Q5_0, Q5_1
from .q8_0 import Q8_0

DENSE = {"float32": DenseFormat("float32"), "float16": DenseFormat("float16")}
OF_GGUF = (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL)
BLOCKS = {block.name: block for block in (*OF_GGUF, *GROUPS.values())}
FORMATS: dict[str, Format] = {**DENSE, **BLOCKS}
# Formats by the values of from_pretrained(dtype=...).
BY_OPTION = {
    "float32": "float32",
    "fp32": "float32",
    "float16": "float16",
    "fp16": "float16",
    "int8": "q8_0",
    "q8": "q8_0",
    "int4": "q4_0",
    "q4": "q4_0",
}

__all__ = [
    "BLOCKS",
    "BY_OPTION",
    "DENSE",
    "FORMATS",
    "GROUPS",
    "OF_GGUF",
    "BlockFormat",
    "DenseFormat",
    "Format",
    "Packer",
]
