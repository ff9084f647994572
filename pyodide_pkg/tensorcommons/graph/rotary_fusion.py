"""Rotary positions without a step of their own: attention rotates its few queries, an append rotates the keys.

It saves two dispatches a layer of a decoder's step, on devices where a step costs more than what it computes
(``steps_cost``). The rotated numbers have the same bits as in a step of their own, so this is a pattern of the second
phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..backends.backend import Backend
from ..backends.base import Op
from ..backends.ops import OPS
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten


def _attend(q: Any, k: Any, v: Any, *more: Any, interleaved: bool, **attrs: Any) -> Any:
    *mask, cos, sin, positions = more
    turned = OPS["rotary_embedding"].reference(q, cos, sin, positions, interleaved=interleaved)
    return OPS["scaled_dot_product_attention"].reference(turned, k, v, *mask, **attrs)


def _append(cache: Any, update: Any, position: Any, cos: Any, sin: Any, positions: Any, *, interleaved: bool) -> Any:
    turned = OPS["rotary_embedding"].reference(update, cos, sin, positions, interleaved=interleaved)
    return OPS["kv_cache_append"].reference(cache, turned, position)


# Query, key, value and the mask, if any; then cos, sin and positions of the queries.
ROTATED_ATTENTION = Op(
    "rotated_attention",
    lambda specs, attrs: OPS["scaled_dot_product_attention"].infer(specs[:-3], attrs),
    _attend,
    memory_order=(0, 2, 1, 3),
    multiply_adds=lambda specs, result, attrs: OPS["scaled_dot_product_attention"].multiply_adds(
        specs[:-3], result, attrs
    ),
)
# Cache, update and position; then cos, sin and positions of the update.
ROTATED_APPEND = Op(
    "rotated_append",
    lambda specs, attrs: specs[0],
    _append,
    in_place=True,
    traffic=lambda specs, result, attrs: 2 * specs[1].nbytes,
)


def fuse_rotary(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with rotary positions inside attention and appends, where ``backend`` has kernels for that."""
    uses = graph.uses()
    return rewritten(graph, lambda node: _fused(node, uses, backend))


def _fused(node: Node, uses: Counter[Node], backend: Backend[Any]) -> Replacement | None:
    if node.is_op("scaled_dot_product_attention"):
        op, place = ROTATED_ATTENTION, 0
    elif node.is_op("kv_cache_append"):
        op, place = ROTATED_APPEND, 1
    else:
        return None
    rotary = node.inputs[place]
    if not rotary.is_op("rotary_embedding") or uses[rotary] != 1 or len(rotary.inputs) != 4:
        return None
    if not backend.rotates([each.spec for each in node.inputs]):
        return None
    x, *turns = rotary.inputs
    operands = (*node.inputs[:place], x, *node.inputs[place + 1 :], *turns)
    attrs = {**node.attrs, "interleaved": rotary.attrs["interleaved"]}
    return Replacement(operands, lambda new: Node(op, attrs, new, node.spec))
