"""Activations of floats."""

from __future__ import annotations

import math

from ...base import Value
from ..builder import LARGEST, GraphBuilder, Operand
from .context import LoweringContext, Rule
from .elementwise import Unary, exp, expm1, log1p, polynomial, scaled, unary


def _silu(b: GraphBuilder, x: Operand) -> Operand:
    return b.binary("mul", x, b.unary("sigmoid", x))


def _softplus(b: GraphBuilder, x: Operand) -> Operand:
    """``max(x, 0) + log1p(e ** -|x|)``: nothing overflows."""
    tail = log1p(b, exp(b, b.unary("neg", b.unary("abs", x))))
    return b.binary("add", b.unary("relu", x), tail)


def _hardsigmoid(b: GraphBuilder, x: Operand) -> Operand:
    return scaled(b, b.unary("clamp", b.binary("add", x, b.number(3, x)), minValue=0, maxValue=6), 1 / 6)


def _gelu_tanh(b: GraphBuilder, x: Operand) -> Operand:
    """``x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))``, which is what the formula by tanh says."""
    cube = b.binary("mul", b.binary("mul", x, x), x)
    inner = b.binary("add", x, scaled(b, cube, 0.044715))
    return b.binary("mul", x, b.unary("sigmoid", scaled(b, inner, math.sqrt(8 / math.pi))))


# erf on [-1, 1] as x * P(x^2), as ops/activation.py has it: LiteRT's is off by 4e-7, which is much near 0.
ERF_NEAR = (1.1283791, -0.37612344, 0.11280317, -0.026715054, 0.0049217620, -0.00056480599)


def _erf(b: GraphBuilder, x: Operand) -> Operand:
    near = b.binary("mul", x, polynomial(b, b.binary("mul", x, x), ERF_NEAR))
    return b.where(b.binary("lesser", b.unary("abs", x), b.number(1, x), "uint8"), near, b.unary("erf", x))


def _leaky_relu(low: LoweringContext, value: Value) -> Operand:
    slope = float(value.attrs["negative_slope"])  # type: ignore[arg-type]

    def composed(b: GraphBuilder, x: Operand) -> Operand:
        return b.where(b.binary("greaterOrEqual", x, b.number(0, x), "uint8"), x, scaled(b, x, slope))

    usual = abs(slope) <= LARGEST
    return unary((lambda b, x: b.unary("leakyRelu", x, alpha=slope)) if usual else composed)(low, value)


def _elu(low: LoweringContext, value: Value) -> Operand:
    alpha = float(value.attrs["alpha"])  # type: ignore[arg-type]

    def function(b: GraphBuilder, x: Operand) -> Operand:
        return b.where(b.binary("greater", x, b.number(0, x), "uint8"), x, scaled(b, expm1(b, x), alpha))

    return unary(function)(low, value)


UNARIES: dict[str, Unary] = {
    "erf": _erf,
    "relu": lambda b, x: b.unary("relu", x),
    "sigmoid": lambda b, x: b.unary("sigmoid", x),
    "silu": _silu,
    "softplus": _softplus,
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda b, x: b.binary("mul", x, _hardsigmoid(b, x)),
    "gelu": lambda b, x: b.unary("gelu", x),
    "gelu_tanh": _gelu_tanh,
    "tanh": lambda b, x: b.unary("tanh", x),
}
RULES: dict[str, Rule] = {
    **{name: unary(function) for name, function in UNARIES.items()},
    "leaky_relu": _leaky_relu,
    "elu": _elu,
}
