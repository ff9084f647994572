"""WGSL of each elementwise op: an expression for each type of registers that it is computed in.

``{0}``, ``{1}`` and ``{2}`` are its operands, ``{alpha}`` an attribute. What is called ``op_*``, ``int_*`` and
``uint_*`` are functions of ``shaders/elementwise/``.
"""

from __future__ import annotations

from ....dtypes import DType

Formula = dict[str, str]  # by register type


def _floats(*names: str) -> dict[str, Formula]:
    return {name: {"f32": f"op_{name}({{0}})"} for name in names}


def _alike(expression: str, *types: str) -> Formula:
    return dict.fromkeys(types or ("f32", "i32", "u32"), expression)


def _float_and_ints(of_floats: str, of_ints: str) -> Formula:
    return {"f32": of_floats, "i32": of_ints, "u32": of_ints}


FORMULAS: dict[str, Formula] = {
    **_floats("exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan"),
    **_floats("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    **_floats("erf", "relu", "sigmoid", "silu", "softplus", "hardswish", "hardsigmoid", "gelu", "gelu_tanh"),
    "negative": {"f32": "(-{0})", "i32": "(-{0})", "u32": "(0u - {0})"},
    "abs": {"f32": "abs({0})", "i32": "abs({0})", "u32": "{0}"},
    "sign": {"f32": "op_sign({0})", "i32": "sign({0})", "u32": "min({0}, 1u)"},
    "square": {"f32": "op_square({0})", "i32": "int_square({0})", "u32": "uint_square({0})"},
    "sqrt": {"f32": "sqrt({0})"},
    "rsqrt": {"f32": "op_rsqrt({0})"},
    "reciprocal": {"f32": "(1f / {0})"},
    "add": _alike("({0} + {1})"),
    "subtract": _alike("({0} - {1})"),
    "multiply": _alike("({0} * {1})"),
    "divide": {"f32": "op_divide({0}, {1})"},
    "floor_divide": {t: f"{p}_floor_divide({{0}}, {{1}})" for t, p in (("f32", "op"), ("i32", "int"), ("u32", "uint"))},
    "remainder": {t: f"{p}_remainder({{0}}, {{1}})" for t, p in (("f32", "op"), ("i32", "int"), ("u32", "uint"))},
    "pow": {t: f"{p}_pow({{0}}, {{1}})" for t, p in (("f32", "op"), ("i32", "int"), ("u32", "uint"))},
    "maximum": _float_and_ints("op_maximum({0}, {1})", "max({0}, {1})"),
    "minimum": _float_and_ints("op_minimum({0}, {1})", "min({0}, {1})"),
    "atan2": {"f32": "op_atan2({0}, {1})"},
    "ceil": _float_and_ints("ceil({0})", "{0}"),
    "floor": _float_and_ints("floor({0})", "{0}"),
    "trunc": _float_and_ints("trunc({0})", "{0}"),
    "round": _float_and_ints("round({0})", "{0}"),
    "isnan": _float_and_ints("is_nan({0})", "false"),
    "isinf": _float_and_ints("is_infinite({0})", "false"),
    "isfinite": _float_and_ints("is_finite({0})", "true"),
    "equal": _alike("({0} == {1})", "i32", "u32", "bool") | {"f32": "op_equal({0}, {1})"},
    "not_equal": _alike("({0} != {1})", "i32", "u32", "bool") | {"f32": "(!op_equal({0}, {1}))"},
    "less": _float_and_ints("op_less({0}, {1})", "({0} < {1})"),
    "less_equal": _float_and_ints("op_less_equal({0}, {1})", "({0} <= {1})"),
    "greater": _float_and_ints("op_less({1}, {0})", "({0} > {1})"),
    "greater_equal": _float_and_ints("op_less_equal({1}, {0})", "({0} >= {1})"),
    "logical_not": {"bool": "(!{0})"},
    "logical_and": {"bool": "({0} && {1})"},
    "logical_or": {"bool": "({0} || {1})"},
    "logical_xor": {"bool": "({0} != {1})"},
    "bitwise_invert": {"i32": "(~{0})", "u32": "(~{0})", "bool": "(!{0})"},
    "bitwise_and": {"i32": "({0} & {1})", "u32": "({0} & {1})", "bool": "({0} && {1})"},
    "bitwise_or": {"i32": "({0} | {1})", "u32": "({0} | {1})", "bool": "({0} || {1})"},
    "bitwise_xor": {"i32": "({0} ^ {1})", "u32": "({0} ^ {1})", "bool": "({0} != {1})"},
    "bitwise_left_shift": {"i32": "int_left_shift({0}, {1})", "u32": "uint_left_shift({0}, {1})"},
    "bitwise_right_shift": {"i32": "int_right_shift({0}, {1})", "u32": "uint_right_shift({0}, {1})"},
    "where": _alike("select({2}, {1}, {0})", "f32", "i32", "u32", "bool"),
    "leaky_relu": {"f32": "op_leaky_relu({0}, {negative_slope})"},
    "elu": {"f32": "op_elu({0}, {alpha})"},
}


def cast(source: DType, target: DType) -> str:
    """The expression that turns ``{0}`` of ``source`` into ``target``: floats to ints towards 0, within their range."""
    if source.wgsl == target.wgsl:
        return "{0}"
    if source.wgsl == "f32" and target.wgsl in ("i32", "u32"):
        return f"{target.wgsl}_of({{0}})"
    if source.wgsl == "f32" and target.wgsl == "bool":
        return "(!op_equal({0}, 0f))"
    return f"{target.wgsl}({{0}})"
