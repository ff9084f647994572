"""Work of lowered WebNN graphs: windows and filters over n elements compute n log n elements in few nodes."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tensorcommons as tc
from scripts.paths import ROOT
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.device import Device
from tensorcommons.backends.webnn.builder import GraphBuilder
from tensorcommons.backends.webnn.lowering import REFUSED, RULES
from tensorcommons.backends.webnn.lowering.context import LoweringContext
from tensorcommons.bridge.runtime import at_once
from tensorcommons.graph.computation import make_computation
from tensorcommons.graph.graph import Graph

LIMITS = json.loads((ROOT / "tests" / "goldens" / "webnn_limits.json").read_text("utf-8"))
F = tc.nn.functional

CALLS = {
    "average": lambda x, n: F.avg_pool2d(x, (1, n // 2), stride=1),
    "largest": lambda x, n: F.max_pool2d(x, (1, n // 2), stride=1, padding=(0, n // 5)),
    "dilated": lambda x, n: F.max_pool2d(x, (1, n // 3), stride=1, dilation=(1, 2)),
    "adaptive": lambda x, n: F.adaptive_avg_pool2d(x, (1, n // 3)),
    "shrunk to few": lambda x, n: F.interpolate(x, size=(1, 8), mode="bilinear", antialias=True),
    "shrunk to many": lambda x, n: F.interpolate(x, size=(1, n // 2), mode="bicubic", antialias=True),
    "enlarged": lambda x, n: F.interpolate(x, size=(1, 2 * n), mode="bilinear"),
}


def lowered(result: tc.Tensor) -> tuple[int, int]:
    """Return the number of nodes of the builder, and of elements in all of its values."""
    computation = make_computation(Graph([result.node])).plan
    builder = GraphBuilder(LIMITS, wide_halves=True)
    lowering = LoweringContext(computation, builder, RULES, REFUSED)
    for number in computation.outputs:
        at_once(lowering.lower(number))
    return len(builder.nodes), sum(int(np.prod(shape)) for _, shape in builder.kinds)


@pytest.mark.parametrize("name", CALLS)
def test_the_work_grows_with_the_window(name):
    device = Device(CpuBackend())
    found = {}
    for n in (4_000, 64_000):
        x = tc.asarray(np.zeros((1, 1, 1, n), np.float32), device=device)
        found[n] = lowered(CALLS[name](x, n))
        nodes, elements = found[n]
        assert nodes < 160 and elements < 200 * n, f"{nodes} nodes, {elements:,} elements for {n:,}"
    device.close()
    assert found[64_000][1] < 32 * found[4_000][1]  # 16 times, and a logarithm
