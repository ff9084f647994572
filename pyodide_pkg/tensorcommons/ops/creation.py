"""Create tensors from numbers, without an upload. A constant takes no bytes unless an op needs it in a buffer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy as copy_of
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..backends.current import default_device, device_of
from ..backends.device import Device
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..graph.constant import constant
from ..tensor import Tensor, TensorLike, as_tensor
from ..tensor import asarray as on_device
from .elementwise import astype, where
from .layout import broadcast_to, reshape
from .manipulation import matrix_transpose
from .registry import OPS, apply, define


def _infer_arange(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    count = attrs["count"]
    assert isinstance(count, int)
    return Spec((count,), dtypes.as_dtype(attrs["dtype"]))


def _arange(start: float, step: float, count: int, dtype: str) -> Any:
    kind: Any = np.int64 if np.dtype(dtype).kind in "iu" else np.float64 if dtype == "float64" else np.float32
    return (kind(start) + kind(step) * np.arange(count).astype(kind)).astype(dtype)


ARANGE = define("arange", _infer_arange, _arange)


def _place(kind: dtypes.DType, device: Device | str | None) -> Device | None:
    """Return the device of ``device``. Raises UnsupportedDtype for float64, unless it is the CPU device."""
    place = None if device is None else device_of(device)
    if kind is dtypes.float64 and not (place or default_device()).facts.is_host:
        raise UnsupportedDtype(f"the {(place or default_device()).kind} device has no float64: use float32")
    return place


def full(
    shape: int | Sequence[int], fill_value: float, *, dtype: object = None, device: Device | str | None = None
) -> Tensor:
    """Create a tensor filled with one number; by default float32 for a float, int32 for an int and bool for a bool.

    Raises:
        ShapeMismatch: a size is negative.
        UnsupportedDtype: the dtype does not exist here, or cannot represent the number.
        DeviceUnavailable: the device is not available; the message has the reason.

    >>> print(tc.full((2, 2), 7).numpy())
    [[7 7]
     [7 7]]
    """
    kind = dtypes.of_number(fill_value) if dtype is None else dtypes.as_dtype(dtype)
    scalar = Tensor.symbolic(constant(fill_value, kind), _place(kind, device))
    return broadcast_to(scalar, (shape,) if isinstance(shape, int) else shape)


def zeros(shape: int | Sequence[int], *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of zeros, or of False. Raises the errors of :func:`full`.

    >>> print(tc.zeros((2, 3)).numpy())
    [[0. 0. 0.]
     [0. 0. 0.]]
    """
    return full(shape, False, dtype=dtypes.float32 if dtype is None else dtype, device=device)


def ones(shape: int | Sequence[int], *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of ones, or of True. Raises the errors of :func:`full`.

    >>> print(tc.ones(3, dtype="int32").numpy())
    [1 1 1]
    """
    return full(shape, True, dtype=dtypes.float32 if dtype is None else dtype, device=device)


def full_like(
    x: TensorLike, /, fill_value: float, *, dtype: object = None, device: Device | str | None = None
) -> Tensor:
    """Create a tensor of ``fill_value`` with the shape, dtype and device of ``x``.

    >>> print(tc.full_like([1, 2], 9).numpy())
    [9 9]
    """
    tensor = as_tensor(x)
    place = tensor.own_device if device is None else device
    return full(tensor.shape, fill_value, dtype=tensor.dtype if dtype is None else dtype, device=place)


def zeros_like(x: TensorLike, /, *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of zeros with the shape, dtype and device of ``x``.

    >>> print(tc.zeros_like([1, 2]).numpy())
    [0 0]
    """
    return full_like(x, False, dtype=dtype, device=device)


def ones_like(x: TensorLike, /, *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of ones with the shape, dtype and device of ``x``.

    >>> print(tc.ones_like([1.5, 2.5]).numpy())
    [1. 1.]
    """
    return full_like(x, True, dtype=dtype, device=device)


def empty(shape: int | Sequence[int], *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of zeros: contents of freed memory are never exposed.

    >>> print(tc.empty(2).numpy())
    [0. 0.]
    """
    return zeros(shape, dtype=dtype, device=device)


def empty_like(x: TensorLike, *, dtype: object = None, device: Device | str | None = None) -> Tensor:
    """Create a tensor of zeros with the shape, dtype and device of ``x``: see :func:`empty`.

    >>> tc.empty_like([[1, 2]]).shape
    (1, 2)
    """
    tensor = as_tensor(x)
    place = tensor.own_device if device is None else device
    return empty(tensor.shape, dtype=tensor.dtype if dtype is None else dtype, device=place)


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: object = None,
    device: Device | str | None = None,
) -> Tensor:
    """``start + step * i`` up to but excluding ``stop``; one argument is ``stop``. int32 if all are ints, else float32.

    Raises:
        UnsupportedDtype: the dtype is bool, or cannot represent the numbers.

    >>> print(tc.arange(2, 10, 3).numpy())
    [2 5 8]
    """
    if stop is None:
        start, stop = 0, start
    if not step:
        raise ShapeMismatch("arange: step must not be 0")
    if not all(map(math.isfinite, (start, stop, step))):
        raise ShapeMismatch(f"arange from {start} to {stop} by {step}: all three must be finite")
    whole = all(isinstance(value, int) for value in (start, stop, step))
    kind = dtypes.as_dtype(dtype if dtype is not None else "int32" if whole else "float32")
    if kind.kind == "bool" or (kind.kind != "float" and not whole):
        raise UnsupportedDtype(f"arange from {start} to {stop} by {step} cannot be {kind}: pass a float dtype or ints")
    count = max(math.ceil((stop - start) / step), 0)
    if count and kind.kind != "float":
        for value in (start, start + (count - 1) * step):
            constant(value, kind)  # raises if the dtype cannot represent it
    if kind.kind == "uint":
        step = int(step) % 2**32  # a negative step wraps around
    number = float if kind.kind == "float" else int
    node_attrs: Attributes = {"start": number(start), "step": number(step), "count": count, "dtype": kind.name}
    made = apply(OPS["arange"], **node_attrs)
    return Tensor.symbolic(made.node, _place(kind, device))


def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    endpoint: bool = True,
    dtype: object = None,
    device: Device | str | None = None,
) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, which is included unless ``endpoint`` is False.

    >>> print(tc.linspace(0, 1, 5).numpy())
    [0.   0.25 0.5  0.75 1.  ]
    """
    if num < 0:
        raise ShapeMismatch(f"linspace: num must not be negative, not {num}")
    kind = dtypes.float32 if dtype is None else dtypes.as_dtype(dtype)
    if kind.kind != "float":
        raise UnsupportedDtype(f"linspace: dtype must be a float, not {kind}")
    index = arange(num, dtype=dtypes.float64 if kind is dtypes.float64 else dtypes.float32, device=device)
    values = index * ((stop - start) / max(num - endpoint, 1)) + float(start)
    if endpoint and num > 1:
        values = where(index == num - 1, float(stop), values)
    return astype(values, kind)


def _below(rows: int, columns: int, k: int, device: Device | str | None) -> Tensor:
    """Return a matrix that is true on and below diagonal ``k``."""
    k = max(-rows, min(k, columns))  # further away, all is the same
    down, right = arange(rows, device=device), arange(-k, columns - k, device=device)
    return reshape(down, (rows, 1)) >= right


def eye(
    rows: int, columns: int | None = None, /, *, k: int = 0, dtype: object = None, device: Device | str | None = None
) -> Tensor:
    """Create a matrix with ones on diagonal ``k`` and zeros elsewhere.

    >>> print(tc.eye(2, 3).numpy())
    [[1. 0. 0.]
     [0. 1. 0.]]
    """
    count = rows if columns is None else columns
    k = max(-rows, min(k, count))  # further away, all is 0
    down, right = arange(rows, device=device), arange(-k, count - k, device=device)
    return astype(reshape(down, (rows, 1)) == right, dtypes.float32 if dtype is None else dtype)


def tril(x: TensorLike, /, *, k: int = 0) -> Tensor:
    """``x`` with zeros above diagonal ``k`` of its last two axes.

    >>> print(tc.tril([[1, 2], [3, 4]]).numpy())
    [[1 0]
     [3 4]]
    """
    tensor = _matrices(x, "tril")
    rows, columns = tensor.shape[-2:]
    return where(_below(rows, columns, k, tensor.own_device), tensor, zeros_like(tensor))


def triu(x: TensorLike, /, *, k: int = 0) -> Tensor:
    """``x`` with zeros below diagonal ``k`` of its last two axes.

    >>> print(tc.triu([[1, 2], [3, 4]]).numpy())
    [[1 2]
     [0 4]]
    """
    tensor = _matrices(x, "triu")
    rows, columns = tensor.shape[-2:]
    below = matrix_transpose(_below(columns, rows, -k, tensor.own_device))
    return where(below, tensor, zeros_like(tensor))


def _matrices(x: TensorLike, name: str) -> Tensor:
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        raise ShapeMismatch(f"{name} needs at least two axes, not shape {tensor.shape}")
    return tensor


def asarray(
    obj: TensorLike,
    /,
    dtype: object = None,
    device: Device | str | None = None,
    *,
    copy: bool | None = None,
) -> Tensor:
    """Convert ``obj`` (array, list, number, Tensor) to a tensor on ``device``, of its own dtype or ``dtype``.

    ``device`` is a Device or a kind ("cpu", "webgpu", "webnn": that of the last ``open_devices()``); the default is
    that of a tensor ``obj``, else that of :func:`set_default_device`, or the CPU device. float64 becomes float32, and
    Python ints become int32; only the CPU device has float64, for ``dtype="float64"``. Values are copied, except those
    of a tensor that has the dtype and the device; tensors never change one another, so ``copy=True`` costs nothing.

    Raises:
        UnsupportedDtype: the dtype has no counterpart.
        DeviceUnavailable: the device is not available; the message has the reason.
        MemoryBudgetError: the bytes do not fit.
        ReadRequired: a tensor is on another device, or in a list, and its device cannot be waited for here.
        ValueError: ``copy=False``, but a copy is necessary.

    >>> tc.asarray([1.5, 2.5])
    <Tensor float32[2] on cpu: [1.5 2.5]>
    >>> tc.asarray([1, 2], dtype="float16")
    <Tensor float16[2] on cpu: [1. 2.]>
    """
    if not isinstance(obj, Tensor):
        if copy is False:
            raise ValueError("copy=False is not supported here: the values of an array or a list are always copied")
        return on_device(_without_tensors(obj), dtype, device)
    place = obj.device if device is None else device_of(device)
    kind = obj.dtype if dtype is None else dtypes.as_dtype(dtype)
    if copy is False and (kind is not obj.dtype or place is not obj.device):
        raise ValueError("copy=False is not possible: another dtype or device needs a copy")
    if device is None and kind is obj.dtype:
        return copy_of(obj) if copy else obj
    moved = on_device(astype(obj, kind), None, place)
    return copy_of(moved) if copy and moved is obj else moved


def _without_tensors(obj: Any) -> Any:
    """Replace the tensors in nested lists by what Python can hold: numbers and arrays."""
    if isinstance(obj, Tensor):
        return obj.item() if not obj.shape else np.asarray(obj)
    if isinstance(obj, (list, tuple)) and any(isinstance(each, (Tensor, list, tuple)) for each in obj):
        return [_without_tensors(each) for each in obj]
    return obj


def from_dlpack(x: Any, /, *, device: Device | str | None = None, copy: bool | None = None) -> Tensor:
    """Convert an array of another library that exports host memory by DLPack; a tensor as :func:`asarray`.

    >>> print(tc.from_dlpack(np.asarray([1, 2])).numpy())
    [1 2]
    """
    return asarray(x if isinstance(x, Tensor) else np.from_dlpack(x), device=device, copy=copy)


def meshgrid(*xs: TensorLike, indexing: str = "xy") -> list[Tensor]:
    """Return the coordinates of a grid over 1-D tensors, as in NumPy: "xy" exchanges the first two axes. Views.

    Raises:
        ShapeMismatch: a tensor has not one axis.
        TensorCommonsError: ``indexing`` is neither "xy" nor "ij".

    >>> x, y = tc.meshgrid([1, 2], [3, 4])
    >>> print(x.numpy())
    [[1 2]
     [1 2]]
    >>> print(y.numpy())
    [[3 3]
     [4 4]]
    """
    if indexing not in ("xy", "ij"):
        raise TensorCommonsError(f"meshgrid: indexing must be 'xy' or 'ij', not {quoted(indexing)}")
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
