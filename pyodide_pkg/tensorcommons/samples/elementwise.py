"""Samples of elementwise ops: every element is compared, with NaN, infinities and extremes in all combinations."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.samples import BINARY, DTYPES, FLOATS, INTS, LARGE, NUMBERS, UNARY, Shapes, declare, drawn

every = partial(declare, each=True, special=True)
BOOL = ("bool",)

for _name, _wanted, _range in (
    ("exp", np.exp, (-80, 80)),
    ("expm1", np.expm1, (-1, 40)),
    ("log", np.log, (1e-3, 50)),
    ("log1p", np.log1p, (-0.99, 9)),
    ("log2", np.log2, (1e-3, 50)),
    ("log10", np.log10, (1e-3, 2000)),
    ("sqrt", np.sqrt, (0, 9)),
    ("rsqrt", lambda x: 1 / np.sqrt(x), (0.01, 9)),
    ("reciprocal", lambda x: 1 / x, (-9, 9)),
    ("sinh", np.sinh, (-20, 20)),
    ("cosh", np.cosh, (-20, 20)),
    ("tanh", np.tanh, (-12, 12)),
    ("asinh", np.arcsinh, (-1000, 1000)),
    ("acosh", np.arccosh, (1, 1000)),
    ("atanh", np.arctanh, (-0.999, 0.999)),
    ("asin", np.arcsin, (-1, 1)),
    ("acos", np.arccos, (-1, 1)),
    ("atan", np.arctan, (-50, 50)),
):
    every(_name, getattr(tc, _name), _wanted, UNARY, FLOATS, ranges=[_range])
# Periodic functions have no precision at 3e38: their extremes are those of the documented range.
for _name in ("sin", "cos", "tan"):
    _f, _wanted = getattr(tc, _name), getattr(np, _name)
    for _limit in (3, 10_000):
        declare(_name, _f, _wanted, UNARY, FLOATS, each=True, ranges=[(-_limit, _limit)])
for _name in ("negative", "abs", "sign", "square", "ceil", "floor", "trunc", "round"):
    every(_name, getattr(tc, _name), getattr(np, _name), (*UNARY, ((LARGE,),)), NUMBERS)
for _name in ("isnan", "isinf", "isfinite"):
    every(_name, getattr(tc, _name), getattr(np, _name), UNARY, NUMBERS)
for _name in ("add", "subtract", "multiply", "maximum", "minimum"):
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, NUMBERS)
for _name in ("less", "less_equal", "greater", "greater_equal"):
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, NUMBERS)
for _name in ("equal", "not_equal"):
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, DTYPES)
every("divide", tc.divide, np.divide, BINARY, FLOATS)
declare("divide", tc.divide, lambda x, y: np.divide(x, y), BINARY, INTS, each=True, special=True, result="float32")
every("atan2", tc.atan2, np.arctan2, BINARY, FLOATS)
for _name in ("floor_divide", "remainder"):  # for floats, quotients of extremes exceed the documented range
    declare(_name, getattr(tc, _name), getattr(np, _name), BINARY, FLOATS, each=True, ranges=[(-50, 50), (-3, 3)])
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, INTS)


def _int_power(x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        inverse = np.trunc(1 / x.astype(np.float64) ** np.minimum(np.abs(y.astype(np.float64)), 64))
    return np.where(y < 0, np.where(x == 0, 0, inverse).astype(x.dtype), np.power(x, np.maximum(y, 0)))


every("pow", tc.pow, np.power, BINARY, FLOATS, ranges=[(0.1, 4), (-6, 6)])
every("pow", tc.pow, _int_power, BINARY, INTS)

for _name in ("logical_and", "logical_or", "logical_xor"):
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, BOOL)
every("logical_not", tc.logical_not, np.logical_not, UNARY, BOOL)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    every(_name, getattr(tc, _name), getattr(np, _name), BINARY, (*INTS, *BOOL))
every("bitwise_invert", tc.bitwise_invert, np.invert, UNARY, (*INTS, *BOOL))
every("bitwise_left_shift", tc.bitwise_left_shift, np.left_shift, BINARY, INTS)
every("bitwise_right_shift", tc.bitwise_right_shift, np.right_shift, BINARY, INTS)


def _choices(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    return [drawn(rng, "bool", shapes[0]), *(drawn(rng, dtype, shape) for shape in shapes[1:])]


TERNARY = (
    ((7,), (7,), (7,)),
    ((13, 1), (17,), (13, 17)),
    ((), (3, 5), ()),
    ((2, 1), (0,), (2, 1)),
    ((5,), (1,), (3, 5)),
)
declare("where", tc.where, np.where, TERNARY, DTYPES, each=True, tolerance=0, half_tolerance=0, values=_choices)
for _dtype in DTYPES:
    _to = partial(lambda x, to: tc.astype(x, to), to=_dtype)
    declare("cast", _to, lambda x, to=_dtype: x.astype(to), UNARY, [d for d in DTYPES if d != _dtype], each=True, result=_dtype, ranges=[(0, 9)])  # noqa: E501 # fmt: skip
for _dtype, _value in (("float32", 0.1), ("float16", 1.5), ("int32", -7), ("uint32", 2**32 - 1), ("bool", True)):
    declare("full", lambda x, v=_value: tc.full_like(x, v), lambda x, v=_value: np.full(x.shape, v, x.dtype), UNARY, [_dtype], each=True)  # noqa: E501 # fmt: skip

erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _hardsigmoid(x: Any) -> Any:
    return np.clip(x + 3, 0, 6) / 6


for _name, _wanted, _range in (
    ("erf", erf, (-3, 3)),
    ("relu", lambda x: np.maximum(x, 0), (-2, 2)),
    ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), (-60, 60)),
    ("silu", lambda x: x / (1 + np.exp(-x)), (-60, 60)),
    ("softplus", lambda x: np.logaddexp(x, 0), (-60, 60)),
    ("hardsigmoid", _hardsigmoid, (-5, 5)),
    ("hardswish", lambda x: x * _hardsigmoid(x), (-5, 5)),
    ("leaky_relu", lambda x: np.where(x >= 0, x, 0.01 * x), (-5, 5)),
    ("elu", lambda x: np.where(x > 0, x, np.expm1(x)), (-20, 5)),
):
    every(_name, getattr(tc, _name), _wanted, UNARY, FLOATS, ranges=[_range])
every("leaky_relu", partial(tc.leaky_relu, negative_slope=0.3), lambda x: np.where(x >= 0, x, 0.3 * x), UNARY, FLOATS)
every("elu", partial(tc.elu, alpha=0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x)), UNARY, FLOATS)


def _gelu(x: Any) -> Any:
    return np.where(x < 0, 0.5 * x * erfc(-x * np.sqrt(0.5)), 0.5 * x * (1 + erf(x * np.sqrt(0.5))))


def _gelu_tanh(x: Any) -> Any:
    return x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


declare("gelu", tc.gelu, _gelu, UNARY, FLOATS, each=True, ranges=[(-5, 9)])
declare("gelu_tanh", partial(tc.gelu, approximate="tanh"), _gelu_tanh, UNARY, FLOATS, each=True, ranges=[(-5, 9)])
