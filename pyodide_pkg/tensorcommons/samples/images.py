"""Samples of convolutions, pooling, resizing and rotary embedding: compared by norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.samples import FLOATS, Shapes, declare, drawn


def _conv2d(x: Any, w: Any, bias: Any, *, groups: int = 1, stride: int = 1) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    own = windows.reshape(x.shape[0], groups, w.shape[1], *windows.shape[2:])
    y = np.einsum("ngcijab,gocab->ngoij", own, w.reshape(groups, -1, *w.shape[1:]))
    return y.reshape(x.shape[0], w.shape[0], *y.shape[3:]) + bias[:, None, None]


def _halves(x: Any) -> Any:
    """Compute the means of 2 x 2 windows that do not overlap."""
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :, : 2 * rows, : 2 * columns].reshape(*x.shape[:2], rows, 2, columns, 2).mean((3, 5))


def _twice(x: Any) -> Any:
    """Interpolate the last two axes linearly to twice their size."""
    for axis in (2, 3):
        size = x.shape[axis]
        at = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - share) + np.take(x, np.minimum(low + 1, size - 1), axis) * share
    return x


def _with_tables(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    return [drawn(rng, dtype, shapes[0]), *tc.rotary_tables(20, 4)]


def _rotary(x: Any, cos: Any, sin: Any) -> Any:
    cos, sin = (table[: x.shape[-2]] for table in (cos, sin))
    a, b = x[..., :2], x[..., 2:4]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., 4:]], -1)


IMAGES: tuple[Shapes, ...] = (((1, 1, 2, 2),), ((2, 3, 7, 9),), ((0, 2, 4, 4),), ((1, 5, 16, 33),))
declare("conv2d", tc.conv2d, _conv2d, (((2, 3, 7, 9), (5, 3, 3, 3), (5,)), ((1, 1, 3, 3), (1, 1, 2, 3), (1,)), ((0, 2, 5, 5), (3, 2, 2, 2), (3,)), ((1, 9, 8, 8), (15, 9, 3, 3), (15,))), FLOATS)  # noqa: E501 # fmt: skip
declare("conv2d", partial(tc.conv2d, groups=3, stride=2), partial(_conv2d, groups=3, stride=2), (((2, 3, 7, 9), (3, 1, 3, 3), (3,)), ((1, 6, 9, 8), (9, 2, 3, 2), (9,))), FLOATS)  # noqa: E501 # fmt: skip
declare("patches", tc.conv2d, _conv2d, (((2, 3, 7, 9), (32, 3, 3, 3), (32,)), ((1, 1, 3, 3), (33, 1, 2, 3), (33,)), ((0, 2, 5, 5), (33, 2, 2, 2), (33,))), FLOATS)  # noqa: E501 # fmt: skip
declare("pool2d", lambda x: tc.avg_pool2d(x, 2), _halves, IMAGES, FLOATS)
declare("pool2d", lambda x: tc.max_pool2d(x, (1, 2), 1), lambda x: np.maximum(x[..., :-1], x[..., 1:]), IMAGES, FLOATS)
declare("resample", lambda x: tc.interpolate(x, scale_factor=2, mode="bilinear"), _twice, IMAGES, FLOATS)
declare("rotary_embedding", tc.rotary_embedding, _rotary, (((1, 4),), ((2, 3, 20, 8),), ((0, 5, 4),), ((7, 11),)), FLOATS, values=_with_tables)  # noqa: E501 # fmt: skip
