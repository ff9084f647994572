"""Products of float16 by subgroup matrices: choice of the kernel, and its complete shader."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorcommons import dtypes
from tensorcommons.backends.base import Operand, Place, Step
from tensorcommons.backends.webgpu.kernels import KERNELS, Adapter
from tensorcommons.backends.webgpu.shader import Dispatch, compose
from tensorcommons.ops.matmul import LINEAR, MATMUL
from tensorcommons.shapes import Layout

FEATURES = frozenset({"shader-f16", "subgroups", "chromium-experimental-subgroup-matrix", "buffer_view"})
ABLE = Adapter(False, FEATURES, (32, 32), frozenset({("f16", "f32", 16, 16, 16)}), 1024, 49152)


def operand(*shape, dtype=dtypes.float16, layout=None, index=0):
    return Operand(
        Place("leaf", index, 0, 2 * Layout.contiguous(shape).size), layout or Layout.contiguous(shape), dtype
    )


def product(a, b, adapter=ABLE) -> Dispatch:
    result = operand(a.shape[0], b.shape[1], index=2)
    return KERNELS["matmul"].lower(Step(MATMUL, {}, (a, b), result), adapter)[0]


@pytest.mark.parametrize("turned", [(), (0,), (1,), (0, 1)])
def test_the_shader_is_complete_for_every_order_of_axes(turned):
    operands = []
    for i, (rows, columns) in enumerate([(256, 64), (64, 256)]):
        layout = Layout.contiguous((columns, rows)).permute((1, 0)) if i in turned else None
        operands.append(operand(rows, columns, layout=layout, index=i))
    dispatch = product(*operands)
    code, letters, *_ = compose(dispatch)
    assert dispatch.shader == "matmul/matrices"
    assert dispatch.groups == (4, 4, 1)
    assert "$" not in code
    assert letters == "urrw"
    assert (dispatch.variables["tile_rows"], dispatch.variables["tile_columns"]) == ("64", "64")


def test_large_products_have_large_tiles():
    assert product(operand(2048, 64), operand(64, 2048, index=1)).groups == (16, 16, 1)


def test_an_epilogue_with_one_value_as_every_operand():
    x = operand(64, 64)
    step = Step(LINEAR, {"activation": "gelu", "residual": True}, (x, x, x), operand(64, 64, index=1))
    (dispatch,) = KERNELS["linear"].lower(step, ABLE)
    _, letters, *_ = compose(dispatch)
    assert dispatch.shader == "matmul/matrices"
    assert letters == "urw"


@pytest.mark.parametrize(
    "adapter",
    [
        replace(ABLE, fallback=True),
        replace(ABLE, subgroups=(16, 32)),
        replace(ABLE, matrices=frozenset({("f32", "f32", 8, 8, 8)})),
        replace(ABLE, storage=16384),
        *(replace(ABLE, features=FEATURES - {feature}) for feature in FEATURES),
    ],
)
def test_adapters_without_the_features_use_another_kernel(adapter):
    assert product(operand(256, 64), operand(64, 256, index=1), adapter).shader != "matmul/matrices"


def test_unsuitable_operands_use_another_kernel():
    half, single = operand(256, 64), operand(64, 256, dtype=dtypes.float32, index=1)
    for a, b in (
        (half, single),
        (operand(256, 68), operand(68, 256, index=1)),
        (half, operand(64, 256, layout=Layout((64, 256), (512, 2), 0), index=1)),
        (half, operand(64, 256, layout=Layout((64, 256), (256, 1), 4), index=1)),
        (operand(32, 64), operand(64, 256, index=1)),
    ):
        assert product(a, b).shader != "matmul/matrices"
