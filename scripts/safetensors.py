"""Writes safetensors: an 8-byte little-endian header length, a JSON header, the tensors' bytes one after another.

Format: https://github.com/huggingface/safetensors#format. Equal input gives equal bytes: tensors in the order given,
header keys in a fixed order, the header padded with spaces to a multiple of 8.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class F32Tensor:
    """A float32 tensor: its shape, and its values as little-endian bytes in C order."""

    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != 4 * math.prod(self.shape):
            raise ValueError(f"{len(self.data)} bytes do not hold a float32 tensor of shape {self.shape}")


def encode(tensors: Mapping[str, F32Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values())
