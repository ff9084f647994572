"""The array API's functions of dtypes: promotion, kinds and limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import dtypes
from ..dtypes import DType
from ..errors import TensorCommonsError, UnsupportedDtype, quoted
from ..tensor import Tensor

KINDS = {
    "bool": ("bool",),
    "signed integer": ("int",),
    "unsigned integer": ("uint",),
    "integral": ("int", "uint"),
    "real floating": ("float",),
    "complex floating": (),
    "numeric": ("int", "uint", "float"),
}


@dataclass(frozen=True)
class FloatLimits:
    """Limits of a float dtype, as Python floats: see :func:`finfo`."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntLimits:
    """Limits of an integer dtype: see :func:`iinfo`."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(value: Any) -> DType:
    return value.dtype if isinstance(value, Tensor) else dtypes.as_dtype(value)


def isdtype(dtype: object, kind: object) -> bool:
    """Return whether ``dtype`` is a ``kind``: a dtype, a name of the standard such as "integral", or a tuple of these.

    Raises:
        TensorCommonsError: the name is not one of the standard.

    >>> tc.isdtype(tc.int32, "integral"), tc.isdtype(tc.int32, (tc.bool, "real floating"))
    (True, False)
    """
    own = dtypes.as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(own, each) for each in kind)
    if not isinstance(kind, str):
        return own is dtypes.as_dtype(kind)
    if kind not in KINDS:
        raise TensorCommonsError(f"the kind of a dtype must be one of {', '.join(KINDS)}, not {quoted(kind)}")
    return own.kind in KINDS[kind]


def result_type(*arrays_and_dtypes: object) -> DType:
    """Return the dtype of a computation with these tensors, dtypes and Python numbers.

    Numbers take the dtype of the others: see :func:`tensorcommons.dtypes.result_type`.

    Raises:
        UnsupportedDtype: the dtypes have none in common.
        ValueError: there is neither a tensor nor a dtype.

    >>> tc.result_type(tc.float16, tc.ones(2), 1)
    tensorcommons.dtypes.float32
    """
    numbers = [value for value in arrays_and_dtypes if isinstance(value, (bool, int, float))]
    kinds = [_dtype_of(value) for value in arrays_and_dtypes if not isinstance(value, (bool, int, float))]
    if not kinds:
        raise ValueError("result_type() needs at least one tensor or dtype")
    result = dtypes.result_type(kinds)
    for number in numbers:
        kind = dtypes.of_number(number).kind
        if not (kind == result.kind or (kind == "int" and result.kind in ("uint", "float"))):
            raise UnsupportedDtype(
                f"the {kind} {quoted(number)} and {result} have no common dtype: cast with tc.astype()"
            )
    return result


def can_cast(from_: object, to: object, /) -> bool:
    """Return whether a tensor or dtype can become ``to`` by promotion.

    >>> tc.can_cast(tc.int32, tc.int64), tc.can_cast(tc.float32, tc.float16)
    (True, False)
    """
    target = dtypes.as_dtype(to)
    try:
        return dtypes.result_type([_dtype_of(from_), target]) is target
    except UnsupportedDtype:
        return False


def finfo(type: object, /) -> FloatLimits:  # noqa: A002 - the array API's name
    """Return the limits of a float dtype, or of the dtype of a tensor.

    >>> tc.finfo(tc.float32).eps
    1.1920928955078125e-07
    """
    dtype = _dtype_of(type)
    if dtype.kind != "float":
        raise UnsupportedDtype(f"finfo takes a float dtype, not {dtype}: use tc.iinfo()")
    info: Any = np.finfo(dtype.numpy)
    return FloatLimits(
        info.bits, float(info.eps), float(info.max), float(info.min), math.ldexp(1.0, int(info.minexp)), dtype
    )


def iinfo(type: object, /) -> IntLimits:  # noqa: A002 - the array API's name
    """Return the limits of an integer dtype, or of the dtype of a tensor.

    >>> tc.iinfo(tc.uint8).max
    255
    """
    dtype = _dtype_of(type)
    if dtype.kind not in ("int", "uint"):
        raise UnsupportedDtype(f"iinfo takes an integer dtype, not {dtype}: use tc.finfo()")
    info = np.iinfo(dtype.numpy)
    return IntLimits(info.bits, int(info.max), int(info.min), dtype)
