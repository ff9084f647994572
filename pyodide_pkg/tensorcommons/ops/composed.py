"""Elementwise functions that are compositions of elementwise ops, which fuse into one kernel."""

from __future__ import annotations

import math

import numpy as np

from .. import dtypes
from ..errors import ShapeMismatch, UnsupportedDtype
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import (
    abs,
    add,
    astype,
    copysign,
    divide,
    equal,
    floor_divide,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    not_equal,
    remainder,
    subtract,
    where,
)
from .elementwise import round as nearest
from .reduction import all as every


def _pair(x1: TensorLike, x2: TensorLike) -> tuple[Tensor, Tensor]:
    """Convert both operands to tensors of their common dtype."""
    a = as_tensor(x1, like=(x2,))
    b = as_tensor(x2, like=(a,))
    common = dtypes.result_type([a.dtype, b.dtype])
    return astype(a, common), astype(b, common)


def conj(x: TensorLike) -> Tensor:
    """Complex conjugate: ``x`` itself, since all dtypes are real. It is there for code that is written for any array.

    >>> print(tc.conj([1.0, -2.0]).numpy())
    [ 1. -2.]
    """
    tensor = as_tensor(x)
    if tensor.dtype.kind == "bool":
        raise UnsupportedDtype("conj takes numbers, not bool: cast with tc.astype()")
    return tensor


def round(x: TensorLike, decimals: int = 0) -> Tensor:
    """Round ``x`` to ``decimals`` places after the point (before it, if negative); halves to even, as in NumPy.

    Floats are multiplied by ``10 ** decimals``, rounded to an integer and divided, in float32 or their wider dtype.
    Those that are integers already are unchanged, as ints are unless ``decimals`` is negative.

    >>> print(tc.round([1.4, 1.5, 2.5]).numpy())
    [1. 2. 2.]
    >>> print(tc.round([1.234, -5.678], decimals=1).numpy())
    [ 1.2 -5.7]
    """
    tensor = as_tensor(x)
    if decimals == 0:
        return nearest(tensor)
    if tensor.dtype.kind == "bool":
        raise UnsupportedDtype("round takes numbers, not bool: cast with tc.astype()")
    if tensor.dtype.kind != "float":
        return tensor if decimals > 0 else _rounded_ints(tensor, 10**-decimals)
    wide = astype(tensor, "float32") if tensor.dtype is dtypes.float16 else tensor
    if math.fabs(decimals) > 38:  # beyond the range of float32
        return tensor if decimals > 0 else multiply(tensor, 0.0)
    scale = 10.0 ** math.fabs(decimals)
    if decimals < 0:
        return astype(multiply(nearest(divide(wide, scale)), scale), tensor.dtype)
    whole = greater_equal(abs(wide), 2.0 ** (23 if wide.dtype is dtypes.float32 else 52))
    rounded = divide(nearest(multiply(where(whole, 0.0, wide), scale)), scale)
    return astype(where(whole, wide, where(isfinite(rounded), rounded, wide)), tensor.dtype)


def _rounded_ints(x: Tensor, unit: int) -> Tensor:
    """Round ints to multiples of ``unit``, a power of ten; halves to even multiples."""
    limit = int(np.iinfo(x.dtype.numpy).max)
    if unit > limit:  # the half of it is more than any element
        return multiply(x, 0)
    quotient, rest = floor_divide(x, unit), remainder(x, unit)
    half = unit // 2
    up = logical_or(less(half, rest), logical_and(equal(rest, half), not_equal(remainder(quotient, 2), 0)))
    return multiply(add(quotient, astype(up, x.dtype)), unit)


def fmod(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x1 - trunc(x1 / x2) * x2``, with the sign of ``x1``, as in C; an int by 0 is 0.

    For floats it is exact if the quotient is below 2 ** 22. See :func:`remainder` for the sign of ``x2``.

    >>> print(tc.fmod([-7, 7], [3, -3]).numpy())
    [-1  1]
    """
    a, b = _pair(x1, x2)
    if a.dtype.kind == "float":
        return copysign(remainder(abs(a), abs(b)), a)
    rest = remainder(a, b)
    other_sign = logical_and(not_equal(rest, 0), logical_xor(less(a, 0), less(rest, 0)))
    return where(other_sign, subtract(rest, b), rest)


def nextafter(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The float of the dtype that follows ``x1`` in the direction of ``x2``; ``x2`` where both are equal.

    The neighbour of the largest finite number is infinite, and NaN has none. WebGPU and WebNN may treat numbers below
    1.2e-38 as 0: there the neighbour of 0 is 0.

    >>> print(tc.nextafter([1.0, 1.0], [2.0, 1.0]).numpy() - 1)
    [1.1920929e-07 0.0000000e+00]
    """
    a, b = _pair(x1, x2)
    if a.dtype.kind != "float":
        raise UnsupportedDtype(f"nextafter takes floats, not {a.dtype}: cast with tc.astype()")
    info = np.finfo(a.dtype.numpy)
    bits, least = int(info.nmant), int(info.minexp)
    # 0.6 of the step above a power of two is 0.6 to 1.2 of the step at every number, so that rounding ends at the
    # neighbour. Where the step is too small for its dtype, numbers are scaled first.
    sign = subtract(multiply(astype(less(a, b), a.dtype), 2.0), 1.0)
    if a.dtype is dtypes.float16:
        wide = astype(a, "float32")
        step = multiply(maximum(abs(wide), 2.0**least), 0.6 * 2.0**-bits)
        result = astype(add(wide, multiply(astype(sign, "float32"), step)), a.dtype)
    else:
        small, tiny = less(abs(a), 2.0 ** (least + bits + 3)), less(abs(a), 2.0 ** (least + 1))
        scaled = where(small, multiply(a, 2.0**60), a)
        step = where(tiny, 2.0 ** (least - bits + 60), multiply(abs(scaled), 0.6 * 2.0**-bits))
        moved = add(scaled, multiply(sign, step))
        result = where(small, multiply(moved, 2.0**-60), moved)
        result = where(logical_and(equal(moved, 0), not_equal(a, 0)), multiply(a, 0.0), result)  # keeps the sign
    largest = copysign(float(info.max), a)
    result = where(equal(a, b), b, where(isinf(a), largest, result))
    return where(logical_or(isnan(a), isnan(b)), math.nan, result)


def isclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """True if ``|x1 - x2| <= atol + rtol * |x2|``, or both are equal, as infinities can be.

    NaN is close to nothing, with ``equal_nan`` to NaN. The differences of ints are exact; they are compared in float32.

    >>> print(tc.isclose([1.0, 2.0], [1.000001, 2.1]).numpy())
    [ True False]
    """
    a, b = _pair(x1, x2)
    same = equal(a, b)
    if a.dtype.kind == "bool":
        return same
    if a.dtype.kind == "float":
        wide = dtypes.float32 if a.dtype is dtypes.float16 else a.dtype
        a, b = astype(a, wide), astype(b, wide)
        distance, size = abs(subtract(a, b)), abs(b)
    else:
        if a.dtype.itemsize == 1:
            a, b = astype(a, "int32"), astype(b, "int32")
        distance = subtract(maximum(a, b), minimum(a, b))  # may wrap
        if a.dtype is dtypes.int32:
            distance = astype(distance, "uint32")
        far = less(distance, 0)  # of int64, which has no unsigned counterpart
        distance, size = where(far, math.inf, astype(distance, "float32")), abs(astype(b, "float32"))
    close = logical_or(same, logical_and(less_equal(distance, add(multiply(size, rtol), atol)), isfinite(size)))
    return logical_or(close, logical_and(isnan(a), isnan(b))) if equal_nan else close


def allclose(x1: TensorLike, x2: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """True if every pair of elements is close (:func:`isclose`): a bool tensor without axes.

    >>> bool(tc.allclose([1.0, 2.0], [1.0, 2.00001]).numpy())
    True
    """
    return every(isclose(x1, x2, rtol, atol, equal_nan))


def nan_to_num(x: TensorLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """Replace NaN by ``nan`` and infinities by ``posinf`` and ``neginf``: by default the dtype's largest and smallest.

    Ints and bools are unchanged.

    >>> print(tc.nan_to_num([1.0, float("nan"), float("inf")], posinf=9).numpy())
    [1. 0. 9.]
    """
    tensor = as_tensor(x)
    if tensor.dtype.kind != "float":
        return tensor
    limits = np.finfo(tensor.dtype.numpy)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    finite = where(equal(tensor, math.inf), high, where(equal(tensor, -math.inf), low, tensor))
    return where(isnan(tensor), nan, finite)


def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """Copy ``x`` with ``value`` where the bool ``mask`` is true.

    ``mask`` broadcasts to the shape of ``x``; ``value`` is a number or a tensor without axes, of the dtype of ``x``.

    Raises:
        ShapeMismatch: ``mask`` does not broadcast to the shape of ``x``, or ``value`` has axes.
        UnsupportedDtype: ``mask`` is not bool, or the dtype of ``x`` cannot represent ``value``.

    >>> print(tc.masked_fill([1, 2, 3], [True, False, True], 0).numpy())
    [0 2 0]
    """
    tensor = as_tensor(x, like=(mask, value))
    fill = as_tensor(value, like=(tensor,))
    if fill.ndim:
        raise ShapeMismatch(f"masked_fill: value must be a number or a tensor without axes, not of shape {fill.shape}")
    if fill.dtype is not tensor.dtype:
        raise UnsupportedDtype(
            f"masked_fill: value must have the dtype of the tensor, {tensor.dtype}, not {fill.dtype}"
        )
    result = where(as_tensor(mask, like=(tensor,)), fill, tensor)
    if result.shape != tensor.shape:
        raise ShapeMismatch(
            f"masked_fill: the mask must broadcast to {tensor.shape}; the result would be {result.shape}"
        )
    return result
