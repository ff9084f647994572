"""What a shader writes for each elementwise op: an expression for each type of registers, ``{0}`` and ``{1}`` its
operands. ``op_*`` are functions of ``shaders/elementwise/functions.wgsl``.
"""

from __future__ import annotations

from ....dtypes import DType

NUMBERS = ("f32", "i32", "u32")


def _floats(function: str) -> dict[str, str]:
    return {"f32": function}


def _same(expression: str, *types: str) -> dict[str, str]:
    return dict.fromkeys(types or NUMBERS, expression)


FORMULAS: dict[str, dict[str, str]] = {
    "negative": _same("-{0}", "f32", "i32") | {"u32": "(0u - {0})"},
    "abs": _same("abs({0})", "f32", "i32") | {"u32": "{0}"},
    "exp": _floats("op_exp({0})"),
    "log": _floats("op_log({0})"),
    "log1p": _floats("op_log1p({0})"),
    "sqrt": _floats("sqrt({0})"),
    "tanh": _floats("op_tanh({0})"),
    "sigmoid": _floats("op_sigmoid({0})"),
    "relu": _floats("op_relu({0})"),
    "gelu": _floats("op_gelu({0})"),
    "add": _same("({0} + {1})"),
    "subtract": _same("({0} - {1})"),
    "multiply": _same("({0} * {1})"),
    "divide": _floats("({0} / {1})"),
    "maximum": _floats("op_maximum({0}, {1})") | _same("max({0}, {1})", "i32", "u32"),
    "minimum": _floats("op_minimum({0}, {1})") | _same("min({0}, {1})", "i32", "u32"),
}


def cast(source: DType, target: DType) -> str:
    """The expression that turns ``{0}`` of ``source`` into ``target``: floats to ints towards 0, within their range."""
    if source.wgsl == target.wgsl:
        return "{0}"
    if source.wgsl == "f32" and target.wgsl in ("i32", "u32"):
        return f"{target.wgsl}_of({{0}})"
    if source.wgsl == "f32" and target.wgsl == "bool":
        return "(is_nan({0}) || {0} != 0f)"
    return f"{target.wgsl}({{0}})"
