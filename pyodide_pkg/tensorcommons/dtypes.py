"""The dtypes of tensors as data: their size in bytes, and their name in NumPy and in WGSL.

All sizes in bytes are computed from this table.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .errors import ShapeMismatch, UnsupportedDtype, quoted


@dataclass(frozen=True, eq=False)
class DType:
    """A dtype: ``name`` as users write it, ``itemsize`` in bytes, ``kind`` as the array API groups dtypes.

    It equals NumPy's dtype and scalar type of that name, and ``np.dtype()`` accepts it.

    ``wgsl`` is the type in which shaders compute it, or ``None`` if there is none. float16 is computed as f32; a bool
    is stored in one byte, as in NumPy. Elements smaller than 4 bytes are packed into words of 4 bytes.
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
    def dtype(self) -> np.dtype[Any]:
        """The same dtype in NumPy: ``np.dtype(x)`` reads this attribute."""
        return self.numpy

    @property
    def lanes(self) -> int:
        """Elements in a word of 4 bytes; 1 for dtypes of 4 or more bytes."""
        return max(4 // self.itemsize, 1)

    def __eq__(self, other: object) -> builtins.bool:
        if isinstance(other, DType):
            return self is other
        if isinstance(other, np.dtype) or (isinstance(other, type) and issubclass(other, np.generic)):
            return self.numpy == other
        return isinstance(other, str) and other == self.name

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.numpy)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return as_dtype, (self.name,)  # there is one object for each dtype

    def __repr__(self) -> str:
        return f"tensorcommons.dtypes.{self.name}"

    def __str__(self) -> str:
        return self.name


float64 = DType("float64", 8, "float", None)
float32 = DType("float32", 4, "float", "f32")
float16 = DType("float16", 2, "float", "f32")
int64 = DType("int64", 8, "int", None)
int32 = DType("int32", 4, "int", "i32")
int8 = DType("int8", 1, "int", None)
uint32 = DType("uint32", 4, "uint", "u32")
uint8 = DType("uint8", 1, "uint", None)
bool = DType("bool", 1, "bool", "bool")

ALL = {dtype.name: dtype for dtype in (float32, float16, float64, int64, int32, int8, uint32, uint8, bool)}
FLOATS = (float32, float16, float64)
INTS = (int32, uint32, int64, int8, uint8)
NUMBERS = FLOATS + INTS
_OF_PYTHON: dict[object, DType] = {builtins.bool: bool, int: int32, float: float32}
_OF_NUMPY = {dtype.numpy: dtype for dtype in ALL.values()}  # NumPy takes microseconds for the name of a dtype


def as_dtype(value: object) -> DType:
    """Return the ``DType`` for ``value``: a DType, a name, a NumPy dtype or scalar type, or Python's bool, int, float.

    The types of Python mean the default dtypes bool, int32 and float32.

    Raises:
        UnsupportedDtype: no dtype in :data:`ALL` matches.

    >>> tc.dtypes.as_dtype("float16")
    tensorcommons.dtypes.float16
    >>> tc.dtypes.as_dtype(np.float32).itemsize
    4
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in ALL:  # np.dtype(value).name takes 30 times as long
        return ALL[value]
    if isinstance(value, np.dtype) and value in _OF_NUMPY:
        return _OF_NUMPY[value]
    if isinstance(value, type) and value in _OF_PYTHON:
        return _OF_PYTHON[value]
    try:
        name = np.dtype(value).name if value is not None else "None"  # type: ignore[call-overload]
    except (TypeError, ValueError):
        name = str(value)
    if name not in ALL:
        raise UnsupportedDtype(f"dtype {quoted(name)} is not supported; supported: {', '.join(ALL)}")
    return ALL[name]


def default_dtype(obj: object, array: np.ndarray[Any, Any]) -> DType:
    """Return the default dtype of a tensor made from ``array``, the NumPy array of ``obj``.

    float64 becomes float32 and Python ints become int32, as in JAX: only the CPU device computes in wider types. An
    int64 array keeps its dtype, and an empty list is float32.

    Raises:
        UnsupportedDtype: a Python int is outside int32, or the array's dtype has no counterpart.
    """
    if array.dtype == np.float64:
        return float32
    if isinstance(obj, (np.ndarray, np.generic)) or array.dtype.kind != "i":
        return as_dtype(array.dtype)
    limits = np.iinfo(np.int32)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UnsupportedDtype(f"{array.min()} to {array.max()} is outside int32; pass a dtype, such as dtype='int64'")
    return int32


def result_type(kinds: Sequence[DType]) -> DType:
    """Return the common dtype of operands by the type promotion table of the Python array API.

    float16 with float32 is float32, int32 with int64 or uint32 is int64. Combinations that the table leaves undefined
    (a float with an int, a bool with a number) or whose result does not exist here (int8 with uint8) are errors.

    Raises:
        UnsupportedDtype: the dtypes have no common dtype; cast one operand.

    >>> tc.dtypes.result_type([tc.dtypes.float16, tc.dtypes.float32])
    tensorcommons.dtypes.float32
    """
    if len({kind.kind for kind in kinds} - {"uint"}) > 1 or {"float", "uint"} <= {kind.kind for kind in kinds}:
        first = kinds[0]
        raise _no_promotion(first, next(kind for kind in kinds if kind.kind != first.kind))
    widest: dict[str, DType] = {}
    for kind in kinds:
        if kind.kind not in widest or kind.itemsize > widest[kind.kind].itemsize:
            widest[kind.kind] = kind
    if len(widest) == 1:
        return next(iter(widest.values()))
    signed, unsigned = widest.get("int"), widest["uint"]
    if signed is None:
        raise _no_promotion(unsigned, bool)
    if signed.itemsize <= unsigned.itemsize and unsigned is not uint32:
        raise _no_promotion(signed, unsigned)
    return signed if signed.itemsize > unsigned.itemsize else int64


def _no_promotion(first: DType, other: DType) -> UnsupportedDtype:
    return UnsupportedDtype(
        f"{first} and {other} have no common dtype: cast one of them, for example with astype(x, {first.name!r})"
    )


def of_number(value: float) -> DType:
    """Return the dtype of a Python number: float32, int32 or bool."""
    return {"bool": bool, "int": int32}.get(type(value).__name__, float32)


def converted(array: np.ndarray[Any, Any], dtype: object) -> np.ndarray[Any, Any]:
    """Convert ``array`` to a NumPy dtype with the same result on every device.

    A float is truncated to an int, values outside the int's range are clamped to it, and NaN becomes 0. (The result
    of NumPy's own conversion depends on the processor.) Ints wrap, and floats too large for float16 become infinite.
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
    """Convert ``obj`` (an array, a list, a number) to a NumPy array.

    Raises:
        ShapeMismatch: its rows differ in length.
    """
    try:
        return np.asarray(obj)
    except ValueError as error:
        raise ShapeMismatch(f"the rows of an array must have one length: {error}") from None
