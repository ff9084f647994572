"""Records of products of matrices and of attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ...shapes import Layout, size_of
from ..base import Operand, Step
from .record import (
    ATTENTION,
    HALF_PRODUCT,
    HEADER,
    MOST,
    PRODUCT,
    SCRATCH,
    Record,
    Word,
    address,
    are_float32,
    float_bits,
    has_rows,
    pieces,
)

ACTIVATIONS = (None, "relu", "sigmoid", "gelu", "tanh", "gelu_tanh")  # as in wasm/vectors.h
NO_MASK, ADDED, ALLOWED = range(3)
MATRICES = 2**14  # of a stack: a record lists the offsets of each
ROWS, PANEL, PACKED, BLOCK = 4, 32, 16, 16  # as in wasm/products.h and wasm/attention.h
WIDENED, WIDE = 2048, 64  # as in wasm/halves.h


def linear(step: Step) -> Iterator[Record] | None:
    """Multiply by a weight that is stored as (outputs, inputs), with the epilogue of the step."""
    x, weight, *more = step.inputs
    residual = more.pop() if step.attrs["residual"] else None
    return _product(step, x, _transposed(weight), step.output, more[0] if more else None, residual)


def matmul(step: Step) -> Iterator[Record] | None:
    """Multiply two matrices, or stacks of them."""
    a, b = step.inputs
    return _product(step, a, b, step.output, None, None)


def _transposed(weight: Operand) -> Operand:
    return replace(weight, layout=weight.layout.permute((1, 0)))


def _product(
    step: Step, a: Operand, b: Operand, out: Operand, bias: Operand | None, residual: Operand | None
) -> Iterator[Record] | None:
    """Compute ``a @ b``, with leading axes as in NumPy, and its epilogue to ``out``; b may be float16."""
    others = [each for each in (a, out, bias, residual) if each is not None]
    is_half = b.dtype.name == "float16"
    if not are_float32(*others) or not (is_half or are_float32(b)) or step.attrs.get("activation") not in ACTIVATIONS:
        return None
    if not all(has_rows(each.layout) for each in others):
        return None
    activation = ACTIVATIONS.index(step.attrs.get("activation"))
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
    if not is_transposed and not has_rows(y):
        return None
    is_transposed = is_transposed and (n > 1 or not has_rows(y))
    if size_of(lead) > MATRICES:
        return None
    lda, ldb, ldc, ldr = x.strides[-2], y.strides[-1 if is_transposed else -2], z.strides[-2], r.strides[-2]
    offsets = np.stack([_offsets(each) for each in (x, y, z, r)], 1).tolist()
    at_a, at_b, at_out = address(a, x), address(b, y), address(out, z)
    at_residual = None if residual is None else address(residual, r)
    scratch = 0 if is_transposed else PACKED * k
    if is_half:
        scratch = PANEL * k if is_transposed else max(8 * WIDENED, WIDE * k)

    def records() -> Iterator[Record]:
        for first, count in pieces(len(offsets), MOST // max(m * n * k, 1), 1):
            for row, rows in pieces(m, MOST // max(n * k, 1), ROWS):
                for column, columns in pieces(n, MOST // max(rows * k, 1), PANEL):
                    yield Record(
                        (
                            *(HALF_PRODUCT if is_half else PRODUCT, HEADER + 16 + 4 * count),
                            *(int(is_transposed), count, rows, columns, k),
                            *(at_a.plus(row * lda), lda),
                            *(at_b.plus(column * (ldb if is_transposed else 1), b.dtype.itemsize), ldb),
                            *(at_out.plus(row * ldc + column), ldc),
                            0 if bias is None else address(bias).plus(column),
                            *(0 if at_residual is None else at_residual.plus(row * ldr + column), ldr),
                            *(activation, SCRATCH),
                            *(offset for each in offsets[first : first + count] for offset in each),
                        ),
                        count * rows * columns * k,
                        scratch,
                    )

    return records()


def _offsets(layout: Layout) -> Any:
    """Return the elements to each matrix of the last two axes."""
    offsets = np.zeros(1, np.int64)
    for size, stride in zip(layout.shape[:-2], layout.strides[:-2], strict=True):
        offsets = (offsets[:, None] + np.arange(size) * stride).ravel()
    return offsets


def attention(step: Step) -> Iterator[Record] | None:
    """Compute attention by blocks of queries, without a copy of the operands."""
    q, k, v, *masks = step.inputs
    out = step.output
    if not are_float32(q, k, v, out) or not all(has_rows(each.layout) for each in (*step.inputs, out)):
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
        float_bits(step.attrs["scale"]),
    ]
    for each in (q, k, v, out):
        words += [address(each), *each.layout.strides[:3]]
    words.append(kind)
    for each in masks:
        words += [address(each), *each.layout.strides[:3]]
    words += [*([] if masks else [0] * 4), SCRATCH]

    def records() -> Iterator[Record]:
        for first, count in pieces(batch * heads * blocks, MOST // work, 1):
            yield Record(
                (
                    *(ATTENTION, HEADER + 4 + len(words), first, first + count, heads, heads // k.shape[1]),
                    *words,
                ),
                count * work,
                min(queries, BLOCK) * (-(-keys // 4) * 4),
            )

    return records()
