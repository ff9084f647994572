"""Tiled products: within the limits of every adapter, with complete shaders, and chosen by size."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from tensorcommons import dtypes
from tensorcommons.backends.base import Operand, Place, Step
from tensorcommons.backends.webgpu.kernels import KERNELS, Adapter, matmul, tiles
from tensorcommons.backends.webgpu.shader import Dispatch, compose
from tensorcommons.graph.horizontal_fusion import LINEARS
from tensorcommons.shapes import Layout

HARDWARE = Adapter(False, frozenset(), (32, 32))
LANES, BYTES = 256, 16384  # per workgroup, on every adapter
TILED = [tile for tile in matmul.HARDWARE if tile.shader == "matmul/tiled"]


def operand(
    *shape: int, layout: Layout | None = None, index: int = 0, kind: Literal["leaf", "output"] = "leaf"
) -> Operand:
    where = layout or Layout.contiguous(shape)
    return Operand(Place(kind, index, 0, 4 * where.size), where, dtypes.float32)


def product(sizes: tuple[int, int, int], turned: str = "") -> matmul.Product:
    rows, depth, columns = sizes
    a = operand(rows, depth, layout=Layout((rows, depth), (1, rows), 0) if "a" in turned else None)
    b = operand(depth, columns, layout=Layout((depth, columns), (1, depth), 0) if "b" in turned else None, index=1)
    return matmul.Product(a, b, None, None, operand(rows, columns, kind="output"), 0, ())


@pytest.mark.parametrize("tile", TILED, ids=str)
@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
@pytest.mark.parametrize("sizes", [(200, 64, 200), (201, 13, 203)])
def test_every_tile_has_a_complete_shader_within_the_minimum_limits(tile, turned, sizes):
    code, *_ = compose(product(sizes, turned).dispatch(tile, HARDWARE))
    assert "$" not in code
    columns = re.search(r"slices: array<array<vec4<f32>, 9>, (\d+)u>", code)
    assert columns is not None and int(columns[1]) * 9 * 16 <= BYTES
    high, wide = tile.blocks
    lanes = tile.rows * tile.columns // (16 * high * wide) * tile.slices
    assert lanes <= LANES
    # The lanes together load each element of the slices once.
    for side in (tile.rows, tile.columns):
        assert side * tiles.DEPTH * tile.slices % (4 * lanes) == 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((4096, 64, 4096), (128, 128, 1)),
        ((1024, 1024, 1024), (64, 128, 1)),
        ((1024, 384, 384), (32, 32, 4)),
        ((128, 384, 384), (16, 32, 8)),
        ((16, 384, 384), (16, 4, 64)),
    ],
)
def test_the_tile_depends_on_the_sizes(sizes, expected):
    tile = product(sizes).tile(HARDWARE)
    assert (tile.rows, tile.columns, tile.slices) == expected


def test_products_of_one_value_share_a_dispatch_with_the_tile_of_each():
    x = operand(128, 384)
    weights = [operand(384, 384, index=i) for i in (1, 2, 3)]
    output = operand(3, 128, 384, kind="output")
    attrs = {"count": 3, "activation": None}
    dispatches: list[Dispatch] = list(KERNELS["linears"].lower(Step(LINEARS, attrs, (x, *weights), output), HARDWARE))
    (dispatch,) = dispatches
    assert dispatch.groups == (12, 8 * 3, 1)
    _, letters, *_ = compose(dispatch)
    assert letters == "urrrrw"
