"""The dtypes that tensors have, as data: their size in bytes and their name in NumPy and in WGSL.

A size always comes from here, so that no account counts "about four bytes" for everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .errors import ShapeMismatch, UnsupportedDtype, quoted


@dataclass(frozen=True)
class DType:
    """One dtype: ``name`` as users write it, ``itemsize`` in bytes, ``kind`` as the array API groups them.

    ``wgsl`` is the type that a shader computes it in, or ``None`` where it has none. float16 is stored as itself and
    computed as f32; a bool is stored as one byte, as NumPy's. What is smaller than a word of 4 bytes is packed.
    """

    name: str
    itemsize: int
    kind: Literal["float", "int", "uint", "bool"]
    wgsl: Literal["f32", "i32", "u32", "bool"] | None

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The same dtype in NumPy."""
        return np.dtype(self.name)

    @property
    def lanes(self) -> int:
        """Elements in one word of 4 bytes; 1 for what is as large or larger."""
        return max(4 // self.itemsize, 1)

    def __repr__(self) -> str:
        return f"tensorcommons.dtypes.{self.name}"

    def __str__(self) -> str:
        return self.name


float32 = DType("float32", 4, "float", "f32")
float16 = DType("float16", 2, "float", "f32")
int64 = DType("int64", 8, "int", None)
int32 = DType("int32", 4, "int", "i32")
int8 = DType("int8", 1, "int", None)
uint32 = DType("uint32", 4, "uint", "u32")
uint8 = DType("uint8", 1, "uint", None)
bool = DType("bool", 1, "bool", "bool")

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
        raise UnsupportedDtype(f"dtype {quoted(name)} is not supported; supported: {', '.join(ALL)}")
    return ALL[name]


def default_dtype(obj: object, array: np.ndarray[Any, Any]) -> DType:
    """The dtype that ``array``, made of ``obj``, gets if none is asked for.

    float64 becomes float32, and Python ints become int32, as in JAX: no device but the NumPy one computes in more. An
    array of int64 stays one.

    Raises:
        UnsupportedDtype: a Python int is outside int32, or the array's dtype has no counterpart.
    """
    if array.dtype == np.float64:
        return float32
    if isinstance(obj, (np.ndarray, np.generic)) or array.dtype.kind != "i":
        return as_dtype(array.dtype)
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UnsupportedDtype(f"{array.min()} to {array.max()} is outside int32: say which dtype, as in dtype='int64'")
    return int32


def result_type(kinds: Sequence[DType]) -> DType:
    """The dtype that operands of these dtypes are computed in, by the Python array API's table of promotions.

    float16 with float32 is float32, int32 with int64 is int64. What the table leaves open (a float with an int, a bool
    with a number), and what it answers with a dtype that does not exist here (int32 with uint32), is refused.

    Raises:
        UnsupportedDtype: there is no such dtype; cast one operand.
    """
    first, *others = dict.fromkeys(kinds)
    for other in others:
        if {first.kind, other.kind} == {"int", "uint"}:
            signed, unsigned = (first, other) if first.kind == "int" else (other, first)
            if signed.itemsize <= unsigned.itemsize:
                raise _no_promotion(first, other)
            first = signed
        elif first.kind != other.kind:
            raise _no_promotion(first, other)
        elif other.itemsize > first.itemsize:
            first = other
    return first


def _no_promotion(first: DType, other: DType) -> UnsupportedDtype:
    return UnsupportedDtype(
        f"{first} and {other} have no common dtype: cast one of them, for example with astype(x, {first.name!r})"
    )


def of_number(value: float) -> DType:
    """The dtype of a Python number by itself: float32, int32 or bool."""
    return {"bool": bool, "int": int32}.get(type(value).__name__, float32)


def converted(array: np.ndarray[Any, Any], dtype: object) -> np.ndarray[Any, Any]:
    """Convert ``array`` to a NumPy dtype, as every device does: a float becomes an int by dropping its fraction, what
    is outside the int's range becomes the end of the range, and NaN becomes 0.

    NumPy leaves such floats to the processor: x86 gives the smallest int, WebAssembly a number that depends on the
    dtype. Ints wrap, and floats too large for float16 become infinities.
    """
    target = np.dtype(dtype)  # type: ignore[call-overload]
    with np.errstate(over="ignore"):
        if array.dtype.kind != "f" or target.kind not in "iu":
            return array.astype(target, copy=False)
    wide, limits = array.astype(np.float64), np.iinfo(target)
    below, above = wide <= float(limits.min), wide >= float(limits.max)
    inside = np.where(below | above | np.isnan(wide), 0.0, wide).astype(target)
    low, high = target.type(limits.min), target.type(limits.max)
    return np.asarray(np.where(above, high, np.where(below, low, inside)))


def host_array(obj: object) -> np.ndarray[Any, Any]:
    """``obj`` (an array, a list, a number) as a NumPy array.

    Raises:
        ShapeMismatch: its rows differ in length.
    """
    try:
        return np.asarray(obj)
    except ValueError as error:
        raise ShapeMismatch(f"rows of different lengths make no array: {error}") from None
