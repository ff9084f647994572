"""Activation functions with the names and parameters of PyTorch's functional API; elementwise, on floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import TensorCommonsError, quoted
from ..tensor import Tensor, TensorLike
from .elementwise import FLOATS, rule, unary
from .registry import apply, define

# erf is x * P(x^2) on [0, 1], and 1 - exp(Q(x)) above; both are fitted to float64 erf by Chebyshev interpolation, with
# an error below 2e-7 in float32. shaders/elementwise/activation.wgsl has the same numbers.
ERF_NEAR = (1.1283791, -0.37612344, 0.11280317, -0.026715054, 0.0049217620, -0.00056480599)
ERF_FAR = (
    -0.00076589778, -1.1258937, -0.63914126, -0.10328112, 0.022604772, -0.0034323514, 0.00031693702, -0.000013272362,
)  # fmt: skip


def erf_reference(x: Any) -> Any:
    """Compute the error function of an array in float64, with float32 coefficients."""
    magnitude = np.abs(np.asarray(x, np.float64))
    near = magnitude * np.polynomial.polynomial.polyval(np.minimum(magnitude, 1) ** 2, ERF_NEAR)
    far = 1 - np.exp(np.polynomial.polynomial.polyval(np.minimum(magnitude, 4), ERF_FAR))
    far = np.where(magnitude >= 4, 1, far)  # as in float32: a GELU of -1e30 must be 0
    return np.copysign(np.where(magnitude < 1, near, far), x)


def _wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``function`` compute in float64 and return the operand's dtype, since float16 loses digits."""
    return lambda x, **attrs: np.asarray(function(x.astype(np.float64), **attrs)).astype(x.dtype)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu_reference(x: Any) -> Any:
    t = x * -np.sqrt(0.5)
    far = np.exp(np.polynomial.polynomial.polyval(np.clip(t, 1, 4), ERF_FAR))
    return 0.5 * x * np.where(t >= 1, np.where(t >= 4, 0, far), 1 - erf_reference(t))


def _gelu_tanh(x: Any) -> Any:
    return x * _sigmoid(np.sqrt(8 / np.pi) * (x + 0.044715 * x**3))


def _hardsigmoid(x: Any) -> Any:
    return np.clip(x + 3, 0, 6) / 6


erf = unary(
    "erf",
    _wide(erf_reference),
    FLOATS,
    "``2 / sqrt(pi) * integral of e ** -t² from 0 to x``: the error function.",
    example=("[0.0, 1.0]", "[0.     0.8427]"),
)
relu = unary(
    "relu",
    lambda x: np.maximum(x, x.dtype.type(0)),
    FLOATS,
    "``max(x, 0)``.",
    epilogue=True,
    example=("[-1.0, 2.0]", "[0. 2.]"),
)
sigmoid = unary(
    "sigmoid",
    _wide(_sigmoid),
    FLOATS,
    "``1 / (1 + e ** -x)``.",
    epilogue=True,
    example=("[0.0, 2.0]", "[0.5    0.8808]"),
)
silu = unary(
    "silu",
    _wide(lambda x: x / (1 + np.exp(-x))),
    FLOATS,
    "``x * sigmoid(x)`` (Elfwing et al., 2017).",
    example=("[0.0, 2.0]", "[0.     1.7616]"),
)
softplus = unary(
    "softplus",
    _wide(lambda x: np.logaddexp(x, 0)),
    FLOATS,
    "``log(1 + e ** x)``.",
    example=("[0.0, 2.0]", "[0.6931 2.1269]"),
)
hardswish = unary(
    "hardswish",
    _wide(lambda x: x * _hardsigmoid(x)),
    FLOATS,
    "``x * hardsigmoid(x)`` (Howard et al., 2019).",
    example=("[0.0, 1.0, 4.0]", "[0.     0.6667 4.    ]"),
)
hardsigmoid = unary(
    "hardsigmoid",
    _wide(_hardsigmoid),
    FLOATS,
    "``clip(x + 3, 0, 6) / 6``.",
    example=("[-4.0, 0.0, 4.0]", "[0.  0.5 1. ]"),
)
_gelu = unary("gelu", _wide(_gelu_reference), FLOATS, "The exact GELU.", example=("[2.0]", "[1.9545]"), epilogue=True)
_gelu_by_tanh = unary(
    "gelu_tanh", _wide(_gelu_tanh), FLOATS, "GELU by tanh.", example=("[2.0]", "[1.9546]"), epilogue=True
)


def _leaky_relu(x: Any, negative_slope: float) -> Any:
    return np.where(x >= 0, x, x * negative_slope)


def _elu(x: Any, alpha: float) -> Any:
    return np.where(x > 0, x, alpha * np.expm1(x))


LEAKY_RELU = define("leaky_relu", rule("leaky_relu", FLOATS), _wide(_leaky_relu), elementwise=True)
ELU = define("elu", rule("elu", FLOATS), _wide(_elu), elementwise=True)


def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """``x / 2 * (1 + erf(x / sqrt(2)))``: the exact GELU (Hendrycks and Gimpel, 2016).

    With ``approximate="tanh"``: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))``, as in GPT-2.

    Raises:
        TensorCommonsError: ``approximate`` is neither "none" nor "tanh".

    >>> print(tc.gelu([-1.0, 2.0]).numpy().round(4))
    [-0.1587  1.9545]
    """
    if approximate not in ("none", "tanh"):
        raise TensorCommonsError(f"gelu: approximate must be 'none' or 'tanh', not {quoted(approximate)}")
    return _gelu(x) if approximate == "none" else _gelu_by_tanh(x)


def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """``x`` if it is not negative, else ``negative_slope * x``.

    >>> print(tc.leaky_relu([-1.0, 2.0]).numpy().round(4))
    [-0.01  2.  ]
    """
    return apply(LEAKY_RELU, x, negative_slope=float(negative_slope))


def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """``x`` if it is positive, else ``alpha * (e ** x - 1)`` (Clevert et al., 2015).

    >>> print(tc.elu([-1.0, 2.0]).numpy().round(4))
    [-0.6321  2.    ]
    """
    return apply(ELU, x, alpha=float(alpha))
