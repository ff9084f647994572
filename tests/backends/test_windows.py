"""Windows over values: aligned, within a buffer and a binding, without gaps; values that cannot be bound are named."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tensorcommons import dtypes
from tensorcommons.backends.base import Operand, Place, Spec, Step
from tensorcommons.backends.webgpu.backend import WebGPUBackend
from tensorcommons.backends.webgpu.cutting import TooLarge, lowered
from tensorcommons.backends.webgpu.kernels import KERNELS, Adapter
from tensorcommons.backends.webgpu.windows import Windows, narrowed
from tensorcommons.formats import BLOCKS
from tensorcommons.graph.arena import Life, pack
from tensorcommons.ops.quantized import QUANTIZED_ROWS
from tensorcommons.shapes import Layout

LIMITS = {"maxBufferSize": 2**28, "maxStorageBufferBindingSize": 2**27, "maxStorageBuffersPerShaderStage": 8}


@pytest.mark.parametrize("place", [(0, 1), (256, 5000), (300, 1024), (3840, 700), (0, 0), (8192, 40_000)])
def test_windows_cover_a_value_within_bindings_and_buffers(place: tuple[int, int]) -> None:
    windows = Windows(1024, 4096, 8)
    found = list(windows.of(Place("leaf", 0, *place)))
    assert found[0][0] <= place[0] < found[0][0] + 256
    assert found[-1][0] + found[-1][1] >= sum(place)
    for offset, nbytes in found:
        assert offset % 256 == 0 and 0 < nbytes <= 1024
        assert offset // 4096 == (offset + nbytes - 1) // 4096
    for (offset, nbytes), (after, _) in pairwise(found):
        assert offset + nbytes == after


def test_operands_of_one_value_share_their_windows() -> None:
    place = Place("arena", 0, 512, 4000)
    x = Operand(place, Layout.contiguous((100, 10)), dtypes.float32)
    first, whole = narrowed([x, x], [(0, 40, 60), (0, 50, 90)])
    assert first.place == whole.place == Place("arena", 0, 512 + 1600, 2000)
    assert first.layout.offset == 0 and whole.layout.offset == 100


def test_each_value_of_the_arena_lies_in_one_buffer() -> None:
    lives = [Life(nbytes, first, first + 2) for first, nbytes in enumerate((700, 400, 1000, 300, 600, 2500, 900))]
    pack(lives, 100, 1024)
    for life in lives:
        assert life.nbytes > 1024 or life.offset // 1024 == (life.offset + life.nbytes - 1) // 1024


def test_a_weight_that_no_step_can_bind_is_named() -> None:
    backend: WebGPUBackend = object.__new__(WebGPUBackend)
    backend.limits = LIMITS
    fits = {"table": Spec((10**6, 1024), dtypes.float32), "bias": Spec((10**8,), dtypes.float32)}
    assert backend.refusal(fits) == ""
    refused = backend.refusal({**fits, "patches": Spec((2**14, 3, 64, 64), dtypes.float32)})
    assert "patches" in refused and "805,306,368" in refused and "671,088,640" in refused


def test_a_weight_of_more_numbers_than_a_shader_counts_is_named() -> None:
    """In blocks of 2 bits 2**31 numbers fit into a binding."""
    backend: WebGPUBackend = object.__new__(WebGPUBackend)
    backend.limits = {**LIMITS, "maxBufferSize": 2**32, "maxStorageBufferBindingSize": 2**32 - 4}
    form = BLOCKS["q2_k"]
    assert backend.refusal({"head": form.spec((2**20, 2**10))}) == ""
    assert "head" in backend.refusal({"head": form.spec((2**21, 2**10))})
    shape = 2**21, 2**10
    words, ids = (
        Operand(Place("leaf", 0, 0, 4), Layout.contiguous((1,)), dtype) for dtype in (dtypes.int8, dtypes.int32)
    )
    row = Operand(Place("output", 0, 0, 2**12), Layout.contiguous((1, 2**10)), dtypes.float32)
    step = Step(QUANTIZED_ROWS, {"block_format": "q2_k", "weight_shape": shape}, (words, ids), row)
    with pytest.raises(TooLarge, match="2,147,483,648"):
        next(lowered(step, KERNELS["quantized_rows"], Adapter(False, frozenset(), (32, 32)), 65_535))
