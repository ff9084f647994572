"""Attention that reads keys and values in their pages, instead of copies of them in order.

It saves two copies of a decoder's cache a layer, on devices with a kernel for it (``attends_in_pages``). The result has
the same bits as with copies, so this is a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backends.backend import Backend
from ..backends.base import Attributes, Op, Spec
from ..backends.ops import OPS
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten


def _gathered(specs: Sequence[Spec]) -> list[Spec]:
    """Return the specs of query, key and value with the keys and values in order."""
    query, *pools, table = specs
    return [query, *(OPS["paged_rows"].infer([pool, table], {}) for pool in pools)]


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return OPS["scaled_dot_product_attention"].infer(_gathered(specs), {"causal": False})


def _attend(query: Any, keys: Any, values: Any, table: Any, *, scale: float, window: int) -> Any:
    mask = OPS["paged_mask"].reference(table, queries=query.shape[2], size=keys.shape[2], window=window)
    mask = np.broadcast_to(mask, (*query.shape[:3], mask.shape[3]))
    found = (OPS["paged_rows"].reference(pool, table) for pool in (keys, values))
    return OPS["scaled_dot_product_attention"].reference(query, *found, mask, scale=scale, causal=False)


def _multiply_adds(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return OPS["scaled_dot_product_attention"].multiply_adds(_gathered(specs), result, attrs)


# Query, the pools of keys and values, and the table of the pages. Attributes: scale and window, see paged_mask.
PAGED_ATTENTION = Op(
    "paged_attention", _infer, _attend, memory_order=(0, 2, 1, 3), multiply_adds=_multiply_adds
)  # fmt: skip


def attend_in_pages(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with attention that reads pages, where ``backend`` has a kernel for it."""
    return rewritten(graph, lambda node: _in_pages(node, backend))


def _in_pages(node: Node, backend: Backend[Any]) -> Replacement | None:
    if not node.is_op("scaled_dot_product_attention") or len(node.inputs) != 4 or node.attrs["causal"]:
        return None
    query, key, value, mask = node.inputs
    mask = mask.inputs[0] if mask.is_op("broadcast_to") else mask
    if not (mask.is_op("paged_mask") and key.is_op("paged_rows") and value.is_op("paged_rows")):
        return None
    (table,) = mask.inputs
    if key.inputs[1] is not table or value.inputs[1] is not table:
        return None
    operands = (query, key.inputs[0], value.inputs[0], table)
    attrs = {"scale": node.attrs["scale"], "window": mask.attrs["window"]}
    if mask.attrs["size"] != operands[1].spec.shape[2] or not backend.attends_in_pages([o.spec for o in operands]):
        return None
    return Replacement(operands, lambda new: Node(PAGED_ATTENTION, attrs, new, node.spec))
