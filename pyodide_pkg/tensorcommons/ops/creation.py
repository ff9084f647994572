"""Tensors from numbers: nothing is uploaded for them."""

from __future__ import annotations

from collections.abc import Sequence

from .. import dtypes
from ..backends.device import Device
from ..graph.constant import constant
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import broadcast_to


def full(
    shape: int | Sequence[int], fill_value: float, *, dtype: object = None, device: Device | None = None
) -> Tensor:
    """``shape`` filled with one number; by default float32 for a float, int32 for an int and bool for a bool."""
    kind = dtypes.of_number(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    scalar = Tensor.symbolic(constant(fill_value, kind), device)
    return broadcast_to(scalar, (shape,) if isinstance(shape, int) else shape)


def zeros(shape: int | Sequence[int], *, dtype: object = "float32", device: Device | None = None) -> Tensor:
    """Zeros, or False."""
    return full(shape, False, dtype=dtype, device=device)


def ones(shape: int | Sequence[int], *, dtype: object = "float32", device: Device | None = None) -> Tensor:
    """Ones, or True."""
    return full(shape, True, dtype=dtype, device=device)


def full_like(x: TensorLike, fill_value: float, *, dtype: object = None) -> Tensor:
    """``fill_value`` in the shape, dtype and on the device of ``x``."""
    tensor = as_tensor(x)
    return full(tensor.shape, fill_value, dtype=dtype or tensor.dtype, device=tensor.device)


def zeros_like(x: TensorLike, *, dtype: object = None) -> Tensor:
    """Zeros in the shape, dtype and on the device of ``x``."""
    return full_like(x, False, dtype=dtype)


def ones_like(x: TensorLike, *, dtype: object = None) -> Tensor:
    """Ones in the shape, dtype and on the device of ``x``."""
    return full_like(x, True, dtype=dtype)
