"""A safetensors writer for tests, which also writes invalid files."""

from __future__ import annotations

import json
from typing import Any


def pack(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file with ``header`` (an object, or raw bytes), whose length field has the value ``length``."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: Any, end: Any, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    if shape is None:
        shape = [(end - begin) // 4]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
