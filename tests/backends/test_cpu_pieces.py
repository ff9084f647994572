"""Pieces of products with quantised weights on the CPU device: equal numbers, and no part of a weight widened twice."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.cpu import pieces
from tensorcommons.formats import BLOCKS
from tensorcommons.formats.format import BlockFormat
from tensorcommons.ops.quantized import quantized_linear, quantized_rows
from tensorcommons.samples.quantized import random_blocks
from tests.cases.support import near

SHAPE = 100, 256


@pytest.mark.parametrize("name", ["int4_g128", "fp8_g64_bf16", "q6_k"])
@pytest.mark.parametrize("rows", [1, 7])
async def test_a_weight_is_widened_once(name: str, rows: int) -> None:
    device = (await tc.open_devices(prefer=["cpu"])).opened[0]
    form, widened, dense = BLOCKS[name], [], BlockFormat.dense
    words = random_blocks(form, SHAPE)
    draw = np.random.default_rng(rows).standard_normal
    x, bias = (draw(shape).astype(np.float32) for shape in ((rows, SHAPE[1]), SHAPE[:1]))

    def counted(form: BlockFormat, words: object, shape: tuple[int, int], part: slice) -> object:
        widened.append(part.stop - part.start)
        return dense(form, words, shape, part)

    async def both() -> tuple[object, object]:
        on = [tc.asarray(array, device=device) for array in (x, words, bias)]
        given: dict[str, Any] = {"block_format": name, "shape": SHAPE}
        y = tc.gelu(quantized_linear(*on, **given, precision="fast")) + on[2]
        ids = tc.asarray(np.arange(rows * 9, dtype=np.int32), device=device)
        return await y.read(), await quantized_rows(on[1], ids, **given).read()

    with patch.object(BlockFormat, "dense", counted):
        whole = await both()
        assert sum(widened) == SHAPE[0]
        widened.clear()
        device.programs.clear()
        with patch.multiple(pieces, IN_BROWSER=True, FLOPS=2**12, ELEMENTS=2**11):
            divided = await both()
    assert len(widened) > 5 and sum(widened) == SHAPE[0]
    near(divided[0], whole[0], 1e-5)
    np.testing.assert_array_equal(divided[1], whole[1])
