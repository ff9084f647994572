"""Kernels for hardware on the available adapter: every case of their families again.

A software adapter runs them correctly but never chooses them, and compiles some of them slowly. There, the cases take
their choices in pairs (``support.combinations``); ``make conformance`` on a GPU runs them in all combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.webgpu.kernels import matmul
from tensorcommons.formats import BLOCKS
from tensorcommons.ops.quantized import quantized_linear
from tensorcommons.samples.quantized import random_blocks
from tests.cases import case_of, cases_of, only
from tests.cases.support import agree, combinations, near, numbers, on

# Block formats of products in tiles, by turns: of 32 numbers, the last of a depth that some tiles pass, and of more.
PACKED = (("q5_1", "q4_k"), ("q4_0", "q2_k"), ("fp8_g32", "q3_k"), ("q8_0", "int4_g128"), ("q5_0", "q6_k"))
FAMILIES = ("matmul", "normalization", "attention")
ALSO = ("convolution.same_and_valid", "convolution.float16")
# One takes minutes; the other is about other names of matmul, which have no kernels.
LEFT_OUT = ("attention.many_batches", "matmul.products_by_their_names")


@contextmanager
def hardware(device: Device, **table: Any) -> Iterator[None]:
    """Compile as for hardware within the block, with ``table`` in place of names of kernels/matmul.py."""
    backend: Any = device.backend
    adapter, kept = backend.adapter, {name: getattr(matmul, name) for name in table}
    backend.adapter = replace(adapter, fallback=False)
    try:
        for name, value in table.items():
            setattr(matmul, name, value)
        yield
    finally:
        backend.adapter = adapter
        for name, value in kept.items():
            setattr(matmul, name, value)


def _ashardware(name: str) -> Callable[[Device], Coroutine[Any, Any, None]]:
    @only("webgpu")
    async def case(device: Device) -> None:
        with hardware(device):
            await case_of(name)(device)

    return case


def _in_tiles(tile: matmul.Tile, number: int) -> Callable[[Device], Coroutine[Any, Any, None]]:
    @only("webgpu")
    async def case(device: Device) -> None:
        """Cover every way to read and store, with an edge of a tile in both axes: sizes of no other case."""
        backend: Any = device.backend
        if backend.is_software and number not in _ONE_OF_A_KIND:
            return
        rows, columns = tile.rows + 1, tile.columns + 4 * number + 4
        with hardware(device, HARDWARE=(replace(tile, groups=0),)):
            x, w, r = numbers(rows, 20), numbers(columns, 20, seed=1), numbers(rows, columns, seed=2)
            await agree(device, lambda x, w, r: tc.relu(tc.linear(x, w, r[0])) + r, lambda x, w, r: np.maximum(x @ w.T + r[0], 0) + r, x, w, r)  # fmt: skip # noqa: E501
            deep = 8 * tile.slices * (2 if tile.slices < 16 else 1)
            x, w = numbers(deep, rows + 3), numbers(deep, columns, seed=1)
            await agree(device, lambda x, w: tc.matmul(tc.permute_dims(x, (1, 0)), w), lambda x, w: x.T @ w, x, w)
            x, w = numbers(2, rows, 13), numbers(13, columns - 1, seed=1)
            await agree(device, lambda x, w: tc.matmul(x[:, ::-1], w[::-1]), lambda x, w: x[:, ::-1] @ w[::-1], x, w)
            x, w = numbers(13, rows), numbers(columns - 1, 13, seed=1)
            await agree(device, lambda x, w: tc.matmul(tc.permute_dims(x, (1, 0)), tc.permute_dims(w, (1, 0))), lambda x, w: x.T @ w.T, x, w)  # fmt: skip # noqa: E501
            for form, depth in zip(PACKED[number % len(PACKED)], (96, 512), strict=True):
                words, x = random_blocks(BLOCKS[form], (columns, depth)), numbers(rows, depth)
                product = partial(quantized_linear, block_format=form, shape=(columns, depth))
                wanted = x @ BLOCKS[form].dense(words, (columns, depth)).T + r[0]
                near(await product(*on(device, x, words, r[0])).read(), wanted)

    return case


@only("webgpu")
async def copies_that_turn_rows_into_columns(device: Device) -> None:
    """Tiles with edges that no tile divides, more axes before, between and behind, offsets, and parts of a result."""
    turns: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((33, 70), (1, 0)),
        ((8, 8), (1, 0)),
        ((3, 9, 65), (0, 2, 1)),
        ((3, 40, 9), (2, 1, 0)),
        ((2, 9, 3, 33), (3, 0, 2, 1)),
        ((2, 34, 3, 11), (0, 3, 2, 1)),
    )
    with hardware(device):
        for (shape, order), dtype in combinations(device, turns, (np.float32, np.int32)):
            a = numbers(*shape).astype(dtype)
            (x,) = on(device, a)
            for tensor, array in ((x, a), (x[..., 1:], a[..., 1:]), (x[1:], a[1:])):
                turned, wanted = tc.permute_dims(tensor, order), array.transpose(order)
                np.testing.assert_array_equal(await tc.reshape(turned, (-1,)).read(), wanted.reshape(-1))
                both = tc.concat([turned, turned], axis=-1)
                np.testing.assert_array_equal(await both.read(), np.concatenate([wanted, wanted], -1))


for _name in (*cases_of(*FAMILIES, kind="webgpu"), *ALSO):
    if _name in LEFT_OUT:
        continue
    globals()[_name.replace(".", "_")] = _ashardware(_name)
# On a software adapter only one of those that differ in numbers.
_ONE_OF_A_KIND = {(tile.shader, tile.slices > 1): number for number, tile in enumerate(matmul.HARDWARE)}.values()
for _number, _tile in enumerate(matmul.HARDWARE):
    globals()[f"tile_{_number}"] = _in_tiles(_tile, _number)
