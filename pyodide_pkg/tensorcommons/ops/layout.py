"""Reshape, permute, slice and broadcast, which are views; and concatenation and padding, which copy."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from ..backends.base import Attributes, Spec
from ..dtypes import result_type
from ..errors import ShapeMismatch, quoted
from ..shapes import Layout, Shape, infer_reshape, normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import astype
from .registry import apply, define


def _by_layout(view: Any) -> Any:
    """Make the shape rule of a view from its layout rule, applied to a row-major layout."""

    def infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
        layout = view(Layout.contiguous(specs[0].shape), attrs)
        return Spec(layout.shape, specs[0].dtype)

    return infer


def _reshape(layout: Layout, attrs: Attributes) -> Layout | None:
    return layout.reshape(cast(Shape, attrs["shape"]))


def _permute(layout: Layout, attrs: Attributes) -> Layout:
    return layout.permute(cast(Shape, attrs["axes"]))


def _broadcast(layout: Layout, attrs: Attributes) -> Layout:
    return layout.broadcast_to(cast(Shape, attrs["shape"]))


def _slice(layout: Layout, attrs: Attributes) -> Layout:
    for axis, (start, stop, step) in enumerate(cast("tuple[tuple[int, int, int], ...]", attrs["ranges"])):
        layout = layout.slice(axis, start, stop, step)
    return layout


def _slice_reference(x: Any, ranges: Sequence[tuple[int, int, int]]) -> Any:
    return x[tuple(slice(start, stop if stop >= 0 else None, step) for start, stop, step in ranges)]


RESHAPE = define("reshape", _by_layout(_reshape), lambda x, shape: x.reshape(shape), _reshape)
PERMUTE = define("permute_dims", _by_layout(_permute), lambda x, axes: np.transpose(x, axes), _permute)
BROADCAST = define("broadcast_to", _by_layout(_broadcast), lambda x, shape: np.broadcast_to(x, shape), _broadcast)
SLICE = define("slice", _by_layout(_slice), _slice_reference, _slice)


def _infer_concat(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    first, axis = specs[0], cast(int, attrs["axis"])
    rest = first.shape[:axis] + first.shape[axis + 1 :]
    for spec in specs:
        if spec.shape[:axis] + spec.shape[axis + 1 :] != rest or len(spec.shape) != len(first.shape):
            raise ShapeMismatch(f"concat along axis {axis}: {spec.shape} and {first.shape} differ in another axis")
    total = sum(spec.shape[axis] for spec in specs)
    return Spec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)


def _infer_pad(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    widths = cast("tuple[tuple[int, int], ...]", attrs["widths"])
    sizes = (low + size + high for size, (low, high) in zip(specs[0].shape, widths, strict=True))
    return Spec(tuple(sizes), specs[0].dtype)


PAD = define(
    "pad", _infer_pad, lambda x, widths, value: np.pad(x, widths, constant_values=np.asarray(value).astype(x.dtype))
)
CONCAT = define("concat", _infer_concat, lambda *xs, axis: np.concatenate(xs, axis))


def reshape(x: TensorLike, /, shape: int | Sequence[int], *, copy: bool | None = None) -> Tensor:
    """Return the same elements, in row-major order, in another shape; one size may be -1.

    Tensors never change one another, so ``copy`` makes no difference.

    >>> print(tc.reshape([1, 2, 3, 4], (2, -1)).numpy())
    [[1 2]
     [3 4]]
    """
    tensor = as_tensor(x)
    return apply(RESHAPE, tensor, shape=infer_reshape(tensor.shape, _sizes(shape)))


def permute_dims(x: TensorLike, axes: Sequence[int]) -> Tensor:
    """Return the tensor with its axes in another order.

    >>> print(tc.permute_dims([[1, 2], [3, 4]], (1, 0)).numpy())
    [[1 3]
     [2 4]]
    """
    tensor = as_tensor(x)
    return apply(PERMUTE, tensor, axes=tuple(normalize_axis(axis, tensor.ndim) for axis in axes))


def broadcast_to(x: TensorLike, shape: int | Sequence[int]) -> Tensor:
    """Repeat axes of size 1 up to ``shape``, without a copy.

    Raises:
        ShapeMismatch: the shape of ``x`` does not broadcast to ``shape``, or a size is negative.

    >>> print(tc.broadcast_to([1, 2], (2, 2)).numpy())
    [[1 2]
     [1 2]]
    """
    sizes = _sizes(shape)
    if any(size < 0 for size in sizes):
        raise ShapeMismatch(f"the sizes of a shape must not be negative: {quoted(sizes)}")
    return apply(BROADCAST, x, shape=sizes)


def _sizes(shape: int | Sequence[int]) -> Shape:
    return (operator.index(shape),) if not isinstance(shape, Iterable) else tuple(operator.index(n) for n in shape)


def concat(xs: Sequence[TensorLike], axis: int | None = 0) -> Tensor:
    """Join tensors along ``axis``, in their common dtype; the other axes must be equal.

    ``axis=None`` flattens each of them first. One copy.

    >>> print(tc.concat([[1, 2], [3]]).numpy())
    [1 2 3]
    """
    if not xs:
        raise ShapeMismatch("concat needs at least one tensor")
    tensors = [as_tensor(x, like=xs) for x in xs]
    if axis is None:
        tensors, axis = [reshape(x, (-1,) if x.size else (0,)) for x in tensors], 0
    dtype = result_type([x.dtype for x in tensors])
    return apply(CONCAT, *(astype(x, dtype) for x in tensors), axis=normalize_axis(axis, tensors[0].ndim))


def spelled_out(keys: Sequence[Any], taken: int, ndim: int) -> list[Any]:
    """Expand ``...`` (by default at the end) in ``keys`` to slices, given that they index ``taken`` axes."""
    if sum(k is Ellipsis for k in keys) > 1:
        raise IndexError("an index can only have one ellipsis")
    if taken > ndim:
        raise IndexError(f"too many indices: {taken} for {ndim} axes")
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    return [*keys[:at], *[slice(None)] * (ndim - taken), *keys[at + 1 :]]


def view_at(x: Tensor, key: Any) -> Tensor:
    """Index with integers, slices with any step, ``...`` and ``None``, as in NumPy. Always a view.

    Raises:
        IndexError: an index is out of range, or there are too many.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    keys = spelled_out(keys, sum(k is not None and k is not Ellipsis for k in keys), x.ndim)
    ranges: list[tuple[int, int, int]] = []
    shape: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
            continue
        size = x.shape[len(ranges)]
        if isinstance(k, slice):
            ranges.append(k.indices(size))
            shape.append(len(range(*ranges[-1])))
        elif isinstance(k, (int, np.integer)) and not isinstance(k, bool):
            if not -size <= k < size:
                raise IndexError(f"index {k} is out of range for axis {len(ranges)} of size {size}")
            start = int(k) % size
            ranges.append((start, start + 1, 1))
        else:
            raise IndexError(f"an index must be an integer, slice, ..., None or an array, not {type(k).__name__}")
    return reshape(apply(SLICE, x, ranges=tuple(ranges)), shape)
