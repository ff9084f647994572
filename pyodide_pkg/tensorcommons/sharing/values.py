"""Values that come into a tensor: their bytes, and where those of a view lie."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..errors import ShapeMismatch, UnsupportedDtype, ViewOutOfBounds, quoted
from ..shapes import Layout


def as_bytes(data: Any, spec: Spec) -> memoryview:
    """Convert ``data`` (array, list, number or raw bytes) to the dense bytes of ``spec``.

    Raises ShapeMismatch for another size, UnsupportedDtype where the values would change in kind.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        raw = memoryview(data)
        raw = raw.cast("B") if raw.c_contiguous else memoryview(raw.tobytes())
        if raw.nbytes != spec.nbytes:
            raise ShapeMismatch(
                f"{raw.nbytes:,} bytes do not make {spec.shape} of {spec.dtype} ({spec.nbytes:,} bytes)"
            )
        return raw
    array = np.asarray(data)
    if array.shape != spec.shape:
        raise ShapeMismatch(f"data of shape {array.shape} does not fit a tensor of shape {spec.shape}")
    if array.dtype != spec.dtype.numpy and not (
        np.can_cast(array.dtype, spec.dtype.numpy, "same_kind") or isinstance(data, (int, float, list, tuple))
    ):
        raise UnsupportedDtype(f"data of {array.dtype} would change as {spec.dtype}; cast it, or register that dtype")
    with np.errstate(all="ignore"):  # float16 has its infinities
        dense = np.ascontiguousarray(array, spec.dtype.numpy).reshape(array.shape)
        if dense.dtype.kind in "iub" and dense.dtype != array.dtype and not np.array_equal(dense, array):
            raise UnsupportedDtype(f"data has values that {spec.dtype} cannot hold: {array.min()} to {array.max()}")
    return memoryview(dense.reshape(-1).view(np.uint8))


def runs(layout: Layout, itemsize: int, data: memoryview) -> list[tuple[int, memoryview]]:
    """Cut dense ``data`` into the contiguous runs that ``layout`` has in its storage: (byte offset, bytes)."""
    if layout.size == 0:
        return []
    inner = len(layout.shape)
    length = 1
    while inner and (layout.strides[inner - 1] == length or layout.shape[inner - 1] == 1):
        length *= layout.shape[inner - 1]
        inner -= 1
    pieces = []
    for number, index in enumerate(np.ndindex(*layout.shape[:inner])):
        start = layout.offset + sum(i * stride for i, stride in zip(index, layout.strides, strict=False))
        pieces.append((start * itemsize, data[number * length * itemsize : (number + 1) * length * itemsize]))
    return pieces


def view_layout(shown: Layout, offset: Sequence[int], size: Sequence[int], name: str) -> Layout:
    """Return the layout of a part of ``shown``. Raises ViewOutOfBounds with the numbers."""
    try:
        offset, size = [operator.index(start) for start in offset], [operator.index(length) for length in size]
    except TypeError:
        raise ViewOutOfBounds(f"view {quoted(name)}: offset and size are whole numbers, one a dimension") from None
    if len(offset) != len(shown.shape) or len(size) != len(shown.shape):
        raise ViewOutOfBounds(
            f"view {quoted(name)}: offset {tuple(offset)} and size {tuple(size)} do not match {shown.shape}"
        )
    for start, length, whole in zip(offset, size, shown.shape, strict=True):
        if start < 0 or length < 1 or start + length > whole:
            raise ViewOutOfBounds(
                f"view {quoted(name)}: {tuple(offset)} + {tuple(size)} reaches past {shown.shape}, or is empty"
            )
    for axis, (start, length) in enumerate(zip(offset, size, strict=True)):
        shown = shown.slice(axis, start, start + length)
    return shown
