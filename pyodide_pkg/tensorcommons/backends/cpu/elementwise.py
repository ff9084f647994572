"""Records of elementwise operations and of their chains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...shapes import Layout, size_of
from ..base import Op, Spec, Step
from .record import EACH, SCRATCH, Record, Word, address, are_float32, by_rows, float_bits, loaded

TILE = 256  # as in wasm/elementwise.h
LOAD, NUMBER = range(2)
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
UNARY = (
    *("negative", "abs", "square", "sqrt", "rsqrt", "reciprocal", "floor", "ceil", "trunc", "round", "exp", "relu"),
    *("sigmoid", "gelu", "tanh", "silu", "gelu_tanh", "erf"),
)
OPERATIONS = {name: 2 + number for number, name in enumerate((*BINARY, *UNARY))}
ELEMENTWISE = {"chain", *OPERATIONS}


def each(step: Step) -> Iterator[Record] | None:
    """Compute a formula of elements: that of a chain, or of one op."""
    out = step.output
    kinds = tuple(each.dtype.name for each in step.inputs)
    inputs = [("input", number) for number in range(len(step.inputs))]
    formula: Any = step.attrs.get("formula") or (step.op.name, (), kinds, out.dtype.name, *inputs)
    code: list[int] = []
    depth = _postfix(formula, code)
    if not depth or not are_float32(*step.inputs, out):
        return None
    layouts = [each.layout.broadcast_to(out.shape) for each in step.inputs]
    if not out.layout.is_contiguous:
        return None
    split = next(axis for axis in range(len(out.shape) + 1) if all(_is_row(each, axis) for each in layouts))
    n = size_of(out.shape[split:])
    axes = [axis for axis in reversed(range(split)) if out.shape[axis] > 1]
    words: list[Word] = [n, address(out), SCRATCH, len(axes), len(layouts), len(code) // 2]
    words += [out.shape[axis] for axis in axes]
    for operand, layout in zip(step.inputs, layouts, strict=True):
        words += [address(operand, layout), int(1 in _steps(layout, split)), *(layout.strides[axis] for axis in axes)]
    tiles = size_of(out.shape[:split]) * -(-n // TILE)
    return by_rows(EACH, tiles, min(TILE, n) * len(code), (*words, *code), TILE * depth)


def _steps(layout: Layout, first: int) -> set[int]:
    """Return the elements from one element to the next, as if the axes from ``first`` on were one: 0, 1, or -1 for
    any others.
    """
    steps, inner = set(), 1
    for size, stride in reversed([*zip(layout.shape[first:], layout.strides[first:], strict=True)]):
        if size > 1:
            steps.add(0 if stride == 0 else 1 if stride == inner else -1)
        inner *= size
    return steps


def _is_row(layout: Layout, first: int) -> bool:
    """Return whether the axes from ``first`` on are one, of contiguous elements or of one that is repeated."""
    return _steps(layout, first) in (set(), {0}, {1})


def computes(op: Op, specs: Sequence[Spec]) -> bool:
    """Return whether a kernel computes an elementwise op of these operands; it does so in any chain, too."""
    return loaded()[0] is not None and op.name in OPERATIONS and all(spec.dtype.name == "float32" for spec in specs)


def _postfix(term: Any, code: list[int]) -> int:
    """Append the operations of a formula; return the tiles that they need, 0 if one of them is left to NumPy."""
    if term[0] == "input":
        code += [LOAD, term[1]]
        return 1
    name, attrs, kinds, kind, *arguments = term
    if kind != "float32" or any(each != "float32" for each in kinds):
        return 0
    if name == "full":
        code += [NUMBER, float_bits(dict(attrs)["value"])]
        return 1
    depths = [_postfix(argument, code) for argument in arguments]
    if name not in OPERATIONS or attrs or 0 in depths:
        return 0
    code += [OPERATIONS[name], 0]
    return max(number + depth for number, depth in enumerate(depths))
