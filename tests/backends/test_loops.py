"""Loop iterations on software adapters: fewer than 65,536 per invocation for every operand that fits in a buffer.

Mesa's llvmpipe silently ends loops after 65,535 iterations. tests/cases/loops.py compares the iterations that kernels
declare with those that run. These tests compute the declared iterations of the longest rows, depths and windows in a
binding of 128 MiB, llvmpipe's limit, with its 1,024 invocations per workgroup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tensorcommons as tc
from tensorcommons import Device, dtypes
from tensorcommons.backends.base import Plan, Spec
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.webgpu.kernels import KERNELS, Adapter
from tensorcommons.backends.webgpu.kernels.common import LOOPS
from tensorcommons.backends.webgpu.shader import compose
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node
from tensorcommons.graph.passes import planned
from tensorcommons.nn import functional

MOST = 2**25  # float32 in 128 MiB
LLVMPIPE = Adapter(True, frozenset(), (0, 0), frozenset(), 1024, 32768, LOOPS)


class Planning(CpuBackend):
    """WebGPU backend that plans dispatches and runs none."""

    kind = "webgpu"

    def accepts_layout(self, op, position, layout):
        return op.name in KERNELS and KERNELS[op.name].accepts(position, layout)


def loops_of(call: Callable[..., Any], *shapes: Any) -> tuple[int, int]:
    """Return the most iterations of one invocation of ``call`` with these operands, and the dispatches."""
    device = Device(Planning())
    given = []
    for number, shape in enumerate(shapes):
        sizes, dtype = (shape[:-1], shape[-1]) if shape and isinstance(shape[-1], str) else (shape, "float32")
        node = Node(None, {}, (), Spec(sizes, dtypes.as_dtype(dtype)), name=f"x{number}", is_stored=True)
        given.append(tc.Tensor.symbolic(node, device))
    made = call(*given)
    outputs = made if isinstance(made, tuple) else (made,)
    plan = planned(device, fuse(Graph([each.node for each in outputs]), device.backend)).plan
    assert isinstance(plan, Plan)
    dispatches = [each for step in plan.steps for each in KERNELS[step.op.name].lower(step, LLVMPIPE)]
    for shader, dispatch in {each.shader: each for each in dispatches}.items():
        assert "$" not in compose(dispatch)[0], shader
    return max(each.loops for each in dispatches), len(dispatches)


LARGE: dict[str, tuple[Any, ...]] = {
    "sum": (tc.sum, (MOST,)),
    "sum of rows of 65,535": (lambda x: tc.sum(x, axis=1), (512, 65535)),
    "sum of 1,023 rows": (lambda x: tc.sum(x, axis=1), (1023, 32797)),
    "sum of 1,024 rows": (lambda x: tc.sum(x, axis=0), (32768, 1024)),
    "sum over axes that do not merge": (lambda x: tc.sum(x, axis=(0, 2)), (4096, 3, 2700)),
    "var": (tc.var, (MOST,)),
    "mean of halves": (tc.mean, (2 * MOST, "float16")),
    "prod": (tc.prod, (MOST,)),
    "max": (tc.max, (MOST - 1,)),
    "argmax": (tc.argmax, (MOST,)),
    "argmin": (lambda x: tc.argmin(x, axis=0), (MOST // 3, 3)),
    "logsumexp": (lambda x: tc.logsumexp(x, axis=0), (MOST,)),
    "any": (tc.any, (4 * MOST, "bool")),
    "count_nonzero": (tc.count_nonzero, (MOST,)),
    "cumulative_sum": (tc.cumulative_sum, (MOST,)),
    "cumulative_prod": (tc.cumulative_prod, (MOST // 16,)),
    "cumulative_sum of rows": (lambda x: tc.cumulative_sum(x, axis=1), (1024, 32768)),
    "cumulative_sum of rows of 65,535": (lambda x: tc.cumulative_sum(x, axis=1), (512, 65535)),
    "softmax of a vocabulary": (lambda x: functional.softmax(x, dim=-1), (4, 30522)),
    "softmax": (lambda x: functional.softmax(x, dim=-1), (1, MOST)),
    "softmax of odd rows": (lambda x: functional.softmax(x, dim=-1), (1, MOST // 4 - 1)),
    "log_softmax": (lambda x: functional.log_softmax(x, dim=-1), (1, MOST)),
    "layer_norm": (lambda x, w: functional.layer_norm(x, w.shape, w, w), (1, MOST), (MOST,)),
    "layer_norm of 21,845": (lambda x, w: functional.layer_norm(x, w.shape, w, w), (7, 21845), (21845,)),
    "rms_norm": (lambda x, w: functional.rms_norm(x, w.shape, w), (1, MOST), (MOST,)),
    "matmul": (tc.matmul, (1, MOST), (MOST, 1)),
    "matmul turned": (lambda a, b: tc.matmul(a.mT, b), (MOST // 2, 2), (MOST // 2, 2)),
    "matmul of 30,000": (tc.matmul, (3, 30001), (30001, 5)),
    "linear": (functional.linear, (2, MOST // 2), (2, MOST // 2)),
    "linear of a row": (functional.linear, (1, MOST), (1, MOST)),
    "dot": (tc.dot, (MOST,), (MOST,)),
    "attention": (functional.scaled_dot_product_attention, (1, 2, 64, 64), (1, 2, 31_000, 64), (1, 2, 31_000, 64)),
    "conv2d of a large kernel": (functional.conv2d, (1, 1, 5000, 5000), (1, 1, 4999, 4999)),
    "conv2d of many channels": (functional.conv2d, (1, 500_000, 4, 4), (2, 500_000, 3, 3)),
    "conv1d of a long kernel": (functional.conv1d, (1, 1, MOST), (2, 1, MOST // 2)),
    "conv2d in many windows": (functional.conv2d, (1, 2, 300, 300), (64, 2, 299, 299)),
    "avg_pool2d": (lambda x: functional.avg_pool2d(x, 5000), (1, 1, 5700, 5700)),
    "avg_pool2d of halves": (lambda x: functional.avg_pool2d(x, (1, MOST)), (1, 1, 1, 2 * MOST, "float16")),
    "adaptive_avg_pool2d": (lambda x: functional.adaptive_avg_pool2d(x, 1), (1, 8, 2000, 2000)),
    "max_pool2d": (lambda x: functional.max_pool2d(x, 257), (1, 3, 514, 514)),
    "sort": (tc.sort, (MOST,)),
    "topk": (lambda x: tc.topk(x, 128), (MOST,)),
    "scatter": (lambda x, i, u: tc.scatter(x, i, u, axis=0, reduction="add"), (9,), (MOST, "int32"), (MOST,)),
    "take": (lambda x, i: tc.take(x, i, axis=0), (1000, 32), (100_000, "int32")),
    "embedding": (functional.embedding, (100_000, "int32"), (30_000, 64)),
    "power": (lambda x: x**31, (1000, "int32")),
}


@pytest.mark.parametrize("name", LARGE)
def test_no_invocation_exceeds_the_iterations_of_llvmpipe(name):
    call, *shapes = LARGE[name]
    loops, dispatches = loops_of(call, *shapes)
    assert loops <= LOOPS, f"{loops:,} iterations"
    assert dispatches < 3000


def test_common_sizes_are_computed_as_on_other_software_adapters():
    """Kernels with workgroup memory and barriers are chosen only where necessary: they are slow without a GPU."""
    for call, shapes, kernel in (
        (lambda x: functional.softmax(x, dim=-1), [(128, 4096)], "barrier"),
        (lambda x, w: functional.layer_norm(x, w.shape, w, w), [(128, 1024), (1024,)], "barrier"),
        (tc.matmul, [(128, 4096), (4096, 1024)], "barrier"),
        (lambda x: tc.sum(x, axis=1), [(128, 8192)], "barrier"),
        (functional.scaled_dot_product_attention, [(1, 12, 128, 64)] * 3, "barrier"),
    ):
        device = Device(Planning())
        nodes = [
            Node(None, {}, (), Spec(shape, dtypes.float32), name=f"x{i}", is_stored=True)
            for i, shape in enumerate(shapes)
        ]
        operands: list[Any] = [tc.Tensor.symbolic(node, device) for node in nodes]
        made = call(*operands)
        plan = planned(device, fuse(Graph([made.node]), device.backend)).plan
        assert isinstance(plan, Plan)
        for step in plan.steps:
            for dispatch in KERNELS[step.op.name].lower(step, LLVMPIPE):
                assert kernel not in compose(dispatch)[0].lower().split("fn main")[1], dispatch.shader
