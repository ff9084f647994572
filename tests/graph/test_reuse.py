"""Reuse points: where graphs diverge, the identity of a point, and the rest of a graph after one is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.device import Device
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.reuse import needed, remainder_of, reuse_points
from tests.graph.test_graph import leaf, weight


@pytest.fixture
def matrix() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)


def graph_of(*tensors: tc.Tensor) -> Graph:
    return fuse(Graph([tensor.node for tensor in tensors]))


def test_reuse_points_are_outputs_and_where_graphs_diverge(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x = weight(cpu, matrix), leaf("x", 2, 8)
    hidden = tc.gelu(tc.linear(x, w))
    one, other = graph_of(tc.sum(hidden, axis=1)), graph_of(tc.max(hidden, axis=1))
    cuts = reuse_points(one, [other])
    assert [cut.node.op.name for cut in cuts if cut.node.op] == ["sum", "linear"], "the gelu is fused into the product"
    assert all(cut.weights == (w.node.storage,) and cut.arguments == ("x",) for cut in cuts)
    assert [cut.node.op.name for cut in reuse_points(one, []) if cut.node.op] == ["sum"]
    back = reuse_points(other, [one])
    assert cuts[1].identity == back[1].identity != back[0].identity


def test_an_output_of_the_other_graph_is_a_reuse_point(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x = weight(cpu, matrix), leaf("x", 2, 8)
    hidden = tc.linear(x, w)
    (_, cut) = reuse_points(graph_of(tc.sum(hidden)), [graph_of(hidden)])
    assert cut.node.op is not None and cut.node.op.name == "linear"


def test_a_value_without_weights_is_not_a_reuse_point(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x = weight(cpu, matrix), leaf("x", 2, 8)
    mask = tc.exp(x) + x
    cuts = reuse_points(graph_of(tc.linear(mask, w)), [graph_of(tc.sum(mask), tc.max(mask))])
    assert [cut.node.op.name for cut in cuts if cut.node.op] == ["linear"]


def test_values_of_unidentified_bytes_are_not_reuse_points(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, unknown = weight(cpu, matrix), tc.asarray(np.ones((40, 40), np.float32), device=cpu)
    assert reuse_points(graph_of(tc.sum(tc.linear(unknown[:2, :8], w))), []) == []


def test_the_identity_of_a_reuse_point_does_not_depend_on_names(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    def cut(x: str, y: str, array: np.ndarray[Any, Any] = matrix) -> Any:
        w = weight(cpu, array)
        (found,) = reuse_points(graph_of(tc.linear(leaf(x, 2, 8), w) * leaf(y, 2, 8)), [])
        return found

    assert cut("a", "b").identity == cut("c", "d").identity == cut("b", "a").identity
    assert cut("a", "b").arguments == ("a", "b") and cut("b", "a").arguments == ("b", "a")
    one, two = {"a": b"1", "b": b"2", "c": b"1", "d": b"2"}, {"a": b"2", "b": b"1"}
    assert cut("a", "b").key(one) == cut("c", "d").key(one) == cut("b", "a").key(two)
    assert cut("a", "b").key(one) != cut("a", "b").key(two)
    assert cut("a", "a").identity != cut("a", "b").identity, "one input twice must differ from two inputs"
    assert cut("a", "b", matrix + 1).identity != cut("a", "b").identity


def test_the_remaining_graph_is_part_of_the_whole(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x = weight(cpu, matrix), leaf("x", 2, 8)
    hidden = tc.relu(tc.linear(x, w))
    whole = graph_of(tc.sum(tc.exp(hidden) + hidden, axis=1), hidden)
    total, cut = reuse_points(whole, [])
    nothing = remainder_of(whole, [total, cut], [], keep=True)
    assert nothing.missing == (0, 1) and not nothing.taken and not nothing.kept
    assert [n.key for n in nothing.graph.nodes] == [n.key for n in whole.nodes]
    rest = remainder_of(whole, [total, cut], [cut], keep=True)
    assert rest.missing == (0,) and list(rest.taken.values()) == [cut]
    names = [node.op.name for node in whole.nodes if node.op]
    left = [node.op.name for node in rest.graph.nodes if node.op]
    assert left == [name for name in names if name != "linear"] and len(left) == len(names) - 1
    assert [node.name for node in rest.graph.leaves] == list(rest.taken)
    assert remainder_of(whole, [total, cut], [total, cut], keep=True).missing == ()
    assert needed(whole, [cut.node]) == len(left) and needed(whole, [total.node, cut.node]) == 0


def test_reuse_points_that_are_not_found_become_outputs(cpu: Device, matrix: np.ndarray[Any, Any]) -> None:
    w, x = weight(cpu, matrix), leaf("x", 2, 8)
    hidden = tc.linear(x, w)
    deeper = tc.linear(tc.exp(hidden), w)
    whole = graph_of(tc.sum(deeper))
    cuts = reuse_points(whole, [graph_of(tc.max(hidden)), graph_of(tc.max(deeper))])
    total, *inner = cuts
    assert len(inner) == 2
    by_size = sorted(inner, key=lambda cut: needed(Graph([cut.node]), []))
    assert set(remainder_of(whole, cuts, [], keep=True).kept) == set(inner)
    assert remainder_of(whole, cuts, [], keep=False).kept == ()
    assert remainder_of(whole, cuts, by_size[:1], keep=True).kept == (by_size[1],)
    last = remainder_of(whole, cuts, inner, keep=True)
    assert list(last.taken.values()) == [by_size[1]] and last.kept == (), "nodes below a found point were kept"
    assert remainder_of(whole, cuts, [total], keep=True).missing == ()
