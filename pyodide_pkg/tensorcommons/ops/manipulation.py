"""Other arrangements of the same elements, made of views and at most one copy an axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..backends.base import Spec
from ..errors import ShapeMismatch, quoted
from ..graph.constant import constant
from ..shapes import broadcast_shapes, normalize_axes, normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import PAD, broadcast_to, concat, permute_dims, reshape, view_at
from .registry import apply, check_size

ALL = slice(None)


def _at(x: Tensor, axis: int, key: slice | int) -> Tensor:
    return view_at(x, (ALL,) * axis + (key,))


def matrix_transpose(x: TensorLike) -> Tensor:
    """The last two axes exchanged; a view."""
    tensor = as_tensor(x)
    if tensor.ndim < 2:
        raise ShapeMismatch(f"matrix_transpose needs two axes, not shape {tensor.shape}")
    return permute_dims(tensor, (*range(tensor.ndim - 2), -1, -2))


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes ``source`` moved to ``destination``, the others in their order; a view."""
    tensor = as_tensor(x)
    froms, tos = (
        [normalize_axis(axis, tensor.ndim) for axis in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    if len(froms) != len(tos) or len(set(froms)) != len(froms) or len(set(tos)) != len(tos):
        raise ShapeMismatch(f"moveaxis: {source} to {destination} is no order of the {tensor.ndim} axes")
    order = [axis for axis in range(tensor.ndim) if axis not in froms]
    for to, axis in sorted(zip(tos, froms, strict=True)):
        order.insert(to, axis)
    return permute_dims(tensor, order)


def expand_dims(x: TensorLike, axis: int = 0) -> Tensor:
    """A new axis of size 1 at ``axis``; a view."""
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim + 1)
    return reshape(tensor, (*tensor.shape[:at], 1, *tensor.shape[at:]))


def squeeze(x: TensorLike, axis: int | Sequence[int]) -> Tensor:
    """Without the axes ``axis``, whose size must be 1; a view."""
    tensor = as_tensor(x)
    axes = normalize_axes(axis, tensor.ndim)
    if any(tensor.shape[a] != 1 for a in axes):
        raise ShapeMismatch(f"squeeze: axes {axes} of shape {tensor.shape} are not all of size 1")
    return reshape(tensor, [size for a, size in enumerate(tensor.shape) if a not in axes])


def broadcast_arrays(*xs: TensorLike) -> list[Tensor]:
    """All operands in the shape that they broadcast to; views."""
    tensors = [as_tensor(x, like=xs) for x in xs]
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return [broadcast_to(x, shape) for x in tensors]


def flip(x: TensorLike, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements of ``axis`` (of all axes by default) in reverse order; a view."""
    tensor = as_tensor(x)
    axes = normalize_axes(axis, tensor.ndim)
    return view_at(tensor, tuple(slice(None, None, -1) if a in axes else ALL for a in range(tensor.ndim)))


def unstack(x: TensorLike, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of size 1 along ``axis``, without that axis; views."""
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim)
    return tuple(_at(tensor, at, i) for i in range(tensor.shape[at]))


def split(x: TensorLike, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """``sections`` equal parts along ``axis``, or parts that end at the indices ``sections``, as NumPy's; views."""
    tensor = as_tensor(x)
    at = normalize_axis(axis, tensor.ndim)
    size = tensor.shape[at]
    if isinstance(sections, int):
        if sections < 1 or size % sections:
            raise ShapeMismatch(f"split: axis {axis} of size {size} has no {sections} equal parts")
        sections = [size // sections * i for i in range(1, sections)]
    edges = [0, *sections, size]
    return [_at(tensor, at, slice(low, high)) for low, high in itertools.pairwise(edges)]


def stack(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """Tensors of one shape beside each other along a new axis; one copy."""
    tensors = [as_tensor(x, like=xs) for x in xs]
    if len({x.shape for x in tensors}) != 1:
        raise ShapeMismatch(f"stack needs one shape, not {', '.join(str(x.shape) for x in tensors) or 'none'}")
    at = normalize_axis(axis, tensors[0].ndim + 1)
    return concat([expand_dims(x, at) for x in tensors], at)


def tile(x: TensorLike, repetitions: Sequence[int]) -> Tensor:
    """The whole array repeated along each axis, as NumPy's; one copy."""
    tensor = as_tensor(x)
    rank = max(tensor.ndim, len(repetitions))
    shape = (1,) * (rank - tensor.ndim) + tensor.shape
    counts = (1,) * (rank - len(repetitions)) + tuple(repetitions)
    if any(count < 0 for count in counts):
        raise ShapeMismatch(f"tile: {tuple(repetitions)} has a negative number")
    apart = reshape(tensor, [n for size in shape for n in (1, size)])
    wide = broadcast_to(apart, [n for pair in zip(counts, shape, strict=True) for n in pair])
    sizes = tuple(count * size for count, size in zip(counts, shape, strict=True))
    check_size("tile", Spec(sizes, tensor.dtype))
    return reshape(wide, sizes)


def repeat(x: TensorLike, repeats: int, axis: int | None = None) -> Tensor:
    """Each element ``repeats`` times along ``axis`` (of the flat array by default); one copy."""
    tensor = as_tensor(x)
    if axis is None:
        tensor, axis = reshape(tensor, (tensor.size,)), 0
    if repeats < 0:
        raise ShapeMismatch(f"repeat: {repeats} times")
    at = normalize_axis(axis, tensor.ndim)
    before, size, after = tensor.shape[:at], tensor.shape[at], tensor.shape[at + 1 :]
    wide = broadcast_to(reshape(tensor, (*before, size, 1, *after)), (*before, size, repeats, *after))
    sizes = (*before, size * repeats, *after)
    check_size("repeat", Spec(sizes, tensor.dtype))
    return reshape(wide, sizes)


def roll(x: TensorLike, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements moved by ``shift`` along ``axis``, those at the end to the front; one copy an axis."""
    tensor = as_tensor(x)
    if axis is None:
        if not isinstance(shift, int):
            raise ShapeMismatch("roll of the flat array takes one shift")
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
    """``pad_width`` elements more before and after each axis: one number, or a pair for each axis.

    ``mode`` is "constant", "edge" (the last element again) or "reflect" (back from the last, which is not repeated), as
    NumPy's. One copy; one an axis for the other modes.
    """
    tensor = as_tensor(x)
    widths = [(pad_width, pad_width)] * tensor.ndim if isinstance(pad_width, int) else [tuple(w) for w in pad_width]
    if len(widths) != tensor.ndim or any(len(w) != 2 or min(w) < 0 for w in widths):
        raise ShapeMismatch(f"pad: {pad_width} does not give two sizes for each axis of shape {tensor.shape}")
    if mode == "constant":
        if not any(map(any, widths)):
            return tensor
        value = constant(constant_values, tensor.dtype).attrs["value"]
        return apply(PAD, tensor, widths=tuple((int(w[0]), int(w[1])) for w in widths), value=value)
    if mode not in ("edge", "reflect"):
        raise ValueError(f"pad: mode is 'constant', 'edge' or 'reflect', not {quoted(mode)}")
    for axis, (before, after) in enumerate(widths):
        tensor = _extended(tensor, axis, before, after, mode)
    return tensor


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = x.shape[axis]
    if not before and not after:
        return x
    if size <= (max(before, after) if mode == "reflect" else 0):
        raise ShapeMismatch(f"pad: axis {axis} of size {size} cannot be continued by {max(before, after)} ({mode})")
    if mode == "reflect":
        first, last = _at(x, axis, slice(before, 0, -1)), _at(x, axis, slice(size - 2, size - 2 - after, -1))
        if size - 2 - after < 0:  # slice(_, -1, -1) would be empty
            last = _at(x, axis, slice(size - 2, None, -1))
        return concat([first, x, last] if after else [first, x], axis)
    shape = (*x.shape[:axis], -1, *x.shape[axis + 1 :])
    ends = [(_at(x, axis, slice(1)), before), (_at(x, axis, slice(size - 1, size)), after)]
    first, last = (broadcast_to(end, [n if s == -1 else s for s in shape]) for end, n in ends)
    return concat([first, x, last], axis)
