"""Costs of ops: operations and bytes of known shapes, before and after fusion."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Tensor
from tensorcommons.graph.elementwise_fusion import chain_elementwise
from tensorcommons.graph.embedding_norm import fuse_embedding_norms
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.node import Node


def _costs(node: Node) -> tuple[int, int]:
    assert node.op is not None
    specs = [child.spec for child in node.inputs]
    given = specs, node.spec, node.attrs
    return node.op.flops(*given), node.op.bytes_moved(*given)


def _ones(*shape: int, dtype: Any = np.float32) -> Tensor:
    return tc.asarray(np.ones(shape, dtype))


def test_costs_of_products() -> None:
    assert _costs((_ones(5, 7) @ _ones(7, 3)).node) == (2 * 5 * 7 * 3, 4 * (35 + 21 + 15))
    assert _costs(tc.linear(_ones(5, 7), _ones(3, 7), _ones(3)).node) == (2 * 5 * 7 * 3 + 15, 4 * (35 + 21 + 3 + 15))
    q, k, v = (_ones(1, 2, rows, 8) for rows in (4, 6, 6))
    flops, nbytes = _costs(tc.scaled_dot_product_attention(q, k, v).node)
    assert (flops, nbytes) == (2 * 2 * 4 * 6 * 16 + 5 * 2 * 4 * 6 + 2 * 4 * 8, 4 * 2 * 8 * (4 + 6 + 6 + 4))


def test_costs_of_norms_and_reductions() -> None:
    assert _costs(tc.layer_norm(_ones(5, 8), _ones(8), _ones(8)).node) == (7 * 40, 4 * (40 + 8 + 8 + 40))
    assert _costs(tc.rms_norm(_ones(5, 8), _ones(8)).node) == (4 * 40, 4 * (40 + 8 + 40))
    assert _costs(tc.sum(_ones(5, 8), axis=1).node) == (40, 4 * (40 + 5))


def test_a_lookup_moves_only_the_rows_that_it_reads() -> None:
    taken = tc.take_along_axis(_ones(1000, 4), tc.asarray(np.zeros((2, 4), np.int32)), axis=0)
    assert _costs(taken.node) == (0, 2 * 8 * 4 + 8 * 4)


def test_views_cost_nothing_and_a_chain_costs_the_sum_of_its_ops() -> None:
    x = _ones(4, 6)
    assert _costs(tc.reshape(x, (24,)).node) == (0, 0)
    y = tc.exp(x * 2.0 + 1.0)
    (chain,) = chain_elementwise(Graph([y.node])).outputs
    assert chain.op is not None and chain.op.name == "chain"
    assert _costs(chain) == (3 * 24, 2 * 24 * 4)


def test_costs_of_a_sum_of_embeddings_with_its_norm() -> None:
    table, ids = _ones(1000, 8), tc.asarray(np.zeros(5, np.int32))
    y = tc.layer_norm(tc.nn.functional.embedding(ids, table) + _ones(5, 8), _ones(8), _ones(8))
    device = y.device
    assert device is not None
    (norm,) = fuse_embedding_norms(Graph([y.node]), device.backend).outputs
    assert norm.op is not None and norm.op.name == "sum_norm"
    read = 3 * 5 * 8 + 2 * 8  # rows of the table, an id per element, the other term; weight and bias
    assert _costs(norm) == ((7 + 1) * 5 * 8, 4 * (read + 5 * 8))
