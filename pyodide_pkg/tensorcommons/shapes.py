"""Arithmetic of shapes, broadcasting and strides.

A :class:`Layout` maps the elements of a tensor to the elements of a flat storage. Reshape, permute, slice and
broadcast give new layouts over the same bytes; a result that no layout can express needs a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import index
from typing import TypeAlias

from .errors import ShapeMismatch, ViewOutOfBounds, quoted

Shape: TypeAlias = tuple[int, ...]


def size_of(shape: Sequence[int]) -> int:
    """Return the number of elements of ``shape``; 1 for a scalar."""
    return math.prod(shape)


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Return row-major strides in elements: ``(4, 3) -> (3, 1)``."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def part_length(size: int, parts: int) -> int:
    """Return the length of each of ``parts`` parts of ``size`` elements: a multiple of 4; the last may be shorter."""
    return size if parts == 1 else -(-size // (4 * parts)) * 4


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the shape to which all ``shapes`` broadcast, by NumPy's rule.

    Raises:
        ShapeMismatch: two sizes of one axis differ and neither is 1.
    """
    rank = max((len(shape) for shape in shapes), default=0)
    result = []
    for axis in range(rank):
        sizes = {shape[axis - rank] for shape in shapes if axis - rank >= -len(shape)} - {1}
        if len(sizes) > 1:
            raise ShapeMismatch(
                f"shapes {', '.join(map(str, shapes))} do not broadcast together: sizes of an axis must be equal or 1"
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def normalize_axis(axis: int, rank: int) -> int:
    """Return ``axis`` counted from the front. Raises ShapeMismatch if it is not an integer or out of range."""
    try:
        axis = index(axis)
    except TypeError:
        raise ShapeMismatch(f"an axis must be an integer, not {quoted(axis)}") from None
    if not -rank <= axis < rank:
        raise ShapeMismatch(f"axis {axis} is out of range for {rank} dimensions")
    return axis % rank


def normalize_axes(axes: int | Sequence[int] | None, rank: int) -> Shape:
    """Return sorted axes counted from the front; ``None`` means all axes."""
    if axes is None:
        return tuple(range(rank))
    listed = list(axes) if isinstance(axes, Iterable) else [axes]
    result = sorted(normalize_axis(axis, rank) for axis in listed)
    if len(set(result)) != len(result):
        raise ShapeMismatch(f"axes {tuple(listed)} name an axis twice")
    return tuple(result)


def infer_reshape(shape: Shape, target: Sequence[int]) -> Shape:
    """Return ``target`` with a ``-1`` replaced by the size that gives it as many elements as ``shape``."""
    total = size_of(shape)
    known = size_of([size for size in target if size != -1])
    wildcards = sum(size == -1 for size in target)
    if wildcards == 1 and known > 0 and total % known == 0:
        return tuple(total // known if size == -1 else size for size in target)
    if wildcards or known != total or any(size < 0 for size in target):
        raise ShapeMismatch(f"shape {shape} ({total} elements) cannot be reshaped to {tuple(target)}")
    return tuple(target)


@dataclass(frozen=True)
class Layout:
    """Map element ``(i, j)`` of a tensor to element ``offset + i * strides[0] + j * strides[1]`` of a storage."""

    shape: Shape
    strides: Shape
    offset: int = 0

    @staticmethod
    def contiguous(shape: Sequence[int]) -> Layout:
        """Return the row-major layout of ``shape`` from element 0."""
        return _contiguous(tuple(shape))

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return size_of(self.shape)

    @cached_property
    def is_contiguous(self) -> bool:
        """True if the layout is row-major without gaps, at any offset. Axes of size 1 may have any stride."""
        if self.size == 0:
            return True
        wanted = contiguous_strides(self.shape)
        return all(size == 1 or have == want for size, have, want in zip(self.shape, self.strides, wanted, strict=True))

    @property
    def is_dense(self) -> bool:
        """True if the layout is row-major from element 0 without gaps."""
        return self.offset == 0 and self.is_contiguous

    @cached_property
    def extent(self) -> tuple[int, int]:
        """The half-open range of storage elements that the layout covers."""
        if self.size == 0:
            return self.offset, self.offset
        low = high = self.offset
        for size, stride in zip(self.shape, self.strides, strict=True):
            reach = (size - 1) * stride
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high + 1

    def permute(self, axes: Sequence[int]) -> Layout:
        """Return the layout with its axes in another order."""
        rank = len(self.shape)
        order = [normalize_axis(axis, rank) for axis in axes]
        if sorted(order) != list(range(rank)):
            raise ShapeMismatch(f"axes {tuple(axes)} must name each of the {rank} axes of {self.shape} once")
        return Layout(tuple(self.shape[a] for a in order), tuple(self.strides[a] for a in order), self.offset)

    def broadcast_to(self, shape: Sequence[int]) -> Layout:
        """Return the layout broadcast to ``shape``: repeated axes get stride 0, so no bytes are copied."""
        target = tuple(shape)
        if broadcast_shapes(self.shape, target) != target:
            raise ShapeMismatch(f"shape {self.shape} does not broadcast to {target}")
        lead = len(target) - len(self.shape)
        strides = [0] * lead + [
            stride if size == want else 0
            for size, stride, want in zip(self.shape, self.strides, target[lead:], strict=True)
        ]
        return Layout(target, tuple(strides), self.offset)

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> Layout:
        """Select elements ``start, start + step, ...`` before ``stop`` of one axis; ``step`` may be negative.

        Raises:
            ViewOutOfBounds: ``start`` or the last element lies outside the axis.
        """
        axis = normalize_axis(axis, len(self.shape))
        count = len(range(start, stop, step))
        if count and not (0 <= start < self.shape[axis] and 0 <= start + (count - 1) * step < self.shape[axis]):
            raise ViewOutOfBounds(f"[{start}:{stop}:{step}] extends past axis {axis} of size {self.shape[axis]}")
        shape = self.shape[:axis] + (count,) + self.shape[axis + 1 :]
        strides = self.strides[:axis] + (self.strides[axis] * step,) + self.strides[axis + 1 :]
        return Layout(shape, strides, self.offset + (start * self.strides[axis] if count else 0))

    def reshape(self, shape: Sequence[int]) -> Layout | None:
        """Return the layout of the same elements in another shape, in row-major order; ``None`` if it needs a copy."""
        target = infer_reshape(self.shape, shape)
        if self.size == 0:
            return Layout(target, contiguous_strides(target), self.offset)
        # Merge neighbouring axes that are contiguous with each other, then split these runs into the target's axes.
        runs: list[tuple[int, int]] = []
        for size, stride in zip(self.shape, self.strides, strict=True):
            if size == 1:
                continue
            if runs and runs[-1][1] == size * stride:
                runs[-1] = (runs[-1][0] * size, stride)
            else:
                runs.append((size, stride))
        strides = [0] * len(target)
        run = len(runs) - 1
        left = runs[run][0] if runs else 1
        for axis in range(len(target) - 1, -1, -1):
            size = target[axis]
            if size == 1:
                strides[axis] = 1
                continue
            while left == 1:
                run -= 1
                left = runs[run][0]
            if left % size:
                return None
            strides[axis] = runs[run][1] * (runs[run][0] // left)
            left //= size
        return Layout(target, tuple(strides), self.offset)


@lru_cache(256)  # every read needs the layouts of its tensors
def _contiguous(shape: Shape) -> Layout:
    return Layout(shape, contiguous_strides(shape))
