"""Rearrange elements, by views and at most one copy for each axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..backends.base import Spec
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..graph.constant import constant
from ..shapes import broadcast_shapes, normalize_axes, normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .elementwise import not_equal, subtract
from .indexing import take
from .layout import PAD, broadcast_to, concat, permute_dims, reshape, view_at
from .reading import values_of
from .registry import apply, check_size

ALL = slice(None)


def _at(x: Tensor, axis: int, key: slice | int) -> Tensor:
    return view_at(x, (ALL,) * axis + (key,))


def matrix_transpose(x: TensorLike) -> Tensor:
    """Exchange the last two axes; a view.

    >>> print(tc.matrix_transpose([[1, 2], [3, 4]]).numpy())
    [[1 3]
     [2 4]]
    """
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        raise ShapeMismatch(f"matrix_transpose needs at least two axes, not shape {tensor.shape}")
    return permute_dims(tensor, (*range(tensor.ndim - 2), -1, -2))


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Move the axes ``source`` to ``destination``; the others keep their order. A view.

    >>> tc.moveaxis(tc.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    tensor = as_tensor(x)
    froms, tos = (
        [normalize_axis(axis, tensor.ndim) for axis in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise ShapeMismatch(
            f"moveaxis: source {quoted(source)} and destination {quoted(destination)} must be as many different axes"
        )
    order = [axis for axis in range(tensor.ndim) if axis not in froms]
    for to, axis in sorted(zip(tos, froms, strict=True)):
        order.insert(to, axis)
    return permute_dims(tensor, order)


def expand_dims(x: TensorLike, axis: int = 0) -> Tensor:
    """Insert an axis of size 1 at ``axis``; a view.

    >>> tc.expand_dims([1, 2]).shape
    (1, 2)
    """
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim + 1)
    return reshape(tensor, (*tensor.shape[:at], 1, *tensor.shape[at:]))


def squeeze(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """Remove the axes ``axis``, whose sizes must be 1; a view.

    >>> tc.squeeze([[1, 2]], 0).shape
    (2,)
    """
    tensor = as_tensor(x)
    axes = normalize_axes(axis, tensor.ndim)
    if any(tensor.shape[a] != 1 for a in axes):
        raise ShapeMismatch(f"squeeze: the axes {axes} of shape {tensor.shape} must have size 1")
    return reshape(tensor, [size for a, size in enumerate(tensor.shape) if a not in axes])


def broadcast_arrays(*xs: TensorLike) -> list[Tensor]:
    """Broadcast all operands to their common shape; views.

    >>> x, y = tc.broadcast_arrays([1, 2], [[3], [4]])
    >>> print(x.numpy())
    [[1 2]
     [1 2]]
    >>> print(y.numpy())
    [[3 3]
     [4 4]]
    """
    tensors = [as_tensor(x, like=xs) for x in xs]
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return [broadcast_to(x, shape) for x in tensors]


def flip(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """Reverse the order of elements along ``axis`` (all axes by default); a view.

    >>> print(tc.flip([1, 2, 3]).numpy())
    [3 2 1]
    """
    tensor = as_tensor(x)
    axes = normalize_axes(axis, tensor.ndim)
    return view_at(tensor, tuple(slice(None, None, -1) if a in axes else ALL for a in range(tensor.ndim)))


def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """Split into slices of size 1 along ``axis``, and remove that axis; views.

    >>> first, second = tc.unstack([[1, 2], [3, 4]])
    >>> print(second.numpy())
    [3 4]
    """
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim)
    return tuple(_at(tensor, at, i) for i in range(tensor.shape[at]))


def split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Split into ``sections`` equal parts along ``axis``, or at the indices ``sections``, as in NumPy; views.

    >>> first, second = tc.split([1, 2, 3, 4], 2)
    >>> print(second.numpy())
    [3 4]
    """
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim)
    size = tensor.shape[at]
    if isinstance(sections, int):
        if sections < 1 or size % sections:
            raise ShapeMismatch(f"split: axis {axis} of size {size} cannot be divided into {sections} equal parts")
        sections = [size // sections * i for i in range(1, sections)]
    edges = [0, *sections, size]
    return [_at(tensor, at, slice(low, high)) for low, high in itertools.pairwise(edges)]


def stack(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis; one copy.

    >>> print(tc.stack([[1, 2], [3, 4]]).numpy())
    [[1 2]
     [3 4]]
    """
    tensors = [as_tensor(x, like=xs) for x in xs]
    if len({x.shape for x in tensors}) != 1:
        shapes = ", ".join(str(x.shape) for x in tensors) or "none"
        raise ShapeMismatch(f"stack needs one or more tensors of one shape, not {shapes}")
    at = normalize_axis(axis, tensors[0].ndim + 1)
    return concat([expand_dims(x, at) for x in tensors], at)


def tile(x: TensorLike, repetitions: Sequence[int]) -> Tensor:
    """Repeat the whole array along each axis, as in NumPy; one copy.

    >>> print(tc.tile([1, 2], (2,)).numpy())
    [1 2 1 2]
    """
    tensor = as_tensor(x)
    rank = max(tensor.ndim, len(repetitions))
    shape = (1,) * (rank - tensor.ndim) + tensor.shape
    counts = (1,) * (rank - len(repetitions)) + tuple(repetitions)
    if any(count < 0 for count in counts):
        raise ShapeMismatch(f"tile: repetitions must not be negative, not {tuple(repetitions)}")
    apart = reshape(tensor, [n for size in shape for n in (1, size)])
    wide = broadcast_to(apart, [n for pair in zip(counts, shape, strict=True) for n in pair])
    sizes = tuple(count * size for count, size in zip(counts, shape, strict=True))
    check_size("tile", Spec(sizes, tensor.dtype))
    return reshape(wide, sizes)


def repeat(x: TensorLike, repeats: int | TensorLike, axis: int | None = None) -> Tensor:
    """Repeat each element ``repeats`` times along ``axis`` (of the flattened array by default); one copy.

    ``repeats`` is a number, or an array of one for each element of the axis; one of a single element counts for all. A
    tensor is read, as for :func:`unique_all`.

    Raises:
        ReadRequired: ``repeats`` is on an asynchronous device, and the running Python cannot be suspended.
        ShapeMismatch: a number is negative, or ``repeats`` does not match the axis.
        UnsupportedDtype: ``repeats`` are not ints.

    >>> print(tc.repeat([1, 2], 2).numpy())
    [1 1 2 2]
    >>> print(tc.repeat([1, 2], [0, 3]).numpy())
    [2 2 2]
    """
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = reshape(tensor, (tensor.size,)), 0
    at = normalize_axis(axis, tensor.ndim)
    before, size, after = tensor.shape[:at], tensor.shape[at], tensor.shape[at + 1 :]
    read = (
        values_of(repeats, "repeat()", "tc.repeat(x, await repeats.read())") if isinstance(repeats, Tensor) else repeats
    )
    counts = np.asarray(read)
    if counts.dtype.kind not in "iu" and counts.size:
        raise UnsupportedDtype(f"repeat: repeats must be ints, not {counts.dtype}")
    if counts.ndim > 1 or (counts.size != 1 and counts.shape != (size,)):
        raise ShapeMismatch(f"repeat: repeats {counts.shape} do not match axis {at} of {tensor.shape}")
    if (counts < 0).any():
        raise ShapeMismatch(f"repeat: repeats must not be negative, not {counts.min()}")
    if counts.size == 1:
        count = int(counts.reshape(-1)[0])
        wide = broadcast_to(reshape(tensor, (*before, size, 1, *after)), (*before, size, count, *after))
        sizes = (*before, size * count, *after)
        check_size("repeat", Spec(sizes, tensor.dtype))
        return reshape(wide, sizes)
    check_size("repeat", Spec((*before, int(counts.sum(dtype=np.int64)), *after), tensor.dtype))
    return take(tensor, np.repeat(np.arange(size, dtype=np.int32), counts), axis=at)


def diff(
    x: TensorLike,
    axis: int = -1,
    n: int = 1,
    prepend: TensorLike | None = None,
    append: TensorLike | None = None,
) -> Tensor:
    """``y[i] = x[i + 1] - x[i]`` along ``axis``, ``n`` times; of bools, whether they differ.

    The axis has ``n`` elements less. ``prepend`` and ``append``, of the shape of ``x`` but for ``axis``, are joined to
    ``x`` before. Ints wrap.

    Raises:
        ShapeMismatch: ``n`` is negative, or shapes do not fit.

    >>> print(tc.diff([1, 4, 9, 16]).numpy())
    [3 5 7]
    >>> print(tc.diff([1, 4, 9, 16], n=2, prepend=[0]).numpy())
    [2 2 2]
    """
    tensor = as_tensor(x, like=(prepend, append))
    at = normalize_axis(axis, tensor.ndim)
    if n < 0:
        raise ShapeMismatch(f"diff: n must not be negative, not {n}")
    ends = [[] if end is None else [as_tensor(end, like=(tensor,))] for end in (prepend, append)]
    if prepend is not None or append is not None:
        tensor = concat([*ends[0], tensor, *ends[1]], at)
    for _ in range(min(n, tensor.shape[at])):
        later, earlier = _at(tensor, at, slice(1, None)), _at(tensor, at, slice(None, -1))
        tensor = not_equal(later, earlier) if tensor.dtype.kind == "bool" else subtract(later, earlier)
    return tensor


def roll(x: TensorLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Rotate the elements by ``shift`` along ``axis``; one copy for each axis.

    >>> print(tc.roll([1, 2, 3], 1).numpy())
    [3 1 2]
    """
    tensor = as_tensor(x)
    if axis is None:
        if not isinstance(shift, int):
            raise ShapeMismatch(f"roll without axis takes one shift, not {quoted(shift)}")
        return reshape(roll(reshape(tensor, (tensor.size,)), shift, 0), tensor.shape)
    axes = [axis] if isinstance(axis, int) else list(axis)
    shifts = [shift] * len(axes) if isinstance(shift, int) else list(shift)
    if len(axes) != len(shifts):
        raise ShapeMismatch(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for one, by in zip(axes, shifts, strict=True):
        at = normalize_axis(one, tensor.ndim)
        cut = -by % max(tensor.shape[at], 1)
        if cut:
            tensor = concat([_at(tensor, at, slice(cut, None)), _at(tensor, at, slice(cut))], at)
    return tensor


def pad(
    x: TensorLike, pad_width: int | Sequence[Sequence[int]], mode: str = "constant", constant_values: float = 0
) -> Tensor:
    """Add ``pad_width`` elements before and after each axis: one number, or a pair for each axis.

    ``mode`` is "constant", "edge" (repeats the last element) or "reflect" (mirrors at the last element), as in NumPy.
    "constant" makes one copy, the other modes one for each axis.

    Raises:
        ShapeMismatch: ``pad_width`` does not match the axes, or an axis is too short for "reflect" or "edge".
        TensorCommonsError: the mode is unknown.

    >>> print(tc.pad([1, 2], 1).numpy())
    [0 1 2 0]
    >>> print(tc.pad([1, 2, 3], [(2, 0)], mode="reflect").numpy())
    [3 2 1 2 3]
    """
    tensor = as_tensor(x)
    widths = [(pad_width, pad_width)] * tensor.ndim if isinstance(pad_width, int) else [tuple(w) for w in pad_width]
    if len(widths) != tensor.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
        raise ShapeMismatch(
            f"pad: pad_width must be a number, or two for each axis of shape {tensor.shape}, not {quoted(pad_width)}"
        )
    if mode == "constant":
        if not any(map(any, widths)):
            return tensor
        value = constant(constant_values, tensor.dtype).attrs["value"]
        return apply(PAD, tensor, widths=tuple((int(w[0]), int(w[1])) for w in widths), value=value)
    if mode not in ("edge", "reflect"):
        raise TensorCommonsError(f"pad: mode must be 'constant', 'edge' or 'reflect', not {quoted(mode)}")
    for axis, (before, after) in enumerate(widths):
        tensor = _extended(tensor, axis, before, after, mode)
    return tensor


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = x.shape[axis]
    if not before and not after:
        return x
    if size <= (max(before, after) if mode == "reflect" else 0):
        raise ShapeMismatch(
            f"pad: axis {axis} of size {size} is too short for {max(before, after)} elements of mode {mode}"
        )
    if mode == "reflect":
        first, last = _at(x, axis, slice(before, 0, -1)), _at(x, axis, slice(size - 2, size - 2 - after, -1))
        if size - 2 - after < 0:  # slice(_, -1, -1) would be empty
            last = _at(x, axis, slice(size - 2, None, -1))
        return concat([first, x, last] if after else [first, x], axis)
    shape = (*x.shape[:axis], -1, *x.shape[axis + 1 :])
    ends = [(_at(x, axis, slice(1)), before), (_at(x, axis, slice(size - 1, size)), after)]
    first, last = (broadcast_to(end, [n if s == -1 else s for s in shape]) for end, n in ends)
    return concat([first, x, last], axis)
