"""Products of few rows with quantised weights, as hardware computes them, in both precisions.

Plans are those of hardware on the available adapter: "fast" is compared where it has the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.formats import BLOCKS
from tensorcommons.ops.quantized import quantized_linear
from tensorcommons.samples.quantized import random_blocks
from tests.cases import only
from tests.cases.hardware import hardware
from tests.cases.support import compiles_slowly, near, numbers, on

# Scales for 32 and for 16 quants, with and without minima.
FORMATS = ("q4_0", "q6_k", "q5_1", "q2_k")


def _rounded(x: Any) -> Any:
    """Return float32 ``x`` rounded to int8 in blocks of 32, block by block, as float64."""
    rounded = np.zeros(x.shape)
    for row in range(len(x)):
        for at in range(0, x.shape[1], 32):
            block = x[row, at : at + 32].astype(np.float64)
            scale = np.abs(block).max() / 127
            rounded[row, at : at + 32] = [scale * round(float(number / scale)) for number in block]
    return rounded


def _precisions(device: Device) -> Iterator[str]:
    yield "exact"
    if device.backend.multiplies_int8:
        yield "fast"


def _steps(device: Device) -> list[str]:
    """Return the ops of the steps of the program that was planned last."""
    program: Any = list(device.programs.values())[-1]
    return [step.op.name for step in program.planned.plan.steps]


def _dense(name: str, words: Any, shape: tuple[int, int]) -> Any:
    return BLOCKS[name].dense(words, shape).astype(np.float64)


@only("webgpu")
async def products_and_what_follows(device: Device) -> None:
    """A row has the same bits alone and beside others; bias, activation and residual are part of the step."""
    rows, columns, depth = 3, 21, 512
    x, bias, residual = numbers(rows, depth), numbers(columns, seed=1), numbers(rows, columns, seed=2)
    with hardware(device):
        for name in FORMATS[: 2 if compiles_slowly(device) else None]:
            words = random_blocks(BLOCKS[name], (columns, depth))
            given, weight, b, r = on(device, x, words, bias, residual)
            for precision in _precisions(device):

                def product(x: Any, *bias: Any, name: str = name, weight: Any = weight, how: str = precision) -> Any:
                    return quantized_linear(x, weight, *bias, block_format=name, shape=(columns, depth), precision=how)

                wide = _rounded(x) if precision == "fast" else x
                wanted = np.maximum(wide @ _dense(name, words, (columns, depth)).T + bias, 0) + residual
                near(await (tc.relu(product(given, b)) + r).read(), wanted)
                together, alone = await product(given).read(), await product(given[1:2]).read()
                np.testing.assert_array_equal(alone, together[1:2])


@only("webgpu")
async def products_of_a_norm_are_one_step(device: Device) -> None:
    """Weights of several formats, and a gated pair, with the numbers of single steps."""
    rows, depth = 2, 256
    x, scale = numbers(rows, depth), numbers(depth, seed=3, low=0.5, high=1.5)
    sizes = {"q4_0": (40, depth), "q6_k": (24, depth), "q4_1": (24, depth)}
    words = {name: random_blocks(BLOCKS[name], shape) for name, shape in sizes.items()}
    normed = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * scale
    with hardware(device):
        given, factor = on(device, x, scale)
        weights = dict(zip(words, on(device, *words.values()), strict=True))
        for precision in _precisions(device):

            def product(x: Any, name: str, precision: str = precision) -> Any:
                return quantized_linear(x, weights[name], block_format=name, shape=sizes[name], precision=precision)

            wide = _rounded(normed.astype(np.float32)) if precision == "fast" else normed
            wanted = {name: wide @ _dense(name, words[name], sizes[name]).T for name in words}
            normal = tc.rms_norm(given, factor, eps=1e-6)
            joined = await tc.concat([product(normal, name) for name in words], axis=1).read()
            assert _steps(device) == ["row_products", "concat"], _steps(device)
            near(joined, np.concatenate(list(wanted.values()), 1), 1e-4)
            gated = tc.silu(product(normal, "q6_k")) * product(normal, "q4_1")
            found = await tc.concat([gated, gated], axis=1).read()
            assert _steps(device) == ["row_products", "concat"], _steps(device)
            gate = wanted["q6_k"]
            near(found[:, :24], gate / (1 + np.exp(-gate)) * wanted["q4_1"], 1e-4)


@only("webgpu")
async def many_rows_round_as_few(device: Device) -> None:
    """More rows than the kernels take are rounded by a step of their own; also odd values give what NumPy gives."""
    name, shape = "q8_0", (12, 64)
    words = random_blocks(BLOCKS[name], shape)
    x = numbers(19, 64)
    x[2, 5], x[3, 40], x[4, :32], x[5] = np.nan, np.inf, 0, 1e-40
    with hardware(device):
        if not device.backend.multiplies_int8:
            return
        given, weight = on(device, x, words)
        value = quantized_linear(given, weight, block_format=name, shape=shape, precision="fast")
        found = await value.read()
        assert _steps(device) == ["int8_blocks", "quantized_linear"], _steps(device)
        few = await quantized_linear(given[2:8], weight, block_format=name, shape=shape, precision="fast").read()
        near(few, found[2:8], 1e-6)
    finite = [*range(2), *range(6, 19)]
    near(found[finite], _rounded(x[finite]) @ _dense(name, words, shape).T)
    assert np.isnan(found[2:4]).all() and (found[5] == 0).all() and np.isfinite(found[4]).all()
