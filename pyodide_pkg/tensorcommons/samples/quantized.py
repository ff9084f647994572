"""Samples of ops on quantised weights, whose storages hold blocks of random bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorcommons.formats import BLOCKS, OF_GGUF, BlockFormat
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.samples import FLOATS, Shapes, declare, drawn
from tensorcommons.tensor import Tensor

SIZES: tuple[Shapes, ...] = (
    ((5, 32), (3,)), ((1, 64), (17,)), ((2, 3, 96), (8,)), ((96,), (5,)), ((0, 32), (4,)), ((33, 160), (68,)),
)  # fmt: skip
IDS: tuple[Shapes, ...] = (((),), ((5,),), ((2, 3),), ((0,),), ((200,),))


def random_blocks(form: BlockFormat, shape: tuple[int, int]) -> Any:
    """Return the storage of a weight of random bits, as int8, but for its scales, which are of either sign."""
    rng = np.random.default_rng(shape)
    blocks = rng.integers(0, 256, (form.blocks(shape), form.nbytes), np.uint8)
    for at, nbytes in form.fields:
        if nbytes == 2 or (nbytes == 4 and form.name.endswith("_f32")):
            scales = rng.uniform(0.25, 4, len(blocks)) * rng.choice((-0.01, 0.01), len(blocks))
            own = scales.astype(np.float16 if nbytes == 2 else np.float32)
            if form.name.endswith("_bf16"):
                own = (scales.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            blocks[:, at : at + nbytes] = own.view(np.uint8).reshape(-1, nbytes)
    return np.frombuffer(form.pack(blocks.tobytes()), np.int8)


def _declare_linear(form: BlockFormat, sizes: Sequence[Shapes], dtypes: Sequence[str]) -> None:
    """Declare products of x (..., in), the storage of a weight (out, in), and a bias (out,)."""

    def operands(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
        x, bias = shapes
        return [drawn(rng, dtype, x), random_blocks(form, (bias[0], x[-1])), drawn(rng, dtype, bias)]

    def call(x: Tensor, words: Tensor, bias: Tensor) -> Tensor:
        return quantized_linear(x, words, bias, block_format=form.name, shape=(bias.shape[0], x.shape[-1]))

    def wanted(x: Any, words: Any, bias: Any) -> Any:
        return x @ form.dense(words, (len(bias), x.shape[-1])).astype(np.float64).T + bias

    declare("quantized_linear", call, wanted, sizes, dtypes, values=operands)


def _declare_rows(form: BlockFormat, table: tuple[int, int], ids: Sequence[Shapes]) -> None:
    """Declare rows of the storage of a ``table``."""

    def operands(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
        return [random_blocks(form, table), drawn(rng, dtype, shapes[0])]

    def call(words: Tensor, ids: Tensor) -> Tensor:
        return quantized_rows(words, ids, block_format=form.name, shape=table)

    def wanted(words: Any, ids: Any) -> Any:
        outside = (ids < 0) | (ids >= table[0])
        return np.where(outside[..., None], np.float32(np.nan), form.dense(words, table)[np.where(outside, 0, ids)])

    declare(
        "quantized_rows", call, wanted, ids, ("int32",), values=operands, result="float32", each=True, tolerance=0.0
    )


# The other formats of groups are read by functions that differ from these in sizes alone, as their rows show.
_LINEAR = {*(form.name for form in OF_GGUF), "int4_g128_bf16", "int8_g64_f32", "fp8_g32"}

for _form in BLOCKS.values():
    # An odd number of blocks, so that a second field of float16 begins within a word.
    _depth = 3 * _form.size if _form.size < 256 else _form.size
    if _form.name == "q8_0":
        _declare_linear(_form, SIZES, FLOATS)
        _declare_rows(_form, (7, 96), IDS)
    else:
        _declare_rows(_form, (7, _depth), IDS[2:3])
        if _form.name in _LINEAR:
            _declare_linear(_form, (((3, _depth), (5,)),), FLOATS[:1])
