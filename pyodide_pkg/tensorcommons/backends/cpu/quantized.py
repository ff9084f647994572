"""Records of products with weights of Q8_0, and of look-ups in tables of Q8_0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...shapes import Shape, size_of
from ..base import Operand, Step
from .products import ACTIVATIONS, PANEL
from .record import (
    QUANTIZED,
    QUANTIZED_TAKE,
    SCRATCH,
    Pointer,
    Record,
    address,
    are_float32,
    by_rows,
    has_rows,
    rows_of,
)

# The formats of weights that it stores. It has kernels of Q8_0; NumPy widens the others, part by part.
BLOCKS = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl"),
    *(
        f"{kind}_g{size}{scale}"
        for kind in ("int4", "int8", "fp8")
        for size in (32, 64, 128)
        for scale in ("", "_bf16", "_f32")
    ),
)


def linear(step: Step) -> Iterator[Record] | None:
    """Multiply by a weight of Q8_0, with the epilogue of the step."""
    x, words, *more = step.inputs
    out, attrs = step.output, step.attrs
    residual = more.pop() if attrs["residual"] else None
    shape: Any = attrs["weight_shape"]
    activation: Any = attrs["activation"]
    known = [out if residual is None else residual, x, out]
    rows = [each for each in (rows_of(operand.layout) for operand in known) if each is not None]
    if attrs["block_format"] != "q8_0" or activation not in ACTIVATIONS or len(rows) < len(known):
        return None
    if not are_float32(*known, *more) or not all(has_rows(each.layout) for each in more):
        return None
    (_, ldr), (m, lda), (_, ldc) = rows
    words_of = (
        m,
        shape[1],
        address(x),
        lda,
        *_fields(words, shape),
        address(out),
        ldc,
        address(more[0]) if more else 0,
    )
    epilogue = (0 if residual is None else address(residual), ldr, ACTIVATIONS.index(activation), SCRATCH)
    return by_rows(QUANTIZED, shape[0], m * shape[1], (*words_of, *epilogue), PANEL * shape[1])


def take(step: Step) -> Iterator[Record] | None:
    """Select rows of a table of Q8_0."""
    words, ids = step.inputs
    shape: Any = step.attrs["weight_shape"]
    rows = rows_of(step.output.layout)
    if step.attrs["block_format"] != "q8_0" or rows is None or not ids.layout.is_contiguous:
        return None
    words_of = (shape[1], address(step.output), rows[1], *_fields(words, shape), address(ids), shape[0], SCRATCH)
    return by_rows(QUANTIZED_TAKE, rows[0], shape[1], words_of)


def _fields(words: Operand, shape: Shape) -> tuple[Pointer, Pointer]:
    """Return the addresses of the quants and of the scales of all blocks."""
    quants = address(words)
    return quants, replace(quants, offset=quants.offset + size_of(shape))
