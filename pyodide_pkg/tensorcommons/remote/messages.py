"""The form of messages between a page and Python: JSON text, and the buffers of its arrays beside it.

In place of an array or of bytes the text has ``{MARK: index, "dtype", "dims"}``, where the index is that of the buffer;
``dtype`` is null for bytes, and "file" for a Blob, which is beside the text itself. A number that JSON lacks is
``{MARK: "NaN"}`` (or "Infinity", "-Infinity").
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import TensorCommonsError, quoted

MARK = "__tensorcommons__"
#: The dtypes of arrays in messages: those of JavaScript's typed arrays, with "bool" as bytes.
DTYPES = (
    *("float32", "float64", "float16", "int8", "uint8", "int16", "uint16"),
    *("int32", "uint32", "int64", "uint64", "bool"),
)
NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
Buffers: TypeAlias = "list[memoryview]"


def pack(value: Any) -> tuple[str, Buffers]:
    """Convert dicts with string keys, sequences, numbers, texts, bytes and NumPy arrays to a message.

    Raises TensorCommonsError for any other value.
    """
    buffers: Buffers = []

    def add(data: memoryview, dtype: str | None, dims: Sequence[int]) -> dict[str, Any]:
        buffers.append(data)
        return {MARK: len(buffers) - 1, "dtype": dtype, "dims": list(dims)}

    def other(each: Any) -> Any:
        if isinstance(each, (bytes, bytearray, memoryview)):
            data = memoryview(each).cast("B")
            return add(data, None, [data.nbytes])
        if isinstance(each, np.generic):
            return each.item()
        if isinstance(each, np.ndarray):
            if each.dtype.name not in DTYPES:
                raise TensorCommonsError(f"a result is an array of {each.dtype}; allowed are {', '.join(DTYPES)}")
            return add(memoryview(np.ascontiguousarray(each).reshape(-1).view(np.uint8)), each.dtype.name, each.shape)
        if isinstance(each, Mapping):
            return dict(each)
        raise TensorCommonsError(
            f"a result is {quoted(each)}, which has no form in JavaScript: return dicts, lists, numbers, texts, bytes "
            "or arrays"
        )

    try:
        return json.dumps(value, default=other, allow_nan=False), buffers
    except ValueError:  # a number that is not finite
        buffers.clear()
        return json.dumps(_finite(value), default=lambda each: _finite(other(each)), allow_nan=False), buffers


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return {MARK: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value


def unpack(text: str, buffers: Sequence[Any] = ()) -> Any:
    """Convert a message back: arrays are NumPy arrays over their buffers, bytes are ``bytes``, files are Blobs.

    Raises TensorCommonsError for an array whose dtype, size and dims do not match.
    """

    def found(entry: dict[str, Any]) -> Any:
        if MARK not in entry:
            return entry
        index, dtype, dims = entry[MARK], entry.get("dtype"), entry.get("dims", ())
        if isinstance(index, str):
            return NUMBERS[index]
        if dtype == "file":
            return buffers[index]
        if dtype is None:
            return bytes(buffers[index])
        data = np.frombuffer(buffers[index], np.uint8)
        if dtype not in DTYPES or data.nbytes != math.prod(dims) * np.dtype(dtype).itemsize:
            raise TensorCommonsError(
                f"an array of {quoted(dtype)} with dims {quoted(dims)} does not match its {data.nbytes:,} bytes; "
                f"its type must be one of {', '.join(DTYPES)}"
            )
        return data.view(dtype).reshape(dims)

    return json.loads(text, object_hook=found)
