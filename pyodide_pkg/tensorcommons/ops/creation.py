"""Tensors from numbers: nothing is uploaded for them. A constant takes no bytes until it has to lie somewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..backends.current import device_of
from ..backends.device import Device
from ..errors import ShapeMismatch, UnsupportedDtype, quoted
from ..graph.constant import constant
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import astype, where
from .layout import broadcast_to, reshape
from .manipulation import matrix_transpose
from .registry import OPS, apply, define


def _infer_arange(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    count = attrs["count"]
    assert isinstance(count, int)
    return Spec((count,), dtypes.as_dtype(attrs["dtype"]))


def _arange(start: float, step: float, count: int, dtype: str) -> Any:
    kind: Any = np.float32 if np.dtype(dtype).kind == "f" else np.int64
    return (kind(start) + kind(step) * np.arange(count).astype(kind)).astype(dtype)


ARANGE = define("arange", _infer_arange, _arange)


def full(
    shape: int | Sequence[int], fill_value: float, *, dtype: object = None, device: Device | str | None = None
) -> Tensor:
    """``shape`` filled with one number; by default float32 for a float, int32 for an int and bool for a bool."""
    kind = dtypes.of_number(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    scalar = Tensor.symbolic(constant(fill_value, kind), None if device is None else device_of(device))
    return broadcast_to(scalar, (shape,) if isinstance(shape, int) else shape)


def zeros(shape: int | Sequence[int], *, dtype: object = "float32", device: Device | str | None = None) -> Tensor:
    """Zeros, or False."""
    return full(shape, False, dtype=dtype, device=device)


def ones(shape: int | Sequence[int], *, dtype: object = "float32", device: Device | str | None = None) -> Tensor:
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


def empty(shape: int | Sequence[int], *, dtype: object = "float32", device: Device | str | None = None) -> Tensor:
    """Zeros: no bytes are handed out that something else left behind."""
    return zeros(shape, dtype=dtype, device=device)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: object = None,
    device: Device | str | None = None,
) -> Tensor:
    """``start + step * i`` below ``stop``; of one argument from 0 to it. int32 if all are ints, else float32.

    Raises:
        UnsupportedDtype: the dtype is bool, or does not hold the numbers.
    """
    place = None if device is None else device_of(device)
    if stop is None:
        start, stop = 0, start
    if not step:
        raise ShapeMismatch("arange: a step of 0 leads nowhere")
    if not all(map(math.isfinite, (start, stop, step))):
        raise ShapeMismatch(f"arange from {start} to {stop} by {step} has no length: all three must be finite")
    whole = all(isinstance(value, int) for value in (start, stop, step))
    kind = dtypes.as_dtype(dtype if dtype is not None else "int32" if whole else "float32")
    if kind.kind == "bool" or (kind.kind != "float" and not whole):
        raise UnsupportedDtype(f"arange from {start} to {stop} by {step} is not {kind}")
    count = max(math.ceil((stop - start) / step), 0)
    if count and kind.kind != "float":
        for value in (start, start + (count - 1) * step):
            constant(value, kind)  # raises where the dtype does not hold it
    if kind.kind == "uint":
        step = int(step) % 2**32  # downwards by wrapping
    number = float if kind.kind == "float" else int
    node_attrs: Attributes = {"start": number(start), "step": number(step), "count": count, "dtype": kind.name}
    made = apply(OPS["arange"], **node_attrs)
    return Tensor.symbolic(made.node, place)


def linspace(
    start: float,
    stop: float,
    num: int,
    *,
    endpoint: bool = True,
    dtype: object = "float32",
    device: Device | str | None = None,
) -> Tensor:
    """``num`` numbers at equal distances from ``start``; ``stop`` is the last of them unless ``endpoint`` is off."""
    if num < 0:
        raise ShapeMismatch(f"linspace of {num} numbers")
    kind = dtypes.as_dtype(dtype)
    if kind.kind != "float":
        raise UnsupportedDtype(f"linspace gives floats, not {kind}")
    index = arange(num, dtype="float32", device=device)
    values = index * ((stop - start) / max(num - endpoint, 1)) + float(start)
    if endpoint and num > 1:
        values = where(index == num - 1, float(stop), values)
    return astype(values, kind)


def _below(rows: int, columns: int, k: int, device: Device | str | None) -> Tensor:
    """Return whether an element of a matrix lies on diagonal ``k`` or below."""
    down, right = arange(rows, device=device), arange(-k, columns - k, device=device)
    return reshape(down, (rows, 1)) >= right


def eye(
    rows: int, columns: int | None = None, *, k: int = 0, dtype: object = "float32", device: Device | str | None = None
) -> Tensor:
    """Ones on diagonal ``k``, zeros elsewhere."""
    count = rows if columns is None else columns
    down, right = arange(rows, device=device), arange(-k, count - k, device=device)
    return astype(reshape(down, (rows, 1)) == right, dtype)


def tril(x: TensorLike, *, k: int = 0) -> Tensor:
    """``x`` with zeros above diagonal ``k`` of its last two axes."""
    tensor = _matrices(x, "tril")
    rows, columns = tensor.shape[-2:]
    return where(_below(rows, columns, k, tensor.device), tensor, zeros_like(tensor))


def triu(x: TensorLike, *, k: int = 0) -> Tensor:
    """``x`` with zeros below diagonal ``k`` of its last two axes."""
    tensor = _matrices(x, "triu")
    rows, columns = tensor.shape[-2:]
    below = matrix_transpose(_below(columns, rows, -k, tensor.device))  # k or above is -k or below, turned
    return where(below, tensor, zeros_like(tensor))


def _matrices(x: TensorLike, name: str) -> Tensor:
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        raise ShapeMismatch(f"{name} needs two axes, not shape {tensor.shape}")
    return tensor


def meshgrid(*xs: TensorLike, indexing: str = "xy") -> list[Tensor]:
    """The coordinates of a grid over 1-D tensors, as NumPy's: "xy" puts the second one along the first axis; views."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing is 'xy' or 'ij', not {quoted(indexing)}")
    tensors = [as_tensor(x, like=xs) for x in xs]
    if any(x.ndim != 1 for x in tensors):
        raise ShapeMismatch(f"meshgrid takes 1-D tensors, not {', '.join(str(x.shape) for x in tensors)}")
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    shape = [tensors[i].size for i in order]
    return [
        broadcast_to(reshape(x, [x.size if axis == order.index(i) else 1 for axis in range(len(shape))]), shape)
        for i, x in enumerate(tensors)
    ]
