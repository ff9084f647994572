"""Cuts of a graph into segments, and the values that cross the cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons import Device
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node
from tensorcommons.graph.partition import parts_of
from tensorcommons.graph.segments import Bounds, segments_of
from tests.graph.test_graph import leaf, weight

LAYER = 2 * 16 * 64 * 4  # bytes of one layer's weights


def layers_on(cpu: Device) -> Graph:
    """Build four layers of two products, with widths of 16 and 64."""
    rng, hidden = np.random.default_rng(0), leaf("x", 2, 16)
    for _ in range(4):
        up, down = (weight(cpu, rng.standard_normal(shape).astype(np.float32)) for shape in ((64, 16), (16, 64)))
        hidden = tc.layer_norm(tc.linear(tc.gelu(tc.linear(hidden, up)), down) + hidden, *(tc.ones(16), tc.zeros(16)))
    return fuse(Graph([hidden.node]))


def computed(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.inputs]


def products(segments: Sequence[Sequence[Node]]) -> list[int]:
    return [sum(node.op is not None and node.op.name == "linear" for node in nodes) for nodes in segments]


@pytest.mark.parametrize(
    ("nbytes", "expected"),
    [(4 * LAYER, [8]), (3 * LAYER, [4, 4]), (LAYER, [2, 2, 2, 2]), (LAYER - 1, [1] * 8), (1, [1] * 8)],
)
def test_a_stack_of_layers_is_cut_between_them(cpu: Device, nbytes: int, expected: list[int]) -> None:
    layers = layers_on(cpu)
    segments = segments_of(computed(layers), Bounds(nbytes=nbytes))
    assert products(segments) == expected
    assert [node for segment in segments for node in segment] == computed(layers)


def test_the_device_gives_the_bytes_of_leaves_and_the_maximum_of_nodes(cpu: Device) -> None:
    layers = layers_on(cpu)
    assert products(segments_of(computed(layers), Bounds(nbytes=LAYER, weigh=lambda node: 2 * node.nbytes))) == [1] * 8
    assert all(len(segment) <= 3 for segment in segments_of(computed(layers), Bounds(nodes=3)))
    assert segments_of([], Bounds(1, 1)) == []


def test_layers_of_one_shape_are_one_structure(cpu: Device) -> None:
    parts = parts_of(layers_on(cpu), cpu, cpu, {}, lambda device: Bounds(nbytes=LAYER))
    _, *middle, _ = (part.graph.structure for part in parts)
    assert len(parts) == 4 and len(set(middle)) == 1
    assert all(len(part.made) == 1 for part in parts), "only the hidden state may cross"


def test_a_view_that_would_be_copied_is_made_in_each_segment_that_uses_it(cpu: Device) -> None:
    rng = np.random.default_rng(0)
    one, two = (weight(cpu, rng.standard_normal((4, 4)).astype(np.float32)) for _ in range(2))
    x = tc.linear(leaf("x", 4, 4), one)
    turned = tc.permute_dims(x, (1, 0))
    graph = fuse(Graph([tc.matmul(tc.exp(turned), tc.matmul(turned, two)).node]))
    parts = parts_of(graph, cpu, cpu, {}, lambda device: Bounds(nodes=2))
    numbers = {number for part in parts for number in part.made}
    crossing = [op for number in numbers if (op := graph.nodes[number].op) is not None]
    assert len(parts) > 1 and all(op.view is None for op in crossing)
