"""Joins: products of one value by several weights (query, key and value; the first layers of heads) as one step.

On hardware a small product takes less time than its dispatch. The weights stay the storages that they are. As with
chains, each part gets bit for bit what its product alone gives, so this is done last, and only for devices to which a
step costs more than what it computes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ..backends.base import Attributes, Op, Spec
from ..backends.ops import OPS
from ..shapes import size_of
from .graph import Graph
from .node import Node
from .plan import ALIGNMENT, PART
from .rewrite import Replacement, rewritten

TOGETHER = 3  # weights with biases, x and the result are the 8 storage buffers that a shader stage has everywhere


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    count = attrs["count"]
    assert isinstance(count, int)
    x, weight = specs[:2]
    return Spec((count, *x.shape[:-1], weight.shape[0]), x.dtype)


def _joined(x: Any, *more: Any, count: int, **attrs: Any) -> Any:
    parts = [(x, more[i], *more[count + i : count + i + 1]) for i in range(count)]
    return np.stack([OPS["linear"].reference(*part, **attrs, residual=False) for part in parts])


# x, then the weights, then their biases: (count, ...) of what each product gives
LINEARS = Op(
    "linears",
    _infer,
    _joined,
    multiply_adds=lambda specs, result, attrs: size_of(result.shape) * specs[0].shape[-1],
    operations=lambda specs, result, attrs: (
        size_of(result.shape) * (len(specs) - 1 - result.shape[0] > 0)
        + size_of(result.shape) * bool(attrs["activation"])
    ),
)


def join_products(graph: Graph) -> Graph:
    """``graph`` with products of one value by weights of one shape as one node each :data:`TOGETHER` of them."""
    groups: dict[Hashable, list[Node]] = {}
    ends = {id(output) for output in graph.outputs}  # those have buffers of their own
    for node in graph.nodes:
        if node.op is not None and node.op.name == "linear" and id(node) not in ends and _can_join(node):
            x, *weights = node.inputs
            key = (id(x), *(weight.spec for weight in weights), node.attrs["activation"])
            groups.setdefault(key, []).append(node)
    together: dict[int, tuple[Node, ...]] = {}
    for found in groups.values():
        for first in range(0, len(found), TOGETHER):
            members = tuple(found[first : first + TOGETHER])
            if len(members) > 1:
                together |= {id(member): members for member in members}
    made: dict[int, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        members = together.get(id(node), ())
        if not members:
            return None

        def part(operands: tuple[Node, ...]) -> Node:
            joined = made.get(id(members[0])) or made.setdefault(id(members[0]), _join(members, operands[0]))
            start = members.index(node) * size_of(node.spec.shape)
            return Node(PART, {"start": start, "shape": node.spec.shape}, (joined,), node.spec)

        return Replacement(node.inputs[:1], part)

    return rewritten(graph, pattern)


def _can_join(node: Node) -> bool:
    """Weights that are there from the start, and a result whose parts can each be a place of memory."""
    stored = all(weight.op is None for weight in node.inputs[1:])
    return stored and not node.attrs["residual"] and node.spec.nbytes > 0 and node.spec.nbytes % ALIGNMENT == 0


def _join(members: Sequence[Node], x: Node) -> Node:
    operands = [*(node.inputs[1] for node in members), *(bias for node in members for bias in node.inputs[2:])]
    attrs = {"count": len(members), "activation": members[0].attrs["activation"]}
    spec = Spec((len(members), *members[0].spec.shape), members[0].spec.dtype)
    return Node(LINEARS, attrs, (x, *operands), spec)
