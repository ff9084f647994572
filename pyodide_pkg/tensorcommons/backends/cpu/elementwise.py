"""Records of elementwise operations and of their chains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...shapes import Layout, size_of
from ..base import Op, Operand, Spec, Step
from .record import EACH, SCRATCH, Record, Word, address, by_rows, float_bits, loaded

TILE = 256  # as in wasm/elementwise.h
OPERATION = 4  # multiply-adds of a product that take the time of an element and a word of the code
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
FLOATS = (
    *("add", "subtract", "multiply", "divide", "maximum", "minimum", *COMPARISONS),
    *("negative", "abs", "square", "sqrt", "rsqrt", "reciprocal", "floor", "ceil", "trunc", "round", "exp", "relu"),
    *("sigmoid", "gelu", "tanh", "silu", "gelu_tanh", "erf", "log1p", "isnan", "isfinite"),
    *("cast bool", "cast int32"),
)
INTS = (
    *("add", "subtract", "multiply", "maximum", "minimum", *COMPARISONS),
    *("negative", "abs", "square", "cast bool", "cast float32"),
)
BOOLS = ("logical_and", "logical_or", "logical_xor", "logical_not", "where")
LOAD, LOAD_BOOL, LOAD_HALF, NUMBER, STORE, STORE_BOOL = range(6)
NAMES = (
    *((name, "float32") for name in FLOATS),
    *((name, "int32") for name in INTS),
    *((name, "bool") for name in BOOLS),
)
CODES = {each: 6 + number for number, each in enumerate(NAMES)}  # of an op and the dtype of its operands
LOADED = {"float32": LOAD, "int32": LOAD, "bool": LOAD_BOOL, "float16": LOAD_HALF}
STORED = {"float32": STORE, "int32": STORE, "bool": STORE_BOOL}
ELEMENTWISE = {"chain", "full", "cast", *(name for name, _ in NAMES if not name.startswith("cast"))}


def each(step: Step) -> Iterator[Record] | None:
    """Compute a formula of elements: that of a chain, or of one op."""
    kinds = tuple(operand.dtype.name for operand in step.inputs)
    inputs = [("input", number) for number in range(len(step.inputs))]
    attrs = tuple(sorted(step.attrs.items()))
    formula: Any = step.attrs.get("formula") or (step.op.name, attrs, kinds, step.output.dtype.name, *inputs)
    return _formula(formula, step.inputs, step.output)


def copy(step: Step) -> Iterator[Record] | None:
    """Copy elements from one layout to another."""
    return _formula(("input", 0), step.inputs, step.output)


def concat(step: Step) -> Iterator[Record] | None:
    """Copy the inputs to parts of the result along an axis."""
    axis: Any = step.attrs["axis"]
    start, records = 0, list[Record]()
    whole = step.output.layout
    for operand in step.inputs:
        part = Layout(operand.shape, whole.strides, whole.offset + start * whole.strides[axis])
        found = _formula(("input", 0), (operand,), replace(step.output, layout=part)) if part.size else iter(())
        if found is None:
            return None
        records.extend(found)
        start += operand.shape[axis]
    return iter(records)


def _formula(formula: Any, inputs: Sequence[Operand], out: Operand) -> Iterator[Record] | None:
    """Compute ``formula`` of ``inputs`` for each element of ``out``."""
    code: list[int] = []
    kinds = [operand.dtype.name for operand in (*inputs, out)]
    depth = 0 if not set(kinds) <= LOADED.keys() or kinds[-1] not in STORED else _postfix(formula, kinds, code)
    if not depth:
        return None
    code += [STORED[out.dtype.name], len(inputs)]
    layouts = [*(operand.layout.broadcast_to(out.shape) for operand in inputs), out.layout]
    split = next(axis for axis in range(len(out.shape) + 1) if _are_rows(layouts, axis))
    n = size_of(out.shape[split:])
    axes = [axis for axis in reversed(range(split)) if out.shape[axis] > 1]
    words: list[Word] = [n, SCRATCH, len(axes), len(layouts), len(code) // 2, *(out.shape[axis] for axis in axes)]
    for operand, layout in zip((*inputs, out), layouts, strict=True):
        strides = (_step(layout, split) or 0, *(layout.strides[axis] for axis in axes))
        words += [address(operand, layout), *(stride * operand.dtype.itemsize for stride in strides)]
    tiles = size_of(out.shape[:split]) * -(-n // TILE)
    return by_rows(EACH, tiles, OPERATION * min(TILE, n) * len(code), (*words, *code), TILE * depth)


def _are_rows(layouts: Sequence[Layout], first: int) -> bool:
    """Return whether the axes from ``first`` on are one in all layouts, and contiguous in the last one."""
    steps = [_step(layout, first) for layout in layouts]
    return None not in steps and steps[-1] in (0, 1)


def _step(layout: Layout, first: int) -> int | None:
    """Return the elements from one element to the next, as if the axes from ``first`` on were one.

    0 if there is one element, None if the axes are not one.
    """
    step, end = None, 0  # the step, and the stride of an outer axis that continues it
    for size, stride in reversed([*zip(layout.shape[first:], layout.strides[first:], strict=True)]):
        if size > 1:
            if step is None:
                step = stride
            elif stride != end:
                return None
            end = stride * size
    return step or 0


def computes(op: Op, specs: Sequence[Spec], result: Spec) -> bool:
    """Return whether a kernel computes an elementwise op of these operands; it does so in any chain, too."""
    kinds = [spec.dtype.name for spec in specs]
    return loaded()[0] is not None and _operations(op.name, kinds, result.dtype.name) is not None


def _operations(name: str, kinds: Sequence[str], kind: str) -> list[int] | None:
    """Return the operations of an op of operands of ``kinds``, of which a conversion may need none."""
    if name == "where":
        return [CODES[name, "bool"]] if kinds[0] == "bool" and {*kinds[1:], kind} <= STORED.keys() else None
    if name == "cast":
        name = f"cast {kind}"
        if kind in STORED and (kinds[0], kind) in {(kind, kind), ("bool", "int32"), ("float16", "float32")}:
            return []
    of = "int32" if kinds[0] == "bool" and name in ("equal", "not_equal", "cast float32") else kinds[0]
    code = CODES.get((name, of))
    return None if code is None or len(set(kinds)) > 1 else [code]


def _postfix(term: Any, given: Sequence[str], code: list[int]) -> int:
    """Append the operations of a formula of inputs of the dtypes ``given``.

    Returns the number of tiles that they need, 0 if one of them is left to NumPy.
    """
    if term[0] == "input":
        code += [LOADED[given[term[1]]], term[1]]
        return 1
    name, attrs, kinds, kind, *arguments = term
    if name == "full" and kind in STORED:
        value = dict(attrs)["value"]
        code += [NUMBER, float_bits(value) if kind == "float32" else int(value)]
        return 1
    depths = [_postfix(argument, given, code) for argument in arguments]
    operations = _operations(name, kinds, kind) if depths else None
    if operations is None or 0 in depths:
        return 0
    code += [word for each in operations for word in (each, 0)]
    return max(number + depth for number, depth in enumerate(depths))
