"""Elementwise ops: every element by itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensorcommons as tc
from tests.cases.samples import BINARY, DTYPES, FLOATS, LARGE, UNARY, declare

erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + erf(x * np.sqrt(0.5)))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _relu(x: Any) -> Any:
    return np.maximum(x, 0)


for _name, _wanted, _range in (
    ("exp", np.exp, (-80, 80)),
    ("log", np.log, (1e-3, 50)),
    ("log1p", np.log1p, (-0.99, 9)),
    ("sqrt", np.sqrt, (0, 9)),
    ("tanh", np.tanh, (-9, 9)),
    ("sigmoid", _sigmoid, (-20, 20)),
    ("relu", _relu, (-2, 2)),
    ("gelu", _gelu, (-2, 5)),
):
    declare(_name, getattr(tc, _name), _wanted, UNARY, FLOATS, each=True, special=_name != "gelu", ranges=[_range])
for _name in ("negative", "abs"):
    declare(_name, getattr(tc, _name), getattr(np, _name), (*UNARY, ((LARGE,),)), FLOATS, each=True, special=True)
for _name in ("add", "subtract", "multiply", "maximum", "minimum"):
    declare(_name, getattr(tc, _name), getattr(np, _name), BINARY, FLOATS, each=True, special=True)
declare("divide", tc.divide, np.divide, BINARY, FLOATS, each=True, special=True)
for _dtype in DTYPES:
    declare("cast", lambda x, to=_dtype: tc.astype(x, to), lambda x, to=_dtype: x.astype(to), UNARY, DTYPES, each=True, result=_dtype, ranges=[(0, 9)])  # noqa: E501 # fmt: skip
