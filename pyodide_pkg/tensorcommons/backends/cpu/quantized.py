"""Records of products with weights of the block formats, and of look-ups in tables of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from ...shapes import Shape, size_of
from ..base import Operand, Step
from .products import ACTIVATIONS, PANEL
from .record import (
    QUANTIZED,
    QUANTIZED_TAKE,
    SCRATCH,
    Record,
    Word,
    address,
    are_float32,
    by_rows,
    has_rows,
    rows_of,
)


@dataclass(frozen=True)
class Kind:
    """A format as its kernels see it: ``scale * (quant - zero) - minimum``, with a scale for each ``group`` of numbers.

    A block has ``size`` numbers and ``fields`` of so many bytes, in the order of the storage.
    """

    number: int  # as in wasm/block_formats.h
    size: int
    fields: tuple[int, ...]
    group: int = 32
    zero: int = 0
    has_minima: bool = False


KINDS = {
    "q4_0": Kind(0, 32, (16, 2), zero=8),
    "q4_1": Kind(1, 32, (16, 2, 2), has_minima=True),
    "q5_0": Kind(2, 32, (16, 4, 2), zero=16),
    "q5_1": Kind(3, 32, (16, 4, 2, 2), has_minima=True),
    "q8_0": Kind(4, 32, (32, 2)),
    "q2_k": Kind(5, 256, (64, 16, 2, 2), group=16, has_minima=True),
    "q3_k": Kind(6, 256, (64, 32, 12, 2), group=16, zero=4),
    "q4_k": Kind(7, 256, (128, 12, 2, 2), has_minima=True),
    "q5_k": Kind(8, 256, (128, 32, 12, 2, 2), has_minima=True),
    "q6_k": Kind(9, 256, (128, 64, 16, 2), group=16, zero=32),
    "iq4_nl": Kind(10, 32, (16, 2)),
}
FIELDS, WIDENING, ROUNDED = 5, 96, 128  # as in wasm/block_formats.h and wasm/quantized.h
# The formats of weights that the device stores. NumPy widens those without a kernel, part by part.
BLOCKS = (
    *KINDS,
    *(
        f"{kind}_g{size}{scale}"
        for kind in ("int4", "int8", "fp8")
        for size in (32, 64, 128)
        for scale in ("", "_bf16", "_f32")
    ),
)


def linear(step: Step) -> Iterator[Record] | None:
    """Multiply by a weight in blocks, with the epilogue of the step."""
    x, words, *more = step.inputs
    out, attrs = step.output, step.attrs
    residual = more.pop() if attrs["residual"] else None
    shape: Any = attrs["weight_shape"]
    activation: Any = attrs["activation"]
    known = [out if residual is None else residual, x, out]
    rows = [each for each in (rows_of(operand.layout) for operand in known) if each is not None]
    if attrs["block_format"] not in KINDS or activation not in ACTIVATIONS or len(rows) < len(known):
        return None
    if not are_float32(*known, *more) or not all(has_rows(each.layout) for each in more):
        return None
    (_, ldr), (m, lda), (_, ldc) = rows
    words_of = (
        m,
        shape[1],
        address(x),
        lda,
        *_weight(str(attrs["block_format"]), words, shape),
        address(out),
        ldc,
        address(more[0]) if more else 0,
    )
    is_fast = attrs["precision"] == "fast"
    epilogue = (0 if residual is None else address(residual), ldr, ACTIVATIONS.index(activation), int(is_fast), SCRATCH)
    scratch = (PANEL + is_fast * min(m, ROUNDED)) * shape[1] + WIDENING
    return by_rows(QUANTIZED, shape[0], m * shape[1], (*words_of, *epilogue), scratch)


def take(step: Step) -> Iterator[Record] | None:
    """Select rows of a table in blocks."""
    words, ids = step.inputs
    shape: Any = step.attrs["weight_shape"]
    rows = rows_of(step.output.layout)
    if step.attrs["block_format"] not in KINDS or rows is None or not ids.layout.is_contiguous:
        return None
    weight = _weight(str(step.attrs["block_format"]), words, shape)
    words_of = (shape[1], address(step.output), rows[1], *weight, address(ids), shape[0], SCRATCH)
    return by_rows(QUANTIZED_TAKE, rows[0], shape[1], words_of, WIDENING)


def _weight(name: str, words: Operand, shape: Shape) -> tuple[Word, ...]:
    """Return the words of a weight: its format, then the address and the bytes of a block of each field."""
    kind, start = KINDS[name], address(words)
    blocks, empty = size_of(shape) // kind.size, (0,) * (FIELDS - len(kind.fields))
    places = accumulate((nbytes * blocks for nbytes in kind.fields[:-1]), initial=start.offset)
    head = (kind.number, kind.size, kind.group, kind.zero, int(kind.has_minima))
    return (*head, *(replace(start, offset=place) for place in places), *empty, *kind.fields, *empty)
