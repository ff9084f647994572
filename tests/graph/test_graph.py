"""Identity and merging: what is the same is computed once; what differs anywhere below is not."""

from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Spec
from tensorcommons.backends.device import Device
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node
from tensorcommons.graph.plan import make_plan
from tensorcommons.sharing.storage import Storage, content_identity


def weight(device: Device, array: np.ndarray[Any, Any], *, copy_of: str | None = None) -> tc.Tensor:
    """A tensor with a content identity, as a loaded weight has."""
    data = memoryview(array.astype(np.float32).reshape(-1).view(np.uint8))
    identity = copy_of or content_identity(data, array.shape, tc.dtypes.float32)
    return tc.Tensor.of_storage(Storage.upload(device, data, "weights", identity), Spec(array.shape, tc.dtypes.float32))


def leaf(name: str, *shape: int) -> tc.Tensor:
    return tc.Tensor(Node(None, {}, (), Spec(shape, tc.dtypes.float32), name=name), None)


@pytest.fixture
def matrix() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)


def test_two_models_with_equal_weights_are_one_computation(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    x = leaf("x", 2, 8)
    first, second = weight(cpu, matrix), weight(cpu, matrix)  # two storages, one content
    graph = Graph([tc.relu(tc.linear(x, first)).node, tc.gelu(tc.linear(leaf("x", 2, 8), second)).node])
    assert graph.traced == 4 and graph.executed == 3


@pytest.mark.parametrize("change", ["weight", "input", "shape", "attribute"])
def test_what_differs_anywhere_below_is_not_merged(cpu: Device, matrix: np.ndarray[Any, Any], change: str) -> None:
    w, other = weight(cpu, matrix), weight(cpu, matrix + (change == "weight"))
    x = leaf("x", 2, 8)
    y = leaf("y" if change == "input" else "x", 3 if change == "shape" else 2, 8)
    axis = 0 if change == "attribute" else 1
    graph = Graph([tc.sum(tc.linear(x, w), axis=1).node, tc.sum(tc.linear(y, other), axis=axis).node])
    assert graph.executed == (3 if change == "attribute" else 4)


def test_the_same_bytes_in_another_shape_are_another_weight(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    data = memoryview(matrix.reshape(-1).view(np.uint8))
    assert content_identity(data, (8, 8), tc.dtypes.float32) != content_identity(data, (4, 16), tc.dtypes.float32)
    assert content_identity(data, (8, 8), tc.dtypes.float32) != content_identity(data, (8, 8), tc.dtypes.int32)


def test_a_deep_graph_needs_no_deep_stack(cpu: Device) -> None:
    x = leaf("x", 2)
    y = x
    for _ in range(5000):
        y = tc.negative(y)
    assert Graph([y.node]).executed == 5000


def steps(tensor: tc.Tensor, device: Device) -> list[str]:
    return [step.op.name for step in make_plan(fuse(Graph([tensor.node])), device.backend).plan.steps]


def test_an_activation_becomes_the_epilogue_of_its_product(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w = weight(cpu, matrix)
    assert steps(tc.gelu(tc.linear(leaf("x", 2, 8), w)), cpu) == ["linear"]


def test_a_product_that_somebody_else_needs_is_not_swallowed(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    y = tc.linear(leaf("x", 2, 8), weight(cpu, matrix))
    assert steps(tc.relu(y) + y, cpu) == ["linear", "relu", "add"]


def test_a_residual_becomes_the_epilogue_of_its_product(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x, r = weight(cpu, matrix), leaf("x", 2, 8), leaf("r", 2, 8)
    assert steps(r + tc.linear(x, w), cpu) == ["linear"]
    assert steps(tc.relu(tc.linear(x, w)) + r, cpu) == ["linear"]
    assert steps(tc.relu(tc.linear(x, w) + r), cpu) == ["linear", "relu"]  # not the activation of the product alone
    assert steps(tc.linear(x, w) + w[0], cpu) == ["linear", "add"]  # it broadcasts: not the same shape
    y = tc.linear(x, w)
    assert steps(y + y, cpu) == ["linear", "add"]


def test_a_residual_goes_into_its_layer_norm(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    one, x, y = weight(cpu, matrix[0]), leaf("x", 2, 8), leaf("y", 2, 8)
    assert steps(tc.layer_norm(x + y, one, one), cpu) == ["layer_norm"]
    assert steps(tc.layer_norm(x + one, one, one), cpu) == ["add", "layer_norm"]  # it broadcasts: not the same shape
    total = x + y
    assert steps(tc.layer_norm(total, one, one) + total, cpu) == ["add", "layer_norm", "add"]


def test_views_cost_no_step_and_an_impossible_view_costs_one_copy(cpu: Device) -> None:
    x = leaf("x", 4, 6)
    assert steps(tc.relu(tc.reshape(tc.permute_dims(tc.reshape(x, (4, 2, 3)), (1, 0, 2)), (2, 4, 3))), cpu) == ["relu"]
    assert steps(tc.relu(tc.reshape(tc.permute_dims(x, (1, 0)), (24,))), cpu) == ["copy", "relu"]


def test_merging_heads_after_attention_moves_nothing(cpu: Device) -> None:
    q = leaf("q", 2, 3, 5, 4)
    merged = tc.reshape(tc.permute_dims(tc.scaled_dot_product_attention(q, q, q), (0, 2, 1, 3)), (2, 5, 12))
    assert steps(tc.relu(merged), cpu) == ["scaled_dot_product_attention", "relu"]
