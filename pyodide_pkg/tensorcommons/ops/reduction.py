"""Reductions over axes, and cumulative sums.

float16 is summed in float32. A few long rows are reduced in two steps: parts of a row, then the results of the parts.
This uses more of a device's cores, and is more precise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Op, Spec, per_element, per_input
from ..dtypes import DType
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import normalize_axes, normalize_axis, part_length, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import WORDS, add, astype, divide, multiply, not_equal, sqrt, subtract
from .indexing import take_along_axis
from .layout import permute_dims, reshape
from .manipulation import pad
from .registry import apply, define

LONG = 2**16  # elements of a row from which it is reduced in parts
PART = 2**13  # elements of a part
FEW = 2**10  # rows below which rows are reduced in parts
FLOATS = ("float",)
NUMBERS = ("float", "int", "uint")
ANY_KIND = (*NUMBERS, "bool")
Axes = int | Sequence[int] | None


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (x,) = specs
    axes, keepdims, parts = attrs["axes"], attrs["keepdims"], attrs.get("parts", 1)
    assert isinstance(axes, tuple) and isinstance(parts, int)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    kept = tuple(shape if keepdims else [s for axis, s in enumerate(shape) if axis not in axes])
    return Spec(kept if parts == 1 else (*kept, parts), dtypes.as_dtype(attrs["dtype"]))


def _define(name: str, function: Any, operations: int = 1) -> Op:
    """Define a reduction by ``function(x, axis, keepdims, ...)``, its reference over whole rows.

    Parts of a row are reduced as rows of their own, except that positions count from the start of the row.
    ``operations`` is the cost of each element of ``x``.
    """

    def reference(x: Any, axes: tuple[int, ...], keepdims: bool, dtype: str, parts: int = 1, **options: Any) -> Any:
        wide = x.astype(np.float32) if x.dtype == np.float16 else x
        with np.errstate(all="ignore"):
            if parts == 1:
                return np.asarray(function(wide, axis=axes, keepdims=keepdims, **options)).astype(dtype)
            kept = [axis for axis in range(x.ndim) if axis not in axes]
            rows = wide.transpose(*kept, *axes).reshape(*(x.shape[axis] for axis in kept), -1)
            length = part_length(rows.shape[-1], parts)
            cut = [rows[..., part * length : (part + 1) * length] for part in range(parts)]
            result = np.stack([function(part, axis=(-1,), keepdims=False) for part in cut], -1).astype(dtype)
            if function in POSITIONS:
                result += np.arange(parts, dtype=dtype) * length
            return np.expand_dims(result, axes) if keepdims else result

    return define(name, _infer, reference, operations=per_input(operations))


def _sum(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=_accumulator(x))


def _prod(x: Any, axis: Any, keepdims: bool) -> Any:
    return np.prod(x, axis=axis, keepdims=keepdims, dtype=_accumulator(x))


def _accumulator(x: Any) -> Any:
    return np.dtype(np.int32) if x.dtype == bool else x.dtype


def _mean(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Compute np.mean without its warning for an empty axis."""
    return np.sum(x, axis=axis, keepdims=keepdims) / x.dtype.type(size_of([x.shape[a] for a in axis]))


def _var(x: Any, axis: tuple[int, ...], keepdims: bool, correction: float) -> Any:
    count = np.float64(size_of([x.shape[a] for a in axis]))
    wide = x.astype(np.float64)
    squares = np.square(wide - _mean(wide, axis, keepdims=True))
    return np.sum(squares, axis=axis, keepdims=keepdims) / np.maximum(count - correction, 0)


def _logsumexp(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    largest = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0)
    total = np.sum(np.exp(x - shift), axis=axis, keepdims=True)
    return np.sum(np.log(total) + shift, axis=axis, keepdims=keepdims)  # over axes of size 1


def _argmax(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """Return the position in row-major order over ``axis``, which is one axis or all."""
    return np.argmax(x, axis=axis[0] if len(axis) < x.ndim else None, keepdims=keepdims)


def _argmin(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return np.argmin(x, axis=axis[0] if len(axis) < x.ndim else None, keepdims=keepdims)


POSITIONS = (_argmax, _argmin)


SUM = _define("sum", _sum)
PROD = _define("prod", _prod)
MEAN = _define("mean", _mean)
MAX = _define("max", np.max)
MIN = _define("min", np.min)
ANY = _define("any", np.any)
ALL = _define("all", np.all)
COUNT_NONZERO = _define("count_nonzero", np.count_nonzero)
VAR = _define("var", _var, 4)
LOGSUMEXP = _define("logsumexp", _logsumexp, 4)
ARGMAX = _define("argmax", _argmax)
ARGMIN = _define("argmin", _argmin)


def _tensor(x: TensorLike, op: str, kinds: tuple[str, ...] = ANY_KIND) -> Tensor:
    tensor = as_tensor(x)
    if tensor.dtype.kind not in kinds:
        raise UnsupportedDtype(f"{op} takes {WORDS[kinds]}, not {tensor.dtype}: cast with tc.astype()")
    return tensor


def _floats(x: TensorLike, op: str) -> Tensor:
    """Convert ``x`` to a tensor of floats; ints become float32."""
    tensor = _tensor(x, op, NUMBERS)
    return tensor if tensor.dtype.kind == "float" else astype(tensor, dtypes.float32)


def _is_long(tensor: Tensor, axes: Sequence[int]) -> bool:
    reduced = size_of([tensor.shape[axis] for axis in axes])
    return reduced >= LONG and tensor.size // reduced < FEW


def _reduce(op: Op, tensor: Tensor, axis: Axes, keepdims: bool, dtype: DType) -> Tensor:
    """Reduce whole rows, or parts of rows and then the results of the parts."""
    axes = normalize_axes(axis, tensor.ndim)
    reduced = size_of([tensor.shape[a] for a in axes])
    if op in (MAX, MIN, ARGMAX, ARGMIN) and reduced == 0:
        raise ShapeMismatch(f"{op.name} of shape {tensor.shape} over axes {axes} has no elements")
    if not _is_long(tensor, axes) or op is LOGSUMEXP:
        return apply(op, tensor, axes=axes, keepdims=keepdims, dtype=dtype.name)
    wide = dtypes.float32 if dtype is dtypes.float16 else dtype
    first = SUM if op is MEAN else op
    parts = apply(first, tensor, axes=axes, keepdims=keepdims, dtype=wide.name, parts=-(-reduced // PART))
    second = SUM if op is COUNT_NONZERO else first
    last = parts.ndim - 1
    if op in (ARGMAX, ARGMIN):  # each part has a position: find the part whose element is the largest
        kept = [a for a in range(tensor.ndim) if a not in axes]
        rows = reshape(permute_dims(tensor, (*kept, *axes)), (*parts.shape[:last], reduced))
        best = apply(op, take_along_axis(rows, parts), axes=(last,), keepdims=True, dtype=dtype.name)
        return reshape(take_along_axis(parts, best), parts.shape[:last])
    if op is MEAN:
        result = divide(apply(SUM, parts, axes=(last,), keepdims=False, dtype=wide.name), reduced)
        return result if dtype is wide else astype(result, dtype)
    return apply(second, parts, axes=(last,), keepdims=False, dtype=dtype.name)


# The default dtypes of sums that differ from the operand's: the array API's rule for ints smaller than int32.
WIDENED = {dtypes.bool: dtypes.int32, dtypes.int8: dtypes.int32, dtypes.uint8: dtypes.uint32}


def _converted(x: TensorLike, dtype: object) -> tuple[Tensor, DType]:
    """Return ``x`` in the dtype of its sum, and that dtype. The sum itself converts bools."""
    tensor = as_tensor(x)
    kind = WIDENED.get(tensor.dtype, tensor.dtype) if dtype is None else dtypes.as_dtype(dtype)
    return (tensor, kind) if (tensor.dtype, kind) == (dtypes.bool, dtypes.int32) else (astype(tensor, kind), kind)


def sum(x: TensorLike, axis: Axes = None, keepdims: bool = False, dtype: object = None) -> Tensor:
    """Sum over ``axis`` (all axes by default); 0 for no elements.

    ``x`` is cast to ``dtype`` first, as in the array API standard. The default is its own dtype, int32 for bool and
    int8, uint32 for uint8. Ints wrap around; a sum of bools (``dtype="bool"``) is :func:`any`, as in NumPy.

    >>> print(tc.sum([[1, 2], [3, 4]], axis=0).numpy())
    [4 6]
    """
    tensor, kind = _converted(x, dtype)
    if kind is dtypes.bool:
        return any(tensor, axis, keepdims)
    return _reduce(SUM, tensor, axis, keepdims, kind)


def prod(x: TensorLike, axis: Axes = None, keepdims: bool = False, dtype: object = None) -> Tensor:
    """Product over ``axis`` (all axes by default); 1 for no elements.

    ``x`` is cast to ``dtype`` first: see :func:`sum`. A product of bools (``dtype="bool"``) is :func:`all`.

    >>> print(tc.prod([2, 3, 4]).numpy())
    24
    """
    tensor, kind = _converted(x, dtype)
    if kind is dtypes.bool:
        return all(tensor, axis, keepdims)
    return _reduce(PROD, tensor, axis, keepdims, kind)


def mean(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over ``axis``, of ints in float32; NaN for no elements.

    >>> print(tc.mean([1.0, 2.0, 6.0]).numpy())
    3.0
    """
    tensor = _floats(x, "mean")
    return _reduce(MEAN, tensor, axis, keepdims, tensor.dtype)


def max(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over ``axis``; NaN if one is NaN. Raises ShapeMismatch for no elements.

    >>> print(tc.max([[1, 5], [7, 2]], axis=1).numpy())
    [5 7]
    """
    tensor = _tensor(x, "max", NUMBERS)
    return _reduce(MAX, tensor, axis, keepdims, tensor.dtype)


def min(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Smallest element over ``axis``; NaN if one is NaN. Raises ShapeMismatch for no elements.

    >>> print(tc.min([[1, 5], [7, 2]], axis=1).numpy())
    [1 2]
    """
    tensor = _tensor(x, "min", NUMBERS)
    return _reduce(MIN, tensor, axis, keepdims, tensor.dtype)


def any(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """True if an element over ``axis`` is nonzero, as NaN is; false for no elements.

    >>> print(tc.any([[0, 1], [0, 0]], axis=1).numpy())
    [ True False]
    """
    return _reduce(ANY, _tensor(x, "any"), axis, keepdims, dtypes.bool)


def all(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """True if every element over ``axis`` is nonzero; true for no elements.

    >>> print(tc.all([[0, 1], [1, 1]], axis=1).numpy())
    [False  True]
    """
    return _reduce(ALL, _tensor(x, "all"), axis, keepdims, dtypes.bool)


def count_nonzero(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Count the nonzero elements over ``axis``, as int32.

    >>> print(tc.count_nonzero([0, 3, 4]).numpy())
    2
    """
    tensor = _tensor(x, "count_nonzero")
    return _reduce(COUNT_NONZERO, tensor, axis, keepdims, dtypes.int32)


def var(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """``sum((x - mean(x)) ** 2) / (n - correction)`` over the n elements of ``axis``, of ints in float32.

    A large mean loses no precision (Welford, 1962; Chan, Golub and LeVeque, 1979). As in NumPy, a negative
    ``n - correction`` counts as 0: the result is infinite or NaN.

    >>> print(tc.var([1.0, 3.0]).numpy())
    1.0
    """
    tensor = _floats(x, "var")
    axes = normalize_axes(axis, tensor.ndim)
    count = size_of([tensor.shape[a] for a in axes])
    if _is_long(tensor, axes) and tensor.dtype is dtypes.float32 and count > correction:
        centred = subtract(tensor, mean(tensor, axes, keepdims=True))
        return divide(sum(multiply(centred, centred), axes, keepdims), count - correction)
    return apply(VAR, tensor, axes=axes, keepdims=keepdims, dtype=tensor.dtype.name, correction=float(correction))


def std(x: TensorLike, axis: Axes = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """``sqrt(var(x))``: see :func:`var`.

    >>> print(tc.std([1.0, 3.0]).numpy())
    1.0
    """
    return sqrt(var(x, axis, correction, keepdims))


def logsumexp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` without overflow: the largest element is subtracted before ``exp``.

    ``-inf`` for no elements, or if all are ``-inf``.

    >>> print(tc.logsumexp([1000.0, 1000.0]).numpy().round(4))
    1000.6932
    """
    tensor = _tensor(x, "logsumexp", FLOATS)
    return _reduce(LOGSUMEXP, tensor, axis, keepdims, tensor.dtype)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position (int32) of the largest element along ``axis``; by default in the flattened tensor.

    The first one of equal elements; the first NaN if there are any. Raises ShapeMismatch for no elements.

    >>> print(tc.argmax([[1, 5], [7, 2]], axis=1).numpy())
    [1 0]
    """
    return _reduce(ARGMAX, _tensor(x, "argmax", NUMBERS), axis, keepdims, dtypes.int32)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Position (int32) of the smallest element along ``axis``; by default in the flattened tensor.

    The first one of equal elements; the first NaN if there are any. Raises ShapeMismatch for no elements.

    >>> print(tc.argmin([3, 1, 2]).numpy())
    1
    """
    return _reduce(ARGMIN, _tensor(x, "argmin", NUMBERS), axis, keepdims, dtypes.int32)


def _infer_cumulative(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    (x,) = specs
    more = 1 if attrs["include_initial"] else 0
    return Spec((*x.shape[:-1], x.shape[-1] + more), dtypes.as_dtype(attrs["dtype"]))


def _cumulative_sum(x: Any, include_initial: bool, dtype: str) -> Any:
    total = np.cumsum(x, -1, dtype=np.float64 if x.dtype.kind == "f" else dtype).astype(dtype)
    return np.concatenate([np.zeros((*x.shape[:-1], 1), dtype), total], -1) if include_initial else total


def _cumulative_prod(x: Any, include_initial: bool, dtype: str) -> Any:
    total = np.cumprod(x, -1, dtype=np.float64 if x.dtype.kind == "f" else dtype).astype(dtype)
    return np.concatenate([np.ones((*x.shape[:-1], 1), dtype), total], -1) if include_initial else total


CUMULATIVE_PROD = define("cumulative_prod", _infer_cumulative, _cumulative_prod, operations=per_element(1))
CUMULATIVE_SUM = define("cumulative_sum", _infer_cumulative, _cumulative_sum, operations=per_element(1))


def cumulative_sum(
    x: TensorLike, axis: int | None = None, include_initial: bool = False, dtype: object = None
) -> Tensor:
    """``y[i] = x[0] + ... + x[i]`` along ``axis``, which is optional for a tensor of one axis.

    With ``include_initial`` the sums begin with a 0, so that the axis has one more element. ``x`` is cast to ``dtype``
    first: see :func:`sum`. With ``dtype="bool"`` a result is true if any element so far is, as in NumPy.

    >>> print(tc.cumulative_sum([1, 2, 3]).numpy())
    [1 3 6]
    """
    return _cumulative(CUMULATIVE_SUM, x, axis, include_initial, dtype)


def cumulative_prod(
    x: TensorLike, axis: int | None = None, include_initial: bool = False, dtype: object = None
) -> Tensor:
    """``y[i] = x[0] * ... * x[i]`` along ``axis``, which is optional for a tensor of one axis.

    With ``include_initial`` the products begin with a 1, so that the axis has one more element. ``x`` is cast to
    ``dtype`` first: see :func:`sum`. With ``dtype="bool"`` a result is true if all elements so far are, as in NumPy.

    >>> print(tc.cumulative_prod([1, 2, 3]).numpy())
    [1 2 6]
    """
    return _cumulative(CUMULATIVE_PROD, x, axis, include_initial, dtype)


def _cumulative(op: Op, x: TensorLike, axis: int | None, include_initial: bool, dtype: object) -> Tensor:
    tensor, kind = _converted(x, dtype)
    if axis is None and tensor.ndim != 1:
        raise ShapeMismatch(f"{op.name}: pass axis for a tensor with {tensor.ndim} axes")
    place = normalize_axis(axis or 0, tensor.ndim)
    order = [a for a in range(tensor.ndim) if a != place] + [place]
    counted = dtypes.int32 if kind is dtypes.bool else kind
    row = permute_dims(tensor, order)
    if op is CUMULATIVE_SUM:
        result = _running_sum(row, include_initial, counted)
    else:
        result = apply(op, row, include_initial=include_initial, dtype=counted.name)
    result = not_equal(result, 0) if kind is dtypes.bool else result
    return permute_dims(result, [order.index(a) for a in range(tensor.ndim)])


def _running_sum(x: Tensor, include_initial: bool, dtype: DType) -> Tensor:
    """Sum along the last axis: whole rows, or parts of rows, to which the sums of the earlier parts are added."""
    if not _is_long(x, (x.ndim - 1,)):
        return apply(CUMULATIVE_SUM, x, include_initial=include_initial, dtype=dtype.name)
    wide = dtypes.float32 if dtype is dtypes.float16 else dtype
    *rows, size = x.shape
    parts = -(-size // PART)
    if size % PART:
        x = pad(astype(x, wide), [(0, 0)] * len(rows) + [(0, parts * PART - size)])
    within = apply(CUMULATIVE_SUM, reshape(x, (*rows, parts, PART)), include_initial=False, dtype=wide.name)
    before = _running_sum(within[..., -1], True, wide)[..., :-1, None]
    whole = reshape(add(within, before), (*rows, parts * PART))[..., :size]
    result = pad(whole, [(0, 0)] * len(rows) + [(1, 0)]) if include_initial else whole
    return result if dtype is wide else astype(result, dtype)
