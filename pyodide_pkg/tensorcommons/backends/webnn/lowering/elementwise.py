"""Elementwise ops. What WebNN has no method for is made of what it has, to the digits that the op promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...base import Value
from ..builder import GraphBuilder, Operand
from .context import LoweringContext, Rule, physical

Unary = Callable[[GraphBuilder, Operand], Operand]
Binary = Callable[[GraphBuilder, Operand, Operand], Operand]


def unary(function: Unary) -> Rule:
    """A rule of one operand. float16 is computed in float32."""

    def rule(low: LoweringContext, value: Value) -> Operand:
        (x,) = low.loose(value)
        y = function(low.b, low.b.wide(x))
        return y if y.dtype == "uint8" else low.b.cast(y, physical(value.spec.dtype))

    return rule


def binary(function: Binary) -> Rule:
    """A rule of two operands, in their common dtype."""

    def rule(low: LoweringContext, value: Value) -> Operand:
        common = max((low.values[child].spec.dtype for child in value.inputs), key=lambda dtype: dtype.itemsize)
        a, b = (low.b.wide(low.b.cast(x, physical(common))) for x in low.loose(value))
        y = function(low.b, a, b)
        return y if value.spec.dtype.kind == "bool" else low.b.cast(y, physical(value.spec.dtype))

    return rule


def method(name: str) -> Rule:
    """A method of the builder of one operand that means the same."""
    return unary(lambda b, x: b.unary(name, x))


def _is_float(x: Operand) -> bool:
    return x.dtype.startswith("float")


def _of_floats(function: Unary) -> Unary:
    return lambda b, x: function(b, x) if _is_float(x) else x


def _isnan(b: GraphBuilder, x: Operand) -> Operand:
    return b.binary("notEqual", x, x, "uint8")


def _never(b: GraphBuilder, x: Operand, result: int) -> Operand:
    return b.expand(b.constant(np.uint8(result), "uint8"), x.shape)


def _isinf(b: GraphBuilder, x: Operand) -> Operand:
    if not _is_float(x):
        return _never(b, x, 0)
    return b.binary("equal", b.unary("abs", x), b.number(np.inf, x), "uint8")


def _isfinite(b: GraphBuilder, x: Operand) -> Operand:
    return b.binary("lesser", b.unary("abs", x), b.number(np.inf, x), "uint8") if _is_float(x) else _never(b, x, 1)


def _trunc(b: GraphBuilder, x: Operand) -> Operand:
    negative = b.binary("lesser", x, b.number(0, x), "uint8")
    return b.where(negative, b.unary("ceil", x), b.unary("floor", x))


def scaled(b: GraphBuilder, x: Operand, factor: float) -> Operand:
    """``x * factor``."""
    return b.binary("mul", x, b.number(factor, x))


def negated(b: GraphBuilder, x: Operand) -> Operand:
    """``-x``; LiteRT's ``neg`` of 0 is 0, not -0."""
    return scaled(b, x, -1) if _is_float(x) else b.unary("neg", x)


def _below_infinity(function: Unary) -> Unary:
    """``function`` of finite numbers: LiteRT's gives something else for infinity and NaN, which stay what they are."""
    return lambda b, x: b.where(b.binary("lesser", x, b.number(np.inf, x), "uint8"), function(b, x), x)


def _scaled_down(function: Unary, undo: Unary) -> Unary:
    """``function`` of numbers below 2 ** 64; beyond 2 ** 120 LiteRT's is wrong. ``undo`` puts 2 ** 64 back in."""

    def scaled_down(b: GraphBuilder, x: Operand) -> Operand:
        large = b.binary("greater", x, b.number(2.0**64, x), "uint8")
        y = function(b, b.where(large, scaled(b, x, 2.0**-64), x))
        return b.where(large, undo(b, y), y)

    return _below_infinity(scaled_down)


log = _scaled_down(lambda b, x: b.unary("log", x), lambda b, y: b.binary("add", y, b.number(64 * math.log(2), y)))
sqrt = _scaled_down(lambda b, x: b.unary("sqrt", x), lambda b, y: scaled(b, y, 2.0**32))


def exp(b: GraphBuilder, x: Operand) -> Operand:
    """``e ** x``; of NaN LiteRT gives 0."""
    return b.where(_isnan(b, x), x, b.unary("exp", x))


def polynomial(b: GraphBuilder, x: Operand, coefficients: Sequence[float]) -> Operand:
    """Evaluate a polynomial by Horner's rule; the constant term first."""
    y = b.number(coefficients[-1], x)
    for coefficient in coefficients[-2::-1]:
        y = b.binary("add", b.binary("mul", y, x), b.number(coefficient, x))
    return y


def expm1(b: GraphBuilder, x: Operand) -> Operand:
    """Compute expm1, by tanh near 0: e ** x - 1 = 2 tanh(x / 2) / (1 - tanh(x / 2))."""
    t = b.unary("tanh", scaled(b, x, 0.5))
    near = b.binary("div", scaled(b, t, 2), b.binary("sub", b.number(1, x), t))
    far = b.binary("sub", exp(b, x), b.number(1, x))
    return b.where(b.binary("lesser", b.unary("abs", x), b.number(0.5, x), "uint8"), near, far)


def log1p(b: GraphBuilder, x: Operand) -> Operand:
    """Near 0 by the series of 2 atanh(x / (2 + x)): LiteRT's logarithm has no digits left beside 1."""
    s = b.binary("div", x, b.binary("add", x, b.number(2, x)))
    series = polynomial(b, b.binary("mul", s, s), [2 / (2 * k + 1) for k in range(7)])
    near = b.binary("lesser", b.unary("abs", x), b.number(0.5, x), "uint8")
    return b.where(near, b.binary("mul", s, series), log(b, b.binary("add", x, b.number(1, x))))


def _signed(b: GraphBuilder, magnitude: Operand, x: Operand) -> Operand:
    return b.where(_negative(b, x), negated(b, magnitude), magnitude)


def _negative(b: GraphBuilder, x: Operand) -> Operand:
    """Return whether the sign of a float is set, of -0.0, too."""
    zero = b.number(0, x)
    turned = b.binary("lesser", b.binary("div", b.number(1, x), x), zero, "uint8")
    return b.binary("logicalOr", b.binary("lesser", x, zero, "uint8"), turned)


# pi / 2 in parts of 11, 11, 11 and 24 bits: whole multiples of the first three up to 2 ** 13 are exact.
HALF_PI = (1.5703125, 0.0004837512969970703, 7.549533620476723e-08, 2.563344151594519e-12)
SINE = (1.0, -1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)  # odd, from Cephes (Moshier, 1989)
COSINE = (1.0, -0.5, 4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5)


def _turned(b: GraphBuilder, x: Operand) -> tuple[Operand, Operand]:
    """Sine and cosine, by the angle that is left of whole quarter turns; NaN where no digit of it is left."""
    given, turns = x, b.unary("roundEven", scaled(b, x, 2 / math.pi))
    x = b.where(b.binary("lesser", b.unary("abs", turns), b.number(2.0**22, x), "uint8"), x, b.number(np.nan, x))
    for part in HALF_PI:
        x = b.binary("sub", x, scaled(b, turns, part))
    z = b.binary("mul", x, x)
    sine, cosine = b.binary("mul", x, polynomial(b, z, SINE)), polynomial(b, z, COSINE)
    quarter = b.binary("sub", turns, scaled(b, b.unary("floor", scaled(b, turns, 0.25)), 4))
    halves = b.unary("floor", scaled(b, quarter, 0.5))
    odd = b.binary("greater", b.binary("sub", quarter, scaled(b, halves, 2)), b.number(0.5, x), "uint8")
    first = b.where(odd, cosine, sine)
    second = b.where(odd, negated(b, sine), cosine)
    back = b.binary("greater", halves, b.number(0.5, x), "uint8")
    sine = b.where(b.binary("equal", given, b.number(0, x), "uint8"), given, b.where(back, negated(b, first), first))
    return sine, b.where(back, negated(b, second), second)


def _tan(b: GraphBuilder, x: Operand) -> Operand:
    sine, cosine = _turned(b, x)
    return b.binary("div", sine, cosine)


def _sinh(b: GraphBuilder, x: Operand) -> Operand:
    a = b.unary("abs", x)
    e = expm1(b, a)
    near = scaled(b, b.binary("add", e, b.binary("div", e, b.binary("add", e, b.number(1, x)))), 0.5)
    h = exp(b, scaled(b, a, 0.5))
    far = b.binary("mul", scaled(b, h, 0.5), h)
    return _signed(b, b.where(b.binary("lesser", a, b.number(20, x), "uint8"), near, far), x)


def _cosh(b: GraphBuilder, x: Operand) -> Operand:
    h = exp(b, scaled(b, b.unary("abs", x), 0.5))
    half = scaled(b, h, 0.5)
    return b.binary("add", b.binary("mul", half, h), b.binary("div", b.binary("div", b.number(0.5, x), h), h))


def _asinh(b: GraphBuilder, x: Operand) -> Operand:
    a, one = b.unary("abs", x), b.number(1, x)
    square = b.binary("mul", a, a)
    root = b.binary("add", one, sqrt(b, b.binary("add", square, one)))
    near = log1p(b, b.binary("add", a, b.binary("div", square, root)))
    far = b.binary("add", log(b, a), b.number(math.log(2), x))
    return _signed(b, b.where(b.binary("lesser", a, b.number(1e4, x), "uint8"), near, far), x)


def _acosh(b: GraphBuilder, x: Operand) -> Operand:
    t = b.binary("sub", x, b.number(1, x))
    root = sqrt(b, b.binary("add", scaled(b, t, 2), b.binary("mul", t, t)))
    near = log1p(b, b.binary("add", t, root))
    far = b.binary("add", log(b, x), b.number(math.log(2), x))
    y = b.where(b.binary("lesser", x, b.number(1e4, x), "uint8"), near, far)
    return b.where(b.binary("lesser", x, b.number(1, x), "uint8"), b.number(np.nan, x), y)


def _atanh(b: GraphBuilder, x: Operand) -> Operand:
    a = b.unary("abs", x)
    return _signed(b, scaled(b, log1p(b, b.binary("div", scaled(b, a, 2), b.binary("sub", b.number(1, x), a))), 0.5), x)


# atan of [0, tan(pi / 8)] as x + x^3 P(x^2), from Cephes (Moshier, 1989).
ATAN = (-3.33329491539e-1, 1.99777106478e-1, -1.38776856032e-1, 8.05374449538e-2)


def _atan_of_magnitude(b: GraphBuilder, a: Operand) -> Operand:
    """``atan(a)`` of what is not negative."""
    one = b.number(1, a)
    far = b.binary("greater", a, b.number(math.tan(3 * math.pi / 8), a), "uint8")
    middle = b.binary("greater", a, b.number(math.tan(math.pi / 8), a), "uint8")
    turned = b.binary("div", b.binary("sub", a, one), b.binary("add", a, one))
    x = b.where(far, b.unary("neg", b.binary("div", one, a)), b.where(middle, turned, a))
    base = b.where(far, b.number(math.pi / 2, a), b.where(middle, b.number(math.pi / 4, a), b.number(0, a)))
    z = b.binary("mul", x, x)
    p = polynomial(b, z, ATAN)
    return b.binary("add", base, b.binary("add", b.binary("mul", b.binary("mul", p, z), x), x))


def _atan(b: GraphBuilder, x: Operand) -> Operand:
    return _signed(b, _atan_of_magnitude(b, b.unary("abs", x)), x)


def _asin(b: GraphBuilder, x: Operand) -> Operand:
    one = b.number(1, x)
    room = b.binary("mul", b.binary("sub", one, x), b.binary("add", one, x))
    return _atan(b, b.binary("div", x, b.unary("sqrt", room)))


def _acos(b: GraphBuilder, x: Operand) -> Operand:
    one = b.number(1, x)
    below, above = (b.unary("sqrt", b.binary(name, one, x)) for name in ("sub", "add"))
    return scaled(b, _atan_of_magnitude(b, b.binary("div", below, above)), 2)


def _atan2(b: GraphBuilder, y: Operand, x: Operand) -> Operand:
    up, right = b.unary("abs", y), b.unary("abs", x)
    low, high = b.binary("min", up, right), b.binary("max", up, right)
    ratio = b.binary("div", low, high)
    both = b.binary("equal", low, b.number(np.inf, x), "uint8")  # infinite both: the diagonal
    none = b.binary("equal", high, b.number(0, x), "uint8")
    ratio = b.where(both, b.number(1, x), b.where(none, b.number(0, x), ratio))
    angle = _atan_of_magnitude(b, ratio)
    steep = b.binary("greater", up, right, "uint8")
    angle = b.where(steep, b.binary("sub", b.number(math.pi / 2, x), angle), angle)
    angle = b.where(_negative(b, x), b.binary("sub", b.number(math.pi, x), angle), angle)
    angle = _signed(b, angle, y)
    odd = b.binary("logicalOr", _isnan(b, x), _isnan(b, y))
    return b.where(odd, b.number(np.nan, x), angle)


def ordered(name: str) -> Binary:
    """The larger or the smaller; NaN where either is, which the builder leaves open."""

    def function(b: GraphBuilder, x: Operand, y: Operand) -> Operand:
        chosen = b.binary(name, x, y)
        if not _is_float(x):
            return chosen
        odd = b.binary("logicalOr", _isnan(b, x), _isnan(b, y))
        return b.where(odd, b.number(np.nan, x), chosen)

    return function


def _quotient(b: GraphBuilder, x: Operand, y: Operand) -> Operand:
    """``floor(x / y)``; by 0 it is 0."""
    zero, one = b.number(0, x), b.number(1, x)
    if _is_float(x):
        raise b.refuse("a quotient of floats has more digits than WebNN's division")
    if x.dtype != "int32":
        raise b.refuse(f"WebNN divides {x.dtype} in no dtype that holds it")
    # A processor traps on a division by 0, and of the smallest int by -1.
    nothing, turn = (b.binary("equal", y, b.number(n, y), "uint8") for n in (0, -1))
    q = b.binary("div", x, b.where(b.binary("logicalOr", nothing, turn), one, y))
    rest = b.binary("sub", x, b.binary("mul", q, y))
    below = b.binary("lesser", rest, zero, "uint8")
    apart = b.binary("logicalXor", below, b.binary("lesser", y, zero, "uint8"))
    over = b.binary("logicalAnd", b.binary("notEqual", rest, zero, "uint8"), apart)
    q = b.where(over, b.binary("sub", q, one), q)
    return b.where(nothing, zero, b.where(turn, b.binary("sub", zero, x), q))


def _remainder(b: GraphBuilder, x: Operand, y: Operand) -> Operand:
    zero, quotient = b.number(0, x), _quotient(b, x, y)
    rest = b.binary("sub", x, b.binary("mul", quotient, y))
    return b.where(b.binary("equal", y, zero, "uint8"), zero, rest)


def _power(b: GraphBuilder, x: Operand, y: Operand) -> Operand:
    if not _is_float(x):
        raise b.refuse("powers of ints wrap here, and WebNN leaves open what they do")
    return b.binary("pow", x, y)


def comparison(name: str) -> Binary:
    """A method that gives a bool."""
    return lambda b, x, y: b.binary(name, x, y, "uint8")


def logic(name: str) -> Binary:
    """A method on bools."""
    return lambda b, x, y: b.binary(name, x, y)


def _bits(rule: Rule) -> Rule:
    """``rule`` for bools alone: uint8 lies as they do, and has bits of its own."""

    def of_bools(low: LoweringContext, value: Value) -> Operand:
        if value.spec.dtype.kind != "bool":
            raise low.b.refuse("WebNN has no operation on bits of ints")
        return rule(low, value)

    return of_bools


def _not(b: GraphBuilder, x: Operand) -> Operand:
    return b.unary("logicalNot", x, operand="a")


def _cast(low: LoweringContext, value: Value) -> Operand:
    """Floats drop what is behind the point, stop at an int's ends, and NaN becomes 0."""
    (x,) = low.loose(value)
    b, target = low.b, value.spec.dtype
    source = low.values[value.inputs[0]].spec.dtype
    if target.kind == "bool":
        wide = b.wide(x)
        return x if source.kind == "bool" else b.binary("notEqual", wide, b.number(0, wide), "uint8")
    if source.kind != "float" or target.kind == "float":
        return b.cast(x, target.name)
    x = b.wide(x)
    limits = np.iinfo(target.numpy)
    low_end, high_end = (b.number(float(end), x) for end in (limits.min, limits.max))
    above = b.binary("greaterOrEqual", x, high_end, "uint8")
    below = b.binary("lesserOrEqual", x, low_end, "uint8")
    odd = b.binary("logicalOr", b.binary("logicalOr", above, below), _isnan(b, x))
    inside = b.where(odd, b.number(0, x), x)
    y = b.cast(b.cast(inside, "int64") if target.kind == "uint" else inside, target.name)
    ends = [b.constant(np.asarray(end, target.numpy), target.name) for end in (limits.max, limits.min)]
    return b.where(above, ends[0], b.where(below, ends[1], y))


def _where(low: LoweringContext, value: Value) -> Operand:
    condition, x, y = low.loose(value)
    dtype = physical(value.spec.dtype)
    return low.b.where(condition, low.b.cast(x, dtype), low.b.cast(y, dtype))


def _full(low: LoweringContext, value: Value) -> Operand:
    return low.b.constant(
        np.asarray(value.attrs["value"], value.spec.dtype.numpy).astype(physical(value.spec.dtype)),
        physical(value.spec.dtype),
    )


def _log(base: float) -> Unary:
    return lambda b, x: scaled(b, log(b, x), 1 / math.log(base))


UNARIES: dict[str, Unary] = {
    "abs": lambda b, x: x if x.dtype == "uint32" else b.unary("abs", x),
    "negative": negated,
    "sign": lambda b, x: (
        b.cast(b.binary("notEqual", x, b.number(0, x), "uint8"), x.dtype) if x.dtype == "uint32" else b.unary("sign", x)
    ),
    "square": lambda b, x: b.binary("mul", x, x),
    "sqrt": sqrt,
    "rsqrt": lambda b, x: b.binary("div", b.number(1, x), sqrt(b, x)),
    "reciprocal": lambda b, x: b.binary("div", b.number(1, x), x),
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "log2": _log(2),
    "log10": _log(10),
    "sin": lambda b, x: _turned(b, x)[0],
    "cos": lambda b, x: _turned(b, x)[1],
    "tan": _tan,
    "asin": _asin,
    "acos": _acos,
    "atan": _atan,
    "sinh": _sinh,
    "cosh": _cosh,
    "tanh": lambda b, x: b.unary("tanh", x),
    "asinh": _asinh,
    "acosh": _acosh,
    "atanh": _atanh,
    "ceil": _of_floats(lambda b, x: b.unary("ceil", x)),
    "floor": _of_floats(lambda b, x: b.unary("floor", x)),
    "trunc": _of_floats(_trunc),
    "round": _of_floats(lambda b, x: b.unary("roundEven", x)),
    "isnan": lambda b, x: _isnan(b, x) if _is_float(x) else _never(b, x, 0),
    "isinf": _isinf,
    "isfinite": _isfinite,
    "logical_not": _not,
}
BINARIES: dict[str, Binary] = {
    "add": lambda b, x, y: b.binary("add", x, y),
    "subtract": lambda b, x, y: b.binary("sub", x, y),
    "multiply": lambda b, x, y: b.binary("mul", x, y),
    "divide": lambda b, x, y: b.binary("div", x, y),
    "floor_divide": _quotient,
    "remainder": _remainder,
    "pow": _power,
    "maximum": ordered("max"),
    "minimum": ordered("min"),
    "atan2": _atan2,
    "equal": comparison("equal"),
    "not_equal": comparison("notEqual"),
    "less": comparison("lesser"),
    "less_equal": comparison("lesserOrEqual"),
    "greater": comparison("greater"),
    "greater_equal": comparison("greaterOrEqual"),
    "logical_and": logic("logicalAnd"),
    "logical_or": logic("logicalOr"),
    "logical_xor": logic("logicalXor"),
}
BITS: dict[str, Rule] = {
    "bitwise_invert": unary(_not),
    "bitwise_and": binary(logic("logicalAnd")),
    "bitwise_or": binary(logic("logicalOr")),
    "bitwise_xor": binary(logic("logicalXor")),
}
RULES: dict[str, Rule] = {
    **{name: unary(function) for name, function in UNARIES.items()},
    **{name: binary(function) for name, function in BINARIES.items()},
    **{name: _bits(rule) for name, rule in BITS.items()},
    "cast": _cast,
    "where": _where,
    "full": _full,
}
