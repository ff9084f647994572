"""Samples of views and copies: every dtype, exact."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.samples import DTYPES, LARGE, UNARY, declare

EXACT = {"each": True, "tolerance": 0, "half_tolerance": 0}


def _some(x: Any) -> Any:
    return x[(slice(None, None, -2),) * x.ndim]


declare("reshape", lambda x: tc.reshape(x, (-1, 1) if x.size else (0,)), lambda x: x.reshape((-1, 1) if x.size else (0,)), UNARY, DTYPES, **EXACT)  # noqa: E501 # fmt: skip
declare("permute_dims", lambda x: tc.permute_dims(x, range(x.ndim)[::-1]), np.transpose, UNARY, DTYPES, **EXACT)
declare("broadcast_to", lambda x: tc.broadcast_to(x, (3, *x.shape)), lambda x: np.broadcast_to(x, (3, *x.shape)), UNARY, DTYPES, **EXACT)  # noqa: E501 # fmt: skip
declare("slice", _some, _some, (*UNARY, ((LARGE,),)), DTYPES, **EXACT)
declare(
    "concat",
    lambda *xs: tc.concat(xs, -1),
    lambda *xs: np.concatenate(xs, -1),
    (((7,), (7,)), ((3, 5), (3, 2), (3, 0), (3, 8)), ((0, 4), (0, 4)), ((2, 3, 1), (2, 3, 2))),
    DTYPES,
    **EXACT,
)

WIDTHS = {0: [], 1: [(2, 1)], 2: [(0, 3), (1, 0)], 3: [(1, 2), (0, 0), (3, 1)], 4: [(1, 0), (0, 1), (2, 0), (1, 1)]}
declare(
    "pad",
    lambda x: tc.pad(x, WIDTHS[x.ndim], constant_values=1),
    lambda x: np.pad(x, WIDTHS[x.ndim], constant_values=1),
    [shapes for shapes in UNARY if shapes[0]],
    ("float32", "float16", "int32", "uint32"),
    **EXACT,
)
declare("pad", lambda x: tc.pad(x, 3, constant_values=True), lambda x: np.pad(x, 3, constant_values=True), (((7,),), ((3, 5),)), ("bool",), **EXACT)  # noqa: E501 # fmt: skip
declare(
    "arange",
    lambda x: tc.arange(3, 3 + 2 * x.size, 2, dtype=x.dtype, device=x.device),
    lambda x: np.arange(3, 3 + 2 * x.size, 2).astype(x.dtype),
    (((0,),), ((1,),), ((7,),), ((1027,),)),
    ("float32", "float16", "int32", "uint32"),
    each=True,
)
