"""Formats of weights by name. A further format is a file here, and a line in each device's table of formats."""

from __future__ import annotations

from .format import BlockFormat, DenseFormat, Format, Packer
from .q8_0 import Q8_0

DENSE = {"float32": DenseFormat("float32"), "float16": DenseFormat("float16")}
BLOCKS = {block.name: block for block in (Q8_0,)}
FORMATS: dict[str, Format] = {**DENSE, **BLOCKS}
# Formats by the values of from_pretrained(dtype=...).
BY_OPTION = {
    "float32": "float32",
    "fp32": "float32",
    "float16": "float16",
    "fp16": "float16",
    "int8": "q8_0",
    "q8": "q8_0",
}

__all__ = ["BLOCKS", "BY_OPTION", "DENSE", "FORMATS", "BlockFormat", "DenseFormat", "Format", "Packer"]
