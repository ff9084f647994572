"""Products of one row with quantised weights, which a GPU computes at the speed of reading them, and float16 beside.

Each product is the input of the next: the RMS norm of the first numbers of a result is the next row of x, and computed
in the same dispatch, as in a decoder. Weights alternate, so that they come from memory and not from a cache. Figures
are bytes of weights a second; the floor of a row is the time in which the device copies them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

import tensorcommons as tc
from bench.workloads import Work
from tensorcommons.formats import BLOCKS
from tensorcommons.formats.int8_blocks import int8_blocks
from tensorcommons.ops.quantized import quantized_linear

Array: TypeAlias = np.ndarray[Any, Any]
EPS = 1e-6
DENSE = "float16"
FORMATS = (DENSE, "q8_0", "q4_0", "q4_1", "q6_k", "q4_k")
MINIMA = {"q4_1": -7.5, "q4_k": 7.5}  # scales of minima by those of quants, from 0 to 15: one is added, one subtracted
CACHED = 200 << 20  # bytes of weights that no cache holds
SIZES = {  # (columns, depth), and products of a sample
    "gpu": (((14336, 4096), 256), ((128256, 2048), 64), ((4096, 4096), 512)),
    "software": (((768, 512), 4),),
    "tiny": (((288, 256), 2),),
}


def products(size: str) -> Iterator[Work]:
    """Build the rows; ``size`` is one of SIZES."""
    for shape, steps in SIZES[size]:
        for name in FORMATS:
            for precision in ("exact",) if name == DENSE else ("fast", "exact"):
                yield _product(name, precision, shape, steps, CACHED if size == "gpu" else 0)


def _product(name: str, precision: str, shape: tuple[int, int], steps: int, cached: int) -> Work:
    columns, depth = shape
    nbytes = 2 * columns * depth if name == DENSE else BLOCKS[name].spec(shape).nbytes
    weights = [_weight(name, shape, seed) for seed in range(cached // nbytes + 1)]
    x = np.random.default_rng(0).standard_normal((1, depth), np.float32)
    shown = DENSE if name == DENSE else f"{name}, {precision}"

    def exact() -> Array:
        dense = [_dense(name, weight, shape) for weight in weights]
        row = x
        for step in range(steps):
            normed = (row / np.sqrt((np.float64(row) ** 2).mean() + EPS)).astype(np.float32)
            given = int8_blocks(normed) if precision == "fast" else normed
            row = (given.astype(np.float64) @ dense[step % len(dense)].T).astype(np.float32)
        return row

    return Work(
        *("quantized", f"1 × {depth} by {columns} × {depth}, {shown}", "products"),
        {"steps": steps, "format": name, "shape": shape, "precision": precision},
        {"x": x, "ones": np.ones(depth, np.float32), **{f"w{i}": weight for i, weight in enumerate(weights)}},
        None,
        ("x",),
        steps,
        float(nbytes * steps),
        "byte",
        exact=exact,
        has_peers=False,
        nbytes=float(nbytes * steps),
    )


def _weight(name: str, shape: tuple[int, int], seed: int) -> Array:
    """Return a weight of random numbers, or the storage of random blocks."""
    rng = np.random.default_rng(seed)
    if name == DENSE:
        return rng.standard_normal(shape, np.float32).astype(np.float16)
    form = BLOCKS[name]
    blocks = rng.integers(0, 256, (form.blocks(shape), form.nbytes), np.uint8)
    for at, length in form.fields:
        if length == 2:  # scales, and after them minima that make the mean 0
            scale = MINIMA.get(name, 1) if at and (at, length) == form.fields[-1] else 1
            blocks[:, at : at + 2] = np.frombuffer(np.float16(scale / 64).tobytes(), np.uint8)
    return np.frombuffer(form.pack(blocks.tobytes()), np.int8)


def _dense(name: str, weight: Array, shape: tuple[int, int]) -> Array:
    """Return the rows of a weight whose products are in the next x, as float64."""
    rows = slice(0, shape[1])
    dense: Array = weight[rows] if name == DENSE else BLOCKS[name].dense(weight, shape, rows)
    return dense.astype(np.float64)


def chain(params: Mapping[str, Any], given: Mapping[str, tc.Tensor]) -> tc.Tensor:
    """Compute the products on a device."""
    row, weights = given["x"], [given[name] for name in sorted(given.keys() - {"x", "ones"})]
    columns, depth = params["shape"]
    for step in range(params["steps"]):
        weight, normed = weights[step % len(weights)], tc.rms_norm(row, given["ones"], eps=EPS)
        if params["format"] == DENSE:
            row = tc.linear(normed, weight)
        else:
            row = quantized_linear(
                normed, weight, block_format=params["format"], shape=(columns, depth), precision=params["precision"]
            )
        row = row[:, :depth]
    return row
