"""Records of look-ups, norms, softmax and reductions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...shapes import Layout, part_length, size_of
from ..base import Operand, Step
from .record import (
    MOST,
    NORM,
    REDUCE,
    SCRATCH,
    SOFTMAX,
    TAKE,
    Record,
    Word,
    address,
    are_float32,
    by_rows,
    float_bits,
    has_rows,
    pieces,
    rows_of,
)

REDUCTIONS = {"sum": 0, "mean": 1, "max": 2, "min": 3, "argmax": 4, "argmin": 5, "logsumexp": 6}
PART = 256  # as in wasm/vectors.h
TABLES = 64  # of a look-up: each has a record
NOTHING = {"float32": float_bits(math.nan), "float16": 0x7E007E00}  # four bytes of NaN
# multiply-adds of a product that take the time of an element
TAKEN, NORMALIZED, SOFTENED, REDUCED, RAISED = 4, 10, 40, 8, 24


def _rows(operand: Operand, rows: tuple[int, int]) -> tuple[Word, ...]:
    """Return the words of all rows of a value, which begin again when they are used up."""
    return (address(operand), 4 * rows[1], max(rows[0], 1), 0, 0, 0, 0)


def _taken(ids: Operand, table: Operand, wrap: bool) -> tuple[Word, ...] | None:
    """Return the words of the rows of ``table`` that ``ids`` select, each for all columns; None where they do not."""
    spread = ids.layout
    if len(spread.shape) != 2 or (spread.strides[1] and spread.shape[1] > 1) or not has_rows(table.layout):
        return None
    ld = table.layout.strides[0] * table.dtype.itemsize
    return (address(table), ld, 1, address(ids), spread.strides[0], table.shape[0], int(wrap))


def take(step: Step) -> Iterator[Record] | None:
    """Select rows of a table of elements of 2 or 4 bytes, or of each of several tables."""
    axis: Any = step.attrs["axis"]
    out, itemsize = step.output, step.output.dtype.itemsize
    count, n = size_of(out.shape[:axis]), size_of(out.shape[axis + 1 :])
    stacked = [each.layout.reshape((count, each.shape[axis], n)) for each in (*step.inputs, out)]
    layouts = [each for each in stacked if each is not None]
    if len(layouts) < len(stacked) or itemsize not in (2, 4) or count > TABLES:
        return None
    made: list[tuple[Word, ...]] = []
    for number in range(count):
        table, ids, rows = (
            replace(each, layout=Layout(at.shape[1:], at.strides[1:], at.offset + number * at.strides[0]))
            for each, at in zip((*step.inputs, out), layouts, strict=True)
        )
        taken = _taken(ids, table, bool(step.attrs["wrap"]))
        if taken is None or not has_rows(rows.layout):
            return None
        nothing = NOTHING.get(out.dtype.name, 0)
        made.append((n * itemsize, address(rows), rows.layout.strides[0] * itemsize, nothing, *taken))
    return (record for words in made for record in by_rows(TAKE, layouts[2].shape[1], TAKEN * n, words))


def layer_norm(step: Step) -> Iterator[Record] | None:
    """Normalize rows, with a residual added before."""
    x, weight, bias, *residual = step.inputs
    return _norm(step, [_whole(each) for each in (x, *residual)], weight, bias)


def rms_norm(step: Step) -> Iterator[Record] | None:
    """Normalize rows by their root mean square."""
    x, weight = step.inputs
    return _norm(step, [_whole(x)], weight, None)


def _whole(value: Operand) -> tuple[Word, ...] | None:
    rows = rows_of(value.layout)
    return None if rows is None or not are_float32(value) else _rows(value, rows)


def sum_norm(step: Step) -> Iterator[Record] | None:
    """Normalize rows of a sum of values and looked-up rows."""
    *operands, weight, bias = step.inputs
    rest, terms = iter(operands), []
    listed: Any = step.attrs["terms"]
    for kind, wrap in listed:
        value = next(rest)
        if kind == "parts":
            return None
        if kind == "taken":
            table = next(rest)
            terms.append(_taken(value, table, wrap) if are_float32(table) else None)
        else:
            terms.append(_whole(value))
    return _norm(step, terms, weight, bias)


def _norm(
    step: Step, terms: Sequence[tuple[Word, ...] | None], weight: Operand, bias: Operand | None
) -> Iterator[Record] | None:
    """Normalize the rows of a sum of ``terms``."""
    scales = [weight] if bias is None else [weight, bias]
    rows = rows_of(step.output.layout)
    known = [term for term in terms if term is not None]
    if rows is None or len(known) < len(terms) or not are_float32(step.output, *scales):
        return None
    if not all(has_rows(each.layout) for each in scales):
        return None
    n, eps = step.output.shape[-1], float_bits(step.attrs["eps"])
    words = (n, address(step.output), rows[1], address(weight), 0 if bias is None else address(bias), eps, len(known))
    return by_rows(NORM, rows[0], n * (NORMALIZED + len(known)), (*words, *(word for term in known for word in term)))


def softmax(step: Step) -> Iterator[Record] | None:
    """Compute the softmax of rows, or its logarithm."""
    x, out = step.inputs[0], step.output
    read, written = rows_of(x.layout), rows_of(out.layout)
    if read is None or written is None or not are_float32(x, out):
        return None
    n = out.shape[-1]
    words = (n, int(step.op.name == "log_softmax"), address(out), written[1], address(x), read[1], SCRATCH)
    return by_rows(SOFTMAX, written[0], SOFTENED * n, words, n + 3)


def reduce(step: Step) -> Iterator[Record] | None:
    """Reduce adjacent axes by one of :data:`REDUCTIONS`, or contiguous parts of the last ones.

    Sums, means and extrema of long axes take several records.
    """
    x, out = step.inputs[0], step.output
    axes: Any = step.attrs["axes"]
    first, end = min(axes, default=0), max(axes, default=-1) + 1
    kind = REDUCTIONS[step.op.name]
    result = "int32" if step.op.name in ("argmax", "argmin") else "float32"
    if not are_float32(x) or out.dtype.name != result:
        return None
    if not axes or end - first != len(axes):
        return None
    shape = size_of(x.shape[:first]), size_of(x.shape[first:end]), size_of(x.shape[end:])
    layout = x.layout.reshape(shape)
    if layout is None or not has_rows(layout) or not 0 < shape[1] < 2**31 or not out.layout.is_contiguous:
        return None
    step_of_one = layout.strides[1] if shape[1] > 1 else 1
    if kind >= REDUCTIONS["argmax"] and (shape[2] > 1 or step_of_one != 1):
        return None
    parts: Any = step.attrs.get("parts", 1)
    if parts > 1 and shape[2] > 1:
        return None
    rows, length, inner = shape
    outer, work = layout.strides[0], RAISED if kind == REDUCTIONS["logsumexp"] else REDUCED

    def of_parts() -> Iterator[Record]:
        size = part_length(length, parts)
        for part in range(parts):
            start, end = part * size, min((part + 1) * size, length)
            values = address(x, layout)
            if kind < REDUCTIONS["argmax"]:  # positions count from the start of the row
                values, start, end = values.plus(start * step_of_one), 0, end - start
            words = (end, start, end, 1, address(out).plus(part), parts, values, outer, step_of_one, kind, SCRATCH)
            yield from by_rows(REDUCE, rows, work * (end - start), words)

    def records() -> Iterator[Record]:
        for column, columns in pieces(inner, MOST // work, 4):
            most = MOST // (work * columns) if kind < REDUCTIONS["argmax"] else length
            for start, count in pieces(length, most, PART):
                yield from by_rows(
                    REDUCE,
                    rows,
                    work * columns * count,
                    (
                        *(length, start, start + count, columns, address(out).plus(column), inner),
                        *(address(x, layout).plus(column), outer, step_of_one, kind, SCRATCH),
                    ),
                )

    return records() if parts == 1 else of_parts()
