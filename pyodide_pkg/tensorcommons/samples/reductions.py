"""Samples of reductions: over all axes, over the last one, over the first and last of three."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.samples import DTYPES, FLOATS, INTS, NUMBERS, Shapes, declare, drawn

ROWS: tuple[Shapes, ...] = (((1,),), ((7,),), ((0, 5),), ((13, 17),), ((2, 3, 130),), ((3, 100_000),))
OUTER: tuple[Shapes, ...] = (((3, 4, 5),), ((17, 2, 9),), ((130, 1, 33),))


def _wide(function: Any) -> Any:
    """Make ``function`` count bools in int32, and keep the width of ints."""

    def wanted(x: Any, **options: Any) -> Any:
        if x.dtype.kind == "f":
            return function(x, **options)
        return function(x, dtype=np.int32 if x.dtype == bool else x.dtype, **options)

    return wanted


def _logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = np.exp(np.longdouble(1) * x).sum(axis, keepdims=keepdims)  # no overflow: numbers are up to 2
    return np.log(total).astype(np.float64)


def _position(function: Any) -> Any:
    return lambda x, **options: function(x, **options).astype(np.int32)


def _running(x: Any, initial: bool) -> Any:
    start = np.zeros((*x.shape[:-1], int(initial)), x.dtype)
    return _wide(np.cumsum)(np.concatenate([start, x], -1), axis=-1)


def _everywhere(
    name: str, wanted: Any, dtypes: Any, along: bool = True, rows: tuple[Shapes, ...] = ROWS, **options: Any
) -> None:
    """Declare samples over all axes, over the last one, and over the first and last of three."""
    call = getattr(tc, name)
    declare(name, call, wanted, (((),), *(s for s in rows if 0 not in s[0])), dtypes, **options)
    last: Any = {"axis": -1, "keepdims": True}
    declare(name, partial(call, **last), partial(wanted, **last), rows, dtypes, **options)
    if along:
        outer: Any = {"axis": (0, 2)}
        declare(name, partial(call, **outer), partial(wanted, **outer), OUTER, dtypes, **options)


_everywhere("sum", _wide(np.sum), DTYPES)
_everywhere("mean", np.mean, FLOATS, rows=ROWS[:-1])  # a long one is a sum in parts
_everywhere("mean", np.mean, INTS, rows=ROWS[:-1], result="float32")
_everywhere("max", np.max, NUMBERS)
_everywhere("min", np.min, NUMBERS)
_everywhere("any", np.any, DTYPES)
_everywhere("all", np.all, DTYPES)
_everywhere("count_nonzero", lambda x, **o: np.asarray(np.count_nonzero(x, **o)).astype(np.int32), DTYPES)
_everywhere("logsumexp", _logsumexp, FLOATS)
_everywhere("argmax", _position(np.argmax), NUMBERS, along=False)
_everywhere("argmin", _position(np.argmin), NUMBERS, along=False)
declare("prod", tc.prod, _wide(np.prod), (((),), ((7,),), ((2, 5),)), DTYPES)
declare("prod", partial(tc.prod, axis=-1), partial(_wide(np.prod), axis=-1), (((0, 5),), ((13, 17),), ((2, 3, 11),)), DTYPES, half_tolerance=4e-3)  # noqa: E501 # fmt: skip
for _correction in (0.0, 1.0):
    declare("var", partial(tc.var, correction=_correction), lambda x, c=_correction: np.square(x - x.mean()).sum() / max(x.size - c, 0), (((7,),), ((13, 17),), ((2, 3, 130),)), FLOATS)  # noqa: E501 # fmt: skip
declare("var", partial(tc.var, axis=-1), partial(np.var, axis=-1), (((7,),), ((2, 3, 13),)), INTS, result="float32")
declare("var", partial(tc.var, axis=0), partial(np.var, axis=0), (((7,),), ((13, 17),), ((130, 2, 3),), ((5, 0),)), FLOATS)  # noqa: E501 # fmt: skip
for _initial in (False, True):
    declare(
        "cumulative_sum",
        partial(tc.cumulative_sum, axis=-1, include_initial=_initial),
        partial(_running, initial=_initial),
        ROWS,
        DTYPES,
    )


def _near_one(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make factors whose products neither vanish nor overflow; ints wrap."""
    return [drawn(rng, dtype, shapes[0], *((0.9, 1.1) if dtype in FLOATS else (-2, 2)))]


def _products(x: Any, initial: bool) -> Any:
    start = np.ones((*x.shape[:-1], int(initial)), x.dtype)
    return _wide(np.cumprod)(np.concatenate([start, x], -1), axis=-1)


FACTORS: tuple[Shapes, ...] = (((1,),), ((7,),), ((0, 5),), ((3, 0),), ((13, 17),), ((2, 3, 130),), ((2, 1000),))
for _initial in (False, True):
    declare(
        "cumulative_prod",
        partial(tc.cumulative_prod, axis=-1, include_initial=_initial),
        partial(_products, initial=_initial),
        FACTORS,
        DTYPES,
        values=_near_one,
        tolerance=2e-5,
    )
