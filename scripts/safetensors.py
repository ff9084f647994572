"""Writer of safetensors: an 8-byte little-endian header length, a JSON header, and the bytes of the tensors.

Format: https://github.com/huggingface/safetensors#format. Equal input gives equal bytes: tensors in the order given,
header keys in a fixed order, the header padded with spaces to a multiple of 8.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class F32Tensor:
    """A float32 tensor: its shape, and its values as little-endian bytes in C order."""

    shape: tuple[int, ...]
    data: bytes

    DTYPE: ClassVar[str] = "F32"
    ITEM: ClassVar[int] = 4  # bytes

    def __post_init__(self) -> None:
        if len(self.data) != self.ITEM * math.prod(self.shape):
            raise ValueError(f"{len(self.data)} bytes do not hold a tensor of {self.DTYPE} and shape {self.shape}")


@dataclass(frozen=True)
class F16Tensor(F32Tensor):
    """A float16 tensor, like :class:`F32Tensor`."""

    DTYPE: ClassVar[str] = "F16"
    ITEM: ClassVar[int] = 2


def encode(tensors: Mapping[str, F32Tensor]) -> bytes:
    """Encode a safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.DTYPE, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.data for tensor in tensors.values())
