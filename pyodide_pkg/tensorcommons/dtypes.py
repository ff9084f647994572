"""The dtypes that tensors have, as data: their size in bytes and their name in NumPy and in WGSL.

A size always comes from here, so that no account counts "about four bytes" for everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import UnsupportedDtype


@dataclass(frozen=True)
class DType:
    """One dtype: ``name`` as users write it, ``itemsize`` in bytes, ``wgsl`` its shader type or ``None``."""

    name: str
    itemsize: int
    wgsl: str | None

    @property
    def numpy(self) -> np.dtype[Any]:
        """The same dtype in NumPy."""
        return np.dtype(self.name)

    def __repr__(self) -> str:
        return f"tensorcommons.dtypes.{self.name}"

    def __str__(self) -> str:
        return self.name


float32 = DType("float32", 4, "f32")
float16 = DType("float16", 2, None)
int64 = DType("int64", 8, None)
int32 = DType("int32", 4, "i32")
int8 = DType("int8", 1, None)
uint32 = DType("uint32", 4, "u32")
uint8 = DType("uint8", 1, None)
bool = DType("bool", 1, None)

ALL = {dtype.name: dtype for dtype in (float32, float16, int64, int32, int8, uint32, uint8, bool)}


def as_dtype(value: object) -> DType:
    """The ``DType`` that ``value`` (a DType, a name, a NumPy dtype or scalar type) stands for.

    Raises:
        UnsupportedDtype: nothing in :data:`ALL` matches.
    """
    if isinstance(value, DType):
        return value
    try:
        name = np.dtype(value).name  # type: ignore[call-overload]
    except TypeError:
        name = str(value)
    if name not in ALL:
        raise UnsupportedDtype(f"dtype {name!r} is not supported; supported: {', '.join(ALL)}")
    return ALL[name]


def default_dtype(array: np.ndarray[Any, Any]) -> DType:
    """The dtype that Python numbers and lists get: float64 becomes float32, as in PyTorch and JAX."""
    return float32 if array.dtype == np.float64 else as_dtype(array.dtype)
