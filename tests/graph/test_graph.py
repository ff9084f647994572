"""Identity and merging: equal computations are merged, and those that differ anywhere below are not."""

from functools import reduce
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Spec
from tensorcommons.backends.device import Device
from tensorcommons.graph.elementwise_fusion import INPUTS, chain_elementwise
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node
from tensorcommons.graph.plan import make_plan
from tensorcommons.sharing.provenance import content_identity
from tensorcommons.sharing.storage import Storage


def weight(device: Device, array: np.ndarray[Any, Any], *, copy_of: str | None = None) -> tc.Tensor:
    """Make a tensor with a content identity, like a loaded weight."""
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
def test_computations_that_differ_anywhere_are_not_merged(
    cpu: Device, matrix: np.ndarray[Any, Any], change: str
) -> None:
    w, other = weight(cpu, matrix), weight(cpu, matrix + (change == "weight"))
    x = leaf("x", 2, 8)
    y = leaf("y" if change == "input" else "x", 3 if change == "shape" else 2, 8)
    axis = 0 if change == "attribute" else 1
    graph = Graph([tc.sum(tc.linear(x, w), axis=1).node, tc.sum(tc.linear(y, other), axis=axis).node])
    assert graph.executed == (3 if change == "attribute" else 4)


async def test_results_of_one_formula_in_different_shapes_are_not_merged(cpu: Device) -> None:
    def ones(*shape: int) -> tc.Tensor:
        return tc.ones(shape, device=cpu) * 2  # a chain without operands: only its own shape gives its size

    row = tc.asarray(np.array([0, 1], np.float32), device=cpu)
    assert (await (tc.sum(ones(3)) + tc.sum(ones(5))).read()).item() == 16
    assert (await tc.sum(ones(3, 2) @ ones(2, 4)).read()).item() == 96
    totals = [tc.sum(row + tc.ones((rows, 2), device=cpu)) for rows in (3, 5)]
    assert (await tc.stack(totals).read()).tolist() == [9, 15]
    pair = [ones(3), ones(5)]
    assert [array.shape for array in await tc.read_together(pair)] == [(3,), (5,)]
    assert (await tc.read_together([pair[1]]))[0].shape == (5,)


def test_every_kind_of_attribute_is_part_of_the_identity() -> None:
    x = leaf("x", 3).node
    op = tc.ops.registry.OPS["negative"]
    values: list[Any] = [
        0, 0.0, -0.0, False, None, "", "0", "None", (), (0,), ((0,),), (0, 0), 1, True, 1.0, "a\0b", ("a", "b"),
        ("a, b",), float("nan"), float("inf"), 0.1, np.nextafter(0.1, 1), 2**60, 2**60 + 1, float(2**60),
    ]  # fmt: skip
    nodes = [Node(op, {"value": value}, (x,), x.spec) for value in values]
    nodes += [Node(op, {"value": 0, "other": 0}, (x,), x.spec), Node(op, {"other": 0}, (x,), x.spec)]
    nodes += [Node(op, {"value": 0}, (x,), Spec(shape, dtype)) for shape in ((3,), (1, 3), ()) for dtype in (tc.dtypes.int32, tc.dtypes.float16)]  # fmt: skip # noqa: E501
    half: Any = np.float32(0.5)
    assert len({node.numbered()[0] for node in nodes}) == len(nodes)
    assert len({Graph([node]).structure for node in nodes}) == len(nodes)
    assert Node(op, {"value": half}, (x,), x.spec).key == Node(op, {"value": 0.5}, (x,), x.spec).key
    assert Node(op, {"value": [1, 2]}, (x,), x.spec).key == Node(op, {"value": (1, 2)}, (x,), x.spec).key  # type: ignore[dict-item]
    with pytest.raises(tc.errors.InternalError, match="ndarray"):
        Node(op, {"value": np.zeros(2000)}, (x,), x.spec)  # type: ignore[dict-item]


def test_keys_of_a_deep_graph_over_many_arguments_take_linear_time() -> None:
    """Keys are of a fixed length, however many arguments are below."""
    x = leaf("x", 2)
    for number in range(2000):
        x = x * leaf(f"weight {number}", 2)
    assert len(Graph([x.node]).nodes) == 4001 and len(x.node.key) == 64 and len(x.node.numbered()[1]) == 2001


def test_names_of_inputs_cannot_collide_with_other_keys() -> None:
    names = ["x", "x\0y", "x', is_stored", "", "None", "weight", None]
    leaves = [
        Node(None, {}, (), Spec((2,), tc.dtypes.float32), name=n, is_stored=s) for n in names for s in (False, True)
    ]
    assert len({leaf.key for leaf in leaves}) == len(leaves)
    host = [Graph([tc.tanh(tc.Tensor(leaf, None)).node]).structure for leaf in leaves if not leaf.is_stored]
    assert len(set(host)) == len(host), "an input is identified by its name"
    assert len({Graph([leaf]).structure for leaf in leaves if leaf.is_stored}) == 1, (
        "a leaf is identified by its position"
    )


def test_equal_keys_of_unequal_specs_are_refused() -> None:
    x, y = leaf("x", 3).node, leaf("x", 5).node
    y._key, y._renames = x.key, x._renames  # noqa: SLF001 - two specs with one hash cannot be found
    with pytest.raises(tc.errors.InternalError, match="key"):
        Graph([x, y])


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


def test_a_product_with_another_use_is_not_fused(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
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


def test_a_residual_is_fused_into_its_layer_norm(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
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


@pytest.mark.parametrize("more", [0, 1])
def test_a_chain_has_at_most_as_many_inputs_as_a_kernel(more: int) -> None:
    leaves = [leaf(f"x{number}", 30, 30) for number in range(INPUTS + more)]
    graph = chain_elementwise(Graph([reduce(tc.add, leaves).node]))
    assert sum(node.op is not None for node in graph.nodes) == 1 + more
