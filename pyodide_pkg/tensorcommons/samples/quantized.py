"""Samples of ops on quantised weights, whose storages hold blocks of random bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcommons.formats import BLOCKS
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.samples import FLOATS, Shapes, declare, drawn
from tensorcommons.tensor import Tensor

FORMAT = BLOCKS["q8_0"]
TABLE = (7, 96)
SIZES: tuple[Shapes, ...] = (
    ((5, 32), (3,)), ((1, 64), (17,)), ((2, 3, 96), (8,)), ((96,), (5,)), ((0, 32), (4,)), ((33, 160), (68,)),
)  # fmt: skip


def random_blocks(shape: tuple[int, int]) -> Any:
    """Return the storage of a weight of random quants and scales of either sign, as int8."""
    rng = np.random.default_rng(shape)
    blocks = rng.integers(0, 256, (FORMAT.blocks(shape), FORMAT.nbytes), np.uint8)
    scales = (rng.uniform(0.25, 4, len(blocks)) * rng.choice((-0.01, 0.01), len(blocks))).astype(np.float16)
    blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    return np.frombuffer(FORMAT.pack(blocks.tobytes()), np.int8)


def _operands(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    """Make x (..., in), the storage of a weight (out, in), and a bias (out,)."""
    x, bias = shapes
    return [drawn(rng, dtype, x), random_blocks((bias[0], x[-1])), drawn(rng, dtype, bias)]


def _linear(x: Tensor, words: Tensor, bias: Tensor) -> Tensor:
    return quantized_linear(x, words, bias, block_format=FORMAT.name, shape=(bias.shape[0], x.shape[-1]))


def _product(x: Any, words: Any, bias: Any) -> Any:
    return x @ FORMAT.dense(words, (len(bias), x.shape[-1])).astype(np.float64).T + bias


def _rows(words: Tensor, ids: Tensor) -> Tensor:
    return quantized_rows(words, ids, block_format=FORMAT.name, shape=TABLE)


def _taken(words: Any, ids: Any) -> Any:
    outside = (ids < 0) | (ids >= TABLE[0])
    return np.where(outside[..., None], np.float32(np.nan), FORMAT.dense(words, TABLE)[np.where(outside, 0, ids)])


def _chosen(rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
    return [random_blocks(TABLE), drawn(rng, dtype, shapes[0])]


declare("quantized_linear", _linear, _product, SIZES, FLOATS, values=_operands)
declare(
    "quantized_rows", _rows, _taken, (((),), ((5,),), ((2, 3),), ((0,),), ((200,),)), ("int32",), values=_chosen,
    result="float32",
)  # fmt: skip
