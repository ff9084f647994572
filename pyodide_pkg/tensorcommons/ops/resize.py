"""Resize images: every mode is a weighted sum of neighbours along one axis and then along the other.

The neighbours and their weights are computed here once, in float64; the op ``resample`` computes the sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, TensorCommonsError, quoted
from ..shapes import size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .convolution import require_floats
from .indexing import take
from .pooling import adaptive_avg_pool2d
from .registry import apply, check_size, define

MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "area")


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    x, starts, weights = specs
    axis = attrs["axis"]
    assert isinstance(axis, int)
    require_floats("resample", specs[:1])
    if weights.dtype is not dtypes.float32 or weights.shape[:1] != starts.shape or weights.shape[1] > x.shape[axis]:
        raise ShapeMismatch(f"resample: starts {starts.shape} and weights {weights.shape} do not match {x.shape}")
    return Spec((*x.shape[:axis], starts.shape[0], *x.shape[axis + 1 :]), x.dtype)


def _resample(x: Any, starts: Any, weights: Any, axis: int) -> Any:
    """Accumulate over neighbours for all results, or over results: whichever are fewer."""
    rows, (out, taps) = np.moveaxis(x, axis, -1).astype(np.float64), weights.shape
    y = np.zeros((*rows.shape[:-1], out))
    if taps <= out:
        for tap in range(taps):
            y += rows[..., starts + tap] * weights[:, tap]
    else:
        for i, start in enumerate(starts):
            y[..., i] = rows[..., start : start + taps] @ weights[i].astype(np.float64)
    return np.moveaxis(y, -1, axis).astype(x.dtype)


RESAMPLE = define(
    "resample",
    _infer,
    _resample,
    multiply_adds=lambda specs, result, attrs: size_of(result.shape) * specs[2].shape[1],
)


def _linear(distance: float, sharpness: float) -> float:
    return max(0.0, 1 - abs(distance))


def _cubic(distance: float, sharpness: float) -> float:
    """The kernel of Keys, 1981."""
    d, a = abs(distance), sharpness
    if d < 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return (((d - 5) * d + 8) * d - 4) * a if d < 2 else 0.0


@lru_cache(64)
def filter_weights(size: int, out: int, scale: float, mode: str, align: bool, antialias: bool) -> tuple[Any, Any]:
    """Compute for each of ``out`` results its first neighbour (out,) and the weights of its neighbours (out, taps).

    As in PyTorch: without ``antialias``, the edge pixel is used for neighbours outside the image; with it, the filter
    is widened by ``scale``, and neighbours outside are ignored.
    """
    reach = 2 if mode == "bicubic" else 1
    kernel = _cubic if mode == "bicubic" else _linear
    stretch = max(scale, 1.0) if antialias else 1.0
    sharpness = -0.5 if antialias else -0.75
    rows: list[dict[int, float]] = []
    for i in range(out):
        centre = i * scale if align else (i + 0.5) * scale - 0.5
        near = range(math.floor(centre - reach * stretch) + 1, math.floor(centre + reach * stretch) + 1)
        found: dict[int, float] = {}
        for j in near:
            weight = kernel((j - centre) / stretch, sharpness)
            if antialias and not 0 <= j < size:
                continue
            place = min(max(j, 0), size - 1)
            found[place] = found.get(place, 0.0) + weight
        total = sum(found.values()) if antialias else 1.0
        rows.append({place: weight / total for place, weight in found.items() if weight})
    taps = max(max(row) - min(row) + 1 for row in rows)
    starts = np.array([min(min(row), size - taps) for row in rows], np.int32)
    weights = np.zeros((out, taps), np.float32)
    for i, row in enumerate(rows):
        for place, weight in row.items():
            weights[i, place - starts[i]] = weight
    return starts, weights


def _sizes(sizes: Sequence[int], size: Any, scale_factor: Any) -> tuple[list[int], list[float | None]]:
    if (size is None) == (scale_factor is None):
        raise TensorCommonsError("interpolate: pass either size or scale_factor")
    given = size if scale_factor is None else scale_factor
    each = list(given) if isinstance(given, Sequence) else [given] * len(sizes)
    if len(each) != len(sizes):
        raise ShapeMismatch(f"interpolate: {quoted(given)} must be a number, or one for each of the {len(sizes)} axes")
    if not all(math.isfinite(g) for g in each):
        raise TensorCommonsError(f"interpolate: {quoted(given)} must be finite")
    wanted = [int(g) if scale_factor is None else math.floor(s * g) for s, g in zip(sizes, each, strict=True)]
    if min((*wanted, *sizes)) < 1:
        raise ShapeMismatch(f"interpolate from {tuple(sizes)} to {tuple(wanted)}: every size must be at least 1")
    return wanted, [None if scale_factor is None else 1 / float(g) for g in each]


def interpolate(
    input: TensorLike,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    recompute_scale_factor: bool = False,
    antialias: bool = False,
) -> Tensor:
    """Resize ``input`` (batch, channels, length) or (batch, channels, height, width), as PyTorch does.

    ``mode`` is "nearest", "nearest-exact", "linear" (3 axes), "bilinear", "bicubic" (4 axes) or "area" (the mean of the
    covered pixels). ``align_corners`` aligns the centres of the corner pixels instead of the borders of the image.
    ``antialias`` widens the filter if the image shrinks (bilinear, bicubic). With ``scale_factor`` the size is
    ``floor(size * scale_factor)``, and the factor determines distances unless ``recompute_scale_factor``.

    Raises:
        ShapeMismatch: the mode does not support the axes or sizes.
        TensorCommonsError: the mode is unknown or does not support an option.

    >>> print(tc.interpolate([[[0.0, 3.0]]], size=3, mode="linear", align_corners=True).numpy())
    [[[0.  1.5 3. ]]]
    """
    tensor = as_tensor(input)
    require_floats("interpolate", [tensor.spec])
    needed = {"linear": (3,), "bilinear": (4,), "bicubic": (4,), "area": (4,)}.get(mode, (3, 4))
    if mode not in MODES:
        raise TensorCommonsError(f"interpolate: mode must be one of {', '.join(MODES)}, not {quoted(mode)}")
    if tensor.ndim not in needed:
        raise ShapeMismatch(f"interpolate {mode} takes {' or '.join(map(str, needed))} axes, not {tensor.shape}")
    smooth = mode in ("linear", "bilinear", "bicubic")
    if (align_corners and not smooth) or (antialias and mode not in ("bilinear", "bicubic")):
        raise TensorCommonsError(
            f"interpolate: mode {mode} does not support this option: align_corners needs linear, bilinear or bicubic, "
            "antialias needs bilinear or bicubic"
        )
    wanted, scales = _sizes(tensor.shape[2:], size, scale_factor)
    check_size("interpolate", Spec((*tensor.shape[:2], *wanted), tensor.dtype))
    if mode == "area":
        return adaptive_avg_pool2d(tensor, wanted)
    for axis, (out, factor) in enumerate(zip(wanted, scales, strict=True), 2):
        own = tensor.shape[axis]
        scale = own / out if factor is None or recompute_scale_factor else factor
        if align_corners:
            scale = (own - 1) / (out - 1) if out > 1 else 0.0
        if out == own and scale == 1.0:
            continue
        if smooth:
            starts, weights = filter_weights(own, out, scale, mode, align_corners, antialias)
            tensor = apply(RESAMPLE, tensor, starts, weights, axis=axis)
        else:
            half = 0.5 if mode == "nearest-exact" else 0.0
            exact = [math.floor((i + half) * scale + 1e-9) for i in range(out)]
            tensor = take(tensor, np.minimum(np.array(exact), own - 1), axis)
    return tensor
