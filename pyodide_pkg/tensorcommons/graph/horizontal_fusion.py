"""Horizontal fusion: products of one value by several weights (query, key, value; heads' first layers) as one step.

It pays on devices to which a step costs more than what it computes (``steps_cost``): on hardware a small product takes
less time than its dispatch, and two of three dispatches are saved. No bytes are: the weights keep their storages. Each
part has bit for bit what its product alone gives, so this is a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from ..backends.base import Op
from ..backends.ops import OPS
from ..shapes import size_of
from .arena import ALIGNMENT
from .graph import Graph
from .node import Node
from .plan import PART
from .rewrite import Replacement, rewritten
from .split_k import side_by_side

TOGETHER = 3  # weights with biases, x and the result are the 8 storage buffers that a shader stage has everywhere


def _joined(x: Any, *more: Any, count: int, **attrs: Any) -> Any:
    parts = [(x, more[i], *more[count + i : count + i + 1]) for i in range(count)]
    return np.stack([OPS["linear"].reference(*part, **attrs, residual=False) for part in parts])


# x, then the weights, then their biases: (count, ...) of what each product gives
LINEARS = Op(
    "linears",
    side_by_side,
    _joined,
    multiply_adds=lambda specs, result, attrs: size_of(result.shape) * specs[0].shape[-1],
    operations=lambda specs, result, attrs: (
        size_of(result.shape) * (len(specs) - 1 - result.shape[0] > 0)
        + size_of(result.shape) * bool(attrs["activation"])
    ),
)


def join_products(graph: Graph) -> Graph:
    """Return ``graph`` with up to :data:`TOGETHER` products of one value by weights of one shape as one node."""
    groups: dict[Hashable, list[Node]] = {}
    ends = set(graph.outputs)  # those have buffers of their own
    for node in graph.nodes:
        if node.is_op("linear") and node not in ends and _can_join(node):
            x, *weights = node.inputs
            key = (x, *(weight.spec for weight in weights), node.attrs["activation"])
            groups.setdefault(key, []).append(node)
    runs = [found[at : at + TOGETHER] for found in groups.values() for at in range(0, len(found), TOGETHER)]
    together = {member: members for members in runs if len(members) > 1 for member in members}
    made: dict[Node, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        members = together.get(node, [])
        if not members:
            return None

        def part(operands: tuple[Node, ...]) -> Node:
            joined = made.get(members[0]) or made.setdefault(members[0], _join(members, operands[0]))
            start = members.index(node) * size_of(node.spec.shape)
            return Node(PART, {"start": start, "shape": node.spec.shape}, (joined,), node.spec)

        return Replacement(node.inputs[:1], part)

    return rewritten(graph, pattern)


def _can_join(node: Node) -> bool:
    """Weights that are there from the start, and a result whose parts can each be a place of memory."""
    stored = all(weight.op is None for weight in node.inputs[1:])
    return stored and not node.attrs["residual"] and node.spec.nbytes > 0 and node.spec.nbytes % ALIGNMENT == 0


def _join(members: list[Node], x: Node) -> Node:
    operands = [*(node.inputs[1] for node in members), *(bias for node in members for bias in node.inputs[2:])]
    attrs = {"count": len(members), "activation": members[0].attrs["activation"]}
    return Node.of(LINEARS, attrs, (x, *operands))
