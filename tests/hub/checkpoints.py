"""A safetensors writer for tests: it writes whatever it is told, also what no reader should take."""

from __future__ import annotations

import json
from typing import Any


def pack(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with ``header`` (an object, or raw bytes) that claims to be ``length`` bytes long."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: Any, end: Any, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    if shape is None:
        shape = [(end - begin) // 4]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
