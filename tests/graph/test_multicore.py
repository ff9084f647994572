"""Splitting of computations over cores, which does not change the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.backends.base import Computation
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.webnn import multicore
from tensorcommons.graph.computation import make_computation
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.nn.functional import scaled_dot_product_attention
from tensorcommons.tensor import Tensor
from tests.cases.support import numbers
from tests.graph.graph_device import Array, evaluated


@pytest.fixture(autouse=True)
def everything_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicore, "WORK", 0)
    monkeypatch.setattr(multicore, "ROWS", 4)


def block(x: Tensor, weight: Tensor, heads: int = 2) -> Tensor:
    """Build a transformer layer with every kind of op that a split handles."""
    batch, tokens, size = x.shape

    def by_heads(y: Tensor) -> Tensor:
        return tc.permute_dims(tc.reshape(y, (batch, tokens, heads, size // heads)), (0, 2, 1, 3))

    q, k, v = (by_heads(tc.linear(x, weight)) for _ in range(3))
    mixed = scaled_dot_product_attention(q, tc.tanh(k), v)
    joined = tc.reshape(tc.permute_dims(mixed, (0, 2, 1, 3)), (batch, tokens, size))
    x = tc.layer_norm(tc.linear(joined, weight) + x, weight[0], weight[1])
    return tc.layer_norm(tc.gelu(tc.linear(x, weight)) + x, weight[0], weight[1])


def computation_of(outputs: list[Tensor]) -> tuple[Computation, list[Array]]:
    graph = fuse(Graph([tensor.node for tensor in outputs]))
    backend: Any = outputs[0].device.backend if outputs[0].device else None
    leaves = [backend.arrays[leaf.storage.handle] for leaf in graph.leaves if leaf.storage is not None]
    return make_computation(graph).plan, leaves


def run(stages: list[multicore.Stage], whole: Computation, leaves: list[Array]) -> list[Array]:
    """Compute the stages in order, as the backend dispatches them."""
    slots = {(n, multicore.WHOLE): leaves[value.index] for n, value in enumerate(whole.values) if value.op is None}
    for stage in stages:
        given = [np.ascontiguousarray(slots[slot]).reshape(-1).view(np.uint8) for slot in stage.needs]
        slots.update(zip(stage.gives, evaluated(stage.computation, given, memoryview(b"")), strict=True))
    return [slots[number, multicore.WHOLE] for number in whole.outputs]


def two_layers(x: Tensor, weight: Tensor) -> list[Tensor]:
    y = block(block(x, weight), weight)
    return [y, tc.mean(y, axis=1), tc.softmax(y[:, 0]), tc.sum(y, axis=-1)]


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((4, 6, 8), {0, 1}), ((1, 6, 8), {0, 1, 2, 3, 4}), ((1, 7, 8), {0, 1, 2, 3, 4}), ((3, 6, 8), None)],
    ids=["texts", "tokens", "odd tokens", "texts that are no two halves"],
)
@pytest.mark.parametrize("count", [2, 3])
def test_parts_compute_what_the_whole_computes(shape: tuple[int, ...], levels: set[int] | None, count: int) -> None:
    check(two_layers, shape, count, levels if count == 2 else None)


def test_the_tokens_of_one_text_are_exchanged_once_per_layer() -> None:
    stages = check(lambda x, weight: [block(block(x, weight), weight)], (1, 8, 8), 2, None)
    assert [(stage.level, stage.part) for stage in stages] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, -1)]


def test_separate_texts_exchange_nothing() -> None:
    stages = check(lambda x, weight: [block(block(x, weight), weight)], (2, 4, 8), 2, None)
    assert [(stage.level, stage.part) for stage in stages] == [(0, 0), (0, 1), (1, -1)]


def test_a_small_computation_stays_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multicore, "WORK", 1e9)
    assert len(check(two_layers, (4, 6, 8), 2, None)) == 1


def check(
    function: Callable[[Tensor, Tensor], list[Tensor]], shape: tuple[int, ...], count: int, levels: set[int] | None
) -> list[multicore.Stage]:
    device = Device(CpuBackend())
    x, weight = (tc.asarray(a, device=device) for a in (numbers(*shape), numbers(8, 8, seed=1)))
    computation, leaves = computation_of(function(x, weight))
    stages = multicore.stages_of(computation, count)
    assert levels is None or {stage.level for stage in stages} >= levels, [stage.level for stage in stages]
    for got, wanted in zip(
        run(stages, computation, leaves), evaluated(computation, leaves, memoryview(b"")), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    return stages


async def test_a_deep_computation_is_split_without_recursion() -> None:
    devices = await tc.open_devices(prefer=["cpu"])
    x, weight = (tc.asarray(numbers(*shape), device=devices.opened[0]) for shape in ((2, 8, 4), (4, 4)))
    y = x
    for _ in range(2000):  # a batch of two: one stage of two graphs, each as deep as the whole
        y = tc.tanh(tc.linear(y, weight))
    whole, leaves = computation_of([y])
    stages = multicore.stages_of(whole, 2)
    assert len(stages) == 3 and max(len(stage.computation.values) for stage in stages) > 2000
    np.testing.assert_array_equal(run(stages, whole, leaves)[0], run(multicore.whole(whole), whole, leaves)[0])
    devices.close()
