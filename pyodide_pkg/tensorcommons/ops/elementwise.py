"""Elementwise ops: one formula per element, with NumPy broadcasting between the operands.

Each op is a row of a table: its name, its formula and its NumPy meaning. The shader of the same name is
``fn op_<name>`` in ``shaders/elementwise/functions.wgsl``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Op, Spec
from ..errors import UnsupportedDtype
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike
from .registry import apply, define

# erf on [0, 1] as x * P(x^2), and 1 - exp(Q(x)) above; both fitted to float64 erf by Chebyshev interpolation, with an
# error under 2e-7 in float32. shaders/elementwise/functions.wgsl holds the same numbers.
ERF_NEAR = (1.1283791, -0.37612344, 0.11280317, -0.026715054, 0.0049217620, -0.00056480599)
ERF_FAR = (
    -0.00076589778, -1.1258937, -0.63914126, -0.10328112, 0.022604772, -0.0034323514, 0.00031693702, -0.000013272362,
)  # fmt: skip


def erf(x: Any) -> Any:
    """The error function in float64 arithmetic on float32 coefficients; ``x`` is an array."""
    magnitude = np.abs(np.asarray(x, np.float64))
    near = magnitude * np.polynomial.polynomial.polyval(np.minimum(magnitude, 1) ** 2, ERF_NEAR)
    far = 1 - np.exp(np.polynomial.polynomial.polyval(np.minimum(magnitude, 4), ERF_FAR))
    far = np.where(magnitude >= 4, 1, far)  # in float32; what is left of it here, times -1e30, would not be 0
    return np.copysign(np.where(magnitude < 1, near, far), x)


def _gelu(x: Any) -> Any:
    return (0.5 * x * (1 + erf(x * np.sqrt(0.5)))).astype(x.dtype)


def _sigmoid(x: Any) -> Any:
    return (1 / (1 + np.exp(-x.astype(np.float32)))).astype(x.dtype)


UNARY: dict[str, Callable[..., Any]] = {
    "negative": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "gelu": _gelu,
}
BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    dtype = dtypes.result_type([spec.dtype for spec in specs])
    if dtype.kind != "float":
        raise UnsupportedDtype(f"elementwise ops take floats, not {dtype}; cast first")
    return Spec(broadcast_shapes(*(spec.shape for spec in specs)), dtype)


def _infer_cast(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return Spec(specs[0].shape, dtypes.as_dtype(attrs["dtype"]))


def _cast(x: Any, dtype: str) -> Any:
    """NumPy leaves open what a float outside an int's range becomes; here it is the end of the range, and 0 for NaN."""
    target = np.dtype(dtype)
    if x.dtype.kind != "f" or target.kind not in "iu":
        return x.astype(target)
    limits = np.iinfo(target)
    inside = np.where(np.isnan(x) | (x <= limits.min) | (x >= limits.max), 0, x).astype(target)
    low, high = np.where(x <= limits.min, limits.min, 0), np.where(x >= limits.max, limits.max, 0)
    return inside + low.astype(target) + high.astype(target)


_OPS: dict[str, Op] = {name: define(name, _infer, function) for name, function in {**UNARY, **BINARY}.items()}
CAST = define("cast", _infer_cast, _cast)


def negative(x: TensorLike) -> Tensor:
    """``-x``."""
    return apply(_OPS["negative"], x)


def abs(x: TensorLike) -> Tensor:
    """``|x|``."""
    return apply(_OPS["abs"], x)


def exp(x: TensorLike) -> Tensor:
    """``e ** x``."""
    return apply(_OPS["exp"], x)


def log(x: TensorLike) -> Tensor:
    """Natural logarithm; ``-inf`` at 0 and NaN below."""
    return apply(_OPS["log"], x)


def log1p(x: TensorLike) -> Tensor:
    """``log(1 + x)``, exact near 0."""
    return apply(_OPS["log1p"], x)


def sqrt(x: TensorLike) -> Tensor:
    """Square root; NaN below 0."""
    return apply(_OPS["sqrt"], x)


def tanh(x: TensorLike) -> Tensor:
    """Hyperbolic tangent."""
    return apply(_OPS["tanh"], x)


def sigmoid(x: TensorLike) -> Tensor:
    """``1 / (1 + e ** -x)``."""
    return apply(_OPS["sigmoid"], x)


def relu(x: TensorLike) -> Tensor:
    """``max(x, 0)``."""
    return apply(_OPS["relu"], x)


def gelu(x: TensorLike) -> Tensor:
    """``x / 2 * (1 + erf(x / sqrt(2)))``: the exact GELU of Hendrycks and Gimpel, 2016."""
    return apply(_OPS["gelu"], x)


def add(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x1 + x2``."""
    return apply(_OPS["add"], x1, x2)


def subtract(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x1 - x2``."""
    return apply(_OPS["subtract"], x1, x2)


def multiply(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x1 * x2``."""
    return apply(_OPS["multiply"], x1, x2)


def divide(x1: TensorLike, x2: TensorLike) -> Tensor:
    """``x1 / x2``; division by 0 gives an infinity or NaN, as NumPy's."""
    return apply(_OPS["divide"], x1, x2)


def maximum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The larger of the two; NaN where either is."""
    return apply(_OPS["maximum"], x1, x2)


def minimum(x1: TensorLike, x2: TensorLike) -> Tensor:
    """The smaller of the two; NaN where either is."""
    return apply(_OPS["minimum"], x1, x2)


def astype(x: TensorLike, dtype: object) -> Tensor:
    """``x`` in another dtype, as NumPy does it.

    Floats become ints by dropping what is behind the point; what is outside the int's range becomes the end of the
    range, and NaN 0 (NumPy leaves both to the processor). Floats that are too large for float16 become infinities.
    """
    return apply(CAST, x, dtype=dtypes.as_dtype(dtype).name)
