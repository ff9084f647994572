"""Kernels of WebAssembly (kernels.c) for the steps of a plan, as records: what a kernel computes, from which addresses.

They compute float32, and read their operands in place. Everything else, and everything under CPython, is computed by
the op's NumPy meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import numpy as np

from ...bridge.wasm import instantiate
from ...errors import DeviceUnavailable
from ...shapes import Layout, size_of
from ..base import Op, Operand, Spec, Step

PRODUCT, ATTENTION, NORM, TAKE, EACH, SOFTMAX, REDUCE = range(7)  # as in kernels.c
ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2, "gelu": 3, "tanh": 4}
NO_MASK, ADDED, ALLOWED = range(3)
ROWS, PANEL, BLOCK, TILE, NUMBERS = 4, 32, 16, 256, 64
REDUCTIONS = {"sum": 0, "mean": 1, "max": 2, "min": 3}
LOAD, NUMBER = range(2)
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
UNARY = (
    *("negative", "abs", "square", "sqrt", "rsqrt", "reciprocal", "floor", "ceil", "trunc", "round", "exp", "relu"),
    *("sigmoid", "gelu", "tanh", "silu", "gelu_tanh", "erf"),
)
OPERATIONS = {name: 2 + number for number, name in enumerate((*BINARY, *UNARY))}
ELEMENTWISE = {"chain", *OPERATIONS}
MODULES = {"relaxed": "WebAssembly with relaxed SIMD", "plain": "WebAssembly with SIMD"}
MOST = 2**28  # multiply-adds of a record, about 12 ms: a run can be cancelled between two
HEADER = 2  # words of a record before its arguments: the kernel, and the words of the record


@dataclass(frozen=True)
class Pointer:
    """The address of a byte of a place, or without one of the scratch memory of the plan."""

    base: tuple[str, int]
    offset: int = 0

    def plus(self, elements: int) -> Pointer:
        """Return the address of an element of 4 bytes further on."""
        return replace(self, offset=self.offset + 4 * elements)


SCRATCH = Pointer(("scratch", 0))
Word: TypeAlias = "int | Pointer"


@dataclass(frozen=True)
class Record:
    """A call of a kernel, with the operations it takes and the floats of scratch memory beside its numbers."""

    words: tuple[Word, ...]
    work: int
    scratch: int = 0


Kernel: TypeAlias = "Callable[[Step], Iterator[Record] | None]"  # the records of a step, None where it is left to NumPy


@cache
def loaded() -> tuple[Any, str]:
    """Return the kernels and what they are in words, or None and why there are none. They are loaded once."""
    files = [resources.files(__package__).joinpath(f"{name}.wasm") for name in MODULES]
    try:
        number, exports = instantiate([file.read_bytes() for file in files if file.is_file()])
    except DeviceUnavailable as error:
        return None, str(error)
    return exports, list(MODULES.values())[number]


def records_of(step: Step) -> list[Record] | None:
    """Return the records that compute ``step``, or None where NumPy does."""
    kernel = KERNELS.get(step.op.name)
    if kernel is None or loaded()[0] is None:
        return None
    if not step.output.layout.size:
        return []
    records = kernel(step)
    return None if records is None else list(records)


def reads(op: Op, position: int, layout: Layout) -> bool:
    """Return whether an operand of ``layout`` is read in place; others are copied before the step."""
    if loaded()[0] is None or op.name not in READ_BY_ROWS | ELEMENTWISE:
        return True
    if op.name in ELEMENTWISE:
        return layout.strides[-1:] in ((), (0,), (1,)) or layout.shape[-1] == 1
    is_weight = op.name in ("linear", "matmul") and position == 1
    return _has_rows(layout) or (is_weight and (layout.strides[-2] == 1 or layout.shape[-2] <= 1))


def _has_rows(layout: Layout) -> bool:
    """Return whether the elements of the last axis are contiguous."""
    return layout.strides[-1] == 1 or layout.shape[-1] <= 1


def _are_float32(*operands: Operand) -> bool:
    return all(each.dtype.name == "float32" for each in operands)


def _at(operand: Operand, layout: Layout | None = None) -> Pointer:
    """Return the address of the first element, of another layout of the operand if one is given."""
    place, itemsize = operand.place, operand.dtype.itemsize
    return Pointer((place.kind, place.index), place.offset + (layout or operand.layout).offset * itemsize)


def _float(number: Any) -> int:
    """Return the bits of a float32 as an integer."""
    with np.errstate(all="ignore"):
        return int(np.float64(number).astype(np.float32).view(np.int32))


def _pieces(size: int, most: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of pieces of about ``most``, multiples of ``unit`` but for the last."""
    length = size if 0 < size <= most else max(most // unit * unit, unit)
    for start in range(0, size, length):
        yield start, min(length, size - start)


def _rows_of(layout: Layout) -> tuple[int, int] | None:
    """Return the number of rows and the elements from one to the next; None unless all leading axes are one."""
    rows = layout.reshape((size_of(layout.shape[:-1]), layout.shape[-1])) if _has_rows(layout) else None
    return None if rows is None else (rows.shape[0], rows.strides[0])


def _linear(step: Step) -> Iterator[Record] | None:
    x, weight, *more = step.inputs
    residual = more.pop() if step.attrs["residual"] else None
    return _product(step, x, _transposed(weight), step.output, more[0] if more else None, residual)


def _linears(step: Step) -> Iterator[Record] | None:
    """Compute products of one value by several weights, each with the bits of ``_linear``."""
    whole = step.output.layout
    count = whole.shape[0]
    x, weights, biases = step.inputs[0], step.inputs[1 : 1 + count], step.inputs[1 + count :]
    records: list[Record] = []
    for i, weight in enumerate(weights):
        part = Layout(whole.shape[1:], whole.strides[1:], whole.offset + i * whole.strides[0])
        found = _product(
            step, x, _transposed(weight), replace(step.output, layout=part), biases[i] if biases else None, None
        )
        if found is None:
            return None
        records.extend(found)
    return iter(records)


def _matmul(step: Step) -> Iterator[Record] | None:
    a, b = step.inputs
    return _product(step, a, b, step.output, None, None)


def _transposed(weight: Operand) -> Operand:
    return replace(weight, layout=weight.layout.permute((1, 0)))


def _product(
    step: Step, a: Operand, b: Operand, out: Operand, bias: Operand | None, residual: Operand | None
) -> Iterator[Record] | None:
    """Compute ``a @ b``, with leading axes as in NumPy, and its epilogue to ``out``."""
    operands = [each for each in (a, b, out, bias, residual) if each is not None]
    if not _are_float32(*operands) or step.attrs.get("activation") not in ACTIVATIONS:
        return None
    if not all(_has_rows(each.layout) for each in operands if each is not b):
        return None
    activation = ACTIVATIONS[step.attrs.get("activation")]  # type: ignore[index]
    n, k = out.shape[-1], a.shape[-1]
    x, y, z = a.layout, b.layout, out.layout
    r = z if residual is None else residual.layout.broadcast_to(z.shape)
    if len(y.shape) == 2:  # all leading axes are one, where they are one in memory
        flat = [each.reshape((size_of(z.shape[:-1]), each.shape[-1])) for each in (x, z, r)]
        if None not in flat:
            x, z, r = flat  # type: ignore[assignment]
    lead, m = z.shape[:-2], z.shape[-2]
    x, y = (each.broadcast_to((*lead, *each.shape[-2:])) for each in (x, y))
    is_transposed = y.strides[-2] == 1 or k <= 1
    if not is_transposed and not _has_rows(y):
        return None
    is_transposed = is_transposed and (n > 1 or not _has_rows(y))
    lda, ldb, ldc, ldr = x.strides[-2], y.strides[-1 if is_transposed else -2], z.strides[-2], r.strides[-2]
    offsets = np.stack([_offsets(each) for each in (x, y, z, r)], 1).tolist()
    at_a, at_b, at_out = _at(a, x), _at(b, y), _at(out, z)
    at_residual = None if residual is None else _at(residual, r)

    def records() -> Iterator[Record]:
        for first, count in _pieces(len(offsets), MOST // max(m * n * k, 1), 1):
            for row, rows in _pieces(m, MOST // max(n * k, 1), ROWS):
                for column, columns in _pieces(n, MOST // max(rows * k, 1), PANEL):
                    yield Record(
                        (
                            *(PRODUCT, HEADER + 16 + 4 * count, int(is_transposed), count, rows, columns, k),
                            *(at_a.plus(row * lda), lda),
                            *(at_b.plus(column * (ldb if is_transposed else 1)), ldb),
                            *(at_out.plus(row * ldc + column), ldc),
                            0 if bias is None else _at(bias).plus(column),
                            *(0 if at_residual is None else at_residual.plus(row * ldr + column), ldr),
                            *(activation, SCRATCH),
                            *(offset for each in offsets[first : first + count] for offset in each),
                        ),
                        count * rows * columns * k,
                    )

    return records()


def _offsets(layout: Layout) -> Any:
    """Return the elements to each matrix of the last two axes."""
    offsets = np.zeros(1, np.int64)
    for size, stride in zip(layout.shape[:-2], layout.strides[:-2], strict=True):
        offsets = (offsets[:, None] + np.arange(size) * stride).ravel()
    return offsets


def _attention(step: Step) -> Iterator[Record] | None:
    q, k, v, *masks = step.inputs
    out = step.output
    if not _are_float32(q, k, v, out) or not all(_has_rows(each.layout) for each in (*step.inputs, out)):
        return None
    kind = NO_MASK
    if masks:
        kind = {"float32": ADDED, "bool": ALLOWED}.get(masks[0].dtype.name, -1)
        if kind < 0:
            return None
    batch, heads, queries, width = q.shape
    keys, value_width = v.shape[2:]
    blocks = -(-queries // BLOCK)
    work = BLOCK * keys * (width + value_width + 8)  # of a block: 8 for a score's exponential
    words: list[Word] = [
        queries,
        keys,
        width,
        value_width,
        int(bool(step.attrs["causal"])),
        _float(step.attrs["scale"]),
    ]
    for each in (q, k, v, out):
        words += [_at(each), *each.layout.strides[:3]]
    words.append(kind)
    for each in masks:
        words += [_at(each), *each.layout.strides[:3]]
    words += [*([] if masks else [0] * 4), SCRATCH]

    def records() -> Iterator[Record]:
        for first, count in _pieces(batch * heads * blocks, MOST // work, 1):
            yield Record(
                (
                    *(ATTENTION, HEADER + 4 + len(words), first, first + count, heads, heads // k.shape[1]),
                    *words,
                ),
                count * work,
                BLOCK * (-(-keys // 4) * 4),
            )

    return records()


def _rows(operand: Operand, rows: tuple[int, int]) -> tuple[Word, ...]:
    """Return the words of all rows of a value, which begin again when they are used up."""
    return (_at(operand), rows[1], max(rows[0], 1), 0, 0, 0, 0)


def _taken(ids: Operand, table: Operand, wrap: bool) -> tuple[Word, ...] | None:
    """Return the words of the rows of ``table`` that ``ids`` select, each for all columns; None where they do not."""
    spread = ids.layout
    if len(spread.shape) != 2 or (spread.strides[1] and spread.shape[1] > 1) or not _has_rows(table.layout):
        return None
    return (_at(table), table.layout.strides[0], 1, _at(ids), spread.strides[0], table.shape[0], int(wrap))


def _take(step: Step) -> Iterator[Record] | None:
    table, ids = step.inputs
    taken = _taken(ids, table, bool(step.attrs["wrap"])) if step.attrs["axis"] == 0 else None
    if taken is None or table.dtype.itemsize != 4 or not _has_rows(step.output.layout):
        return None
    count, n = step.output.shape
    nothing = _float(math.nan) if table.dtype.name == "float32" else 0
    ld = step.output.layout.strides[0]
    words = (n, _at(step.output), ld, nothing, *taken)
    return _by_rows(TAKE, count, n, words)


def _by_rows(kernel: int, count: int, work: int, words: tuple[Word, ...], scratch: int = 0) -> Iterator[Record]:
    """Compute ``count`` rows, or tiles, of ``work`` operations each."""
    for first, rows in _pieces(count, MOST // max(work, 1), 1):
        yield Record((kernel, HEADER + 2 + len(words), first, first + rows, *words), rows * work, scratch)


def _layer_norm(step: Step) -> Iterator[Record] | None:
    x, weight, bias, *residual = step.inputs
    return _norm(step, [_whole(each) for each in (x, *residual)], weight, bias)


def _rms_norm(step: Step) -> Iterator[Record] | None:
    x, weight = step.inputs
    return _norm(step, [_whole(x)], weight, None)


def _whole(value: Operand) -> tuple[Word, ...] | None:
    rows = _rows_of(value.layout)
    return None if rows is None or not _are_float32(value) else _rows(value, rows)


def _sum_norm(step: Step) -> Iterator[Record] | None:
    *operands, weight, bias = step.inputs
    rest, terms = iter(operands), []
    listed: Any = step.attrs["terms"]
    for kind, wrap in listed:
        value = next(rest)
        if kind == "parts":
            return None
        if kind == "taken":
            table = next(rest)
            terms.append(_taken(value, table, wrap) if _are_float32(table) else None)
        else:
            terms.append(_whole(value))
    return _norm(step, terms, weight, bias)


def _norm(
    step: Step, terms: Sequence[tuple[Word, ...] | None], weight: Operand, bias: Operand | None
) -> Iterator[Record] | None:
    """Normalize the rows of a sum of ``terms``."""
    scales = [weight] if bias is None else [weight, bias]
    rows = _rows_of(step.output.layout)
    known = [term for term in terms if term is not None]
    if rows is None or len(known) < len(terms) or not _are_float32(step.output, *scales):
        return None
    if not all(_has_rows(each.layout) for each in scales):
        return None
    n, eps = step.output.shape[-1], _float(step.attrs["eps"])
    words = (n, _at(step.output), rows[1], _at(weight), 0 if bias is None else _at(bias), eps, len(known))
    return _by_rows(NORM, rows[0], n * (4 + len(known)), (*words, *(word for term in known for word in term)))


def _softmax(step: Step) -> Iterator[Record] | None:
    x, out = step.inputs[0], step.output
    read, written = _rows_of(x.layout), _rows_of(out.layout)
    if read is None or written is None or not _are_float32(x, out):
        return None
    n = out.shape[-1]
    words = (n, _at(out), written[1], _at(x), read[1], SCRATCH)
    return _by_rows(SOFTMAX, written[0], 8 * n, words, n + 3)


def _reduce(step: Step) -> Iterator[Record] | None:
    x, out = step.inputs[0], step.output
    axes: Any = step.attrs["axes"]
    first, end = min(axes, default=0), max(axes, default=-1) + 1
    if not _are_float32(x, out) or step.attrs.get("parts", 1) != 1 or not axes or end - first != len(axes):
        return None
    shape = size_of(x.shape[:first]), size_of(x.shape[first:end]), size_of(x.shape[end:])
    layout = x.layout.reshape(shape)
    if layout is None or not _has_rows(layout) or not shape[1] or not out.layout.is_contiguous:
        return None
    step_of_one = layout.strides[1] if shape[1] > 1 else 1
    words = (*shape[1:], _at(out), _at(x, layout), layout.strides[0], step_of_one, REDUCTIONS[step.op.name])
    return _by_rows(REDUCE, shape[0], shape[1] * shape[2], words)


def _each(step: Step) -> Iterator[Record] | None:
    """Compute a formula of elements: that of a chain, or of one op."""
    out = step.output
    kinds = tuple(each.dtype.name for each in step.inputs)
    inputs = [("input", number) for number in range(len(step.inputs))]
    formula: Any = step.attrs.get("formula") or (step.op.name, (), kinds, out.dtype.name, *inputs)
    code: list[int] = []
    depth = _postfix(formula, code)
    if not depth or not _are_float32(*step.inputs, out):
        return None
    layouts = [each.layout.broadcast_to(out.shape) for each in step.inputs]
    if not out.layout.is_contiguous:
        return None
    split = next(axis for axis in range(len(out.shape) + 1) if all(_is_row(each, axis) for each in layouts))
    n = size_of(out.shape[split:])
    axes = [axis for axis in reversed(range(split)) if out.shape[axis] > 1]
    words: list[Word] = [n, _at(out), SCRATCH, len(axes), len(layouts), len(code) // 2]
    words += [out.shape[axis] for axis in axes]
    for operand, layout in zip(step.inputs, layouts, strict=True):
        words += [_at(operand, layout), int(1 in _steps(layout, split)), *(layout.strides[axis] for axis in axes)]
    tiles = size_of(out.shape[:split]) * -(-n // TILE)
    return _by_rows(EACH, tiles, min(TILE, n) * len(code), (*words, *code), TILE * depth)


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
        code += [NUMBER, _float(dict(attrs)["value"])]
        return 1
    depths = [_postfix(argument, code) for argument in arguments]
    if name not in OPERATIONS or attrs or 0 in depths:
        return 0
    code += [OPERATIONS[name], 0]
    return max(number + depth for number, depth in enumerate(depths))


KERNELS: dict[str, Kernel] = {
    "linear": _linear,
    "linears": _linears,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
    "take_along_axis": _take,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "sum_norm": _sum_norm,
    "softmax": _softmax,
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(ELEMENTWISE, _each),
}
READ_BY_ROWS = {"linear", "linears", "matmul", "scaled_dot_product_attention", "layer_norm", "rms_norm", "softmax"}
