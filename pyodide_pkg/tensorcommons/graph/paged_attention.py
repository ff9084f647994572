"""Attention that reads keys and values in their pages, instead of copies of them in order.

It saves two copies of a decoder's cache a layer, and reads no further than a text's end, on devices with a kernel for
it (``attends_in_pages``). Where pages have room for many keys, the device may attend to parts of them in parallel, and
then combine the parts (``keys_of_part``), as Flash-Decoding does it (Dao et al., 2023). The choice depends on shapes
alone, never on other requests of a run, so this is a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.backend import Backend
from ..backends.base import Attributes, Op, Spec, per_input
from ..backends.ops import OPS
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten

BESIDE = 4  # values of a part beside the weighted sum: the largest score, the sum of the weights, and two unused ones
LOWEST = float(np.finfo(np.float32).min)


def _gathered(specs: Sequence[Spec]) -> list[Spec]:
    """Return the specs of query, key and value with the keys and values in order, of the dtype of the query."""
    query, *pools, table = specs
    found = [OPS["paged_rows"].infer([pool, table], {}) for pool in pools]
    return [query, *(Spec(each.shape, query.dtype) for each in found)]


def _infer(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    return OPS["scaled_dot_product_attention"].infer(_gathered(specs), {"causal": False})


def _ordered(query: Any, keys: Any, values: Any, table: Any, window: int) -> tuple[Any, Any, Any]:
    """Return keys and values in order, and the mask of each query."""
    mask = OPS["paged_mask"].reference(table, queries=query.shape[2], size=keys.shape[2], window=window)
    keys, values = (OPS["paged_rows"].reference(pool, table).astype(query.dtype) for pool in (keys, values))
    return keys, values, np.broadcast_to(mask, (*query.shape[:3], mask.shape[3]))


def _attend(query: Any, keys: Any, values: Any, table: Any, *, scale: float, window: int) -> Any:
    operands = _ordered(query, keys, values, table, window)
    return OPS["scaled_dot_product_attention"].reference(query, *operands, scale=scale, causal=False)


def _multiply_adds(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return OPS["scaled_dot_product_attention"].multiply_adds(_gathered(specs), _infer(specs, attrs), attrs)


def _traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the bytes of query, table and result, and of all pages that the rows may have."""
    query, *pools, table = specs
    pages = sum(min(pool.nbytes, own.nbytes) for pool, own in zip(pools, _gathered(specs)[1:], strict=True))
    return query.nbytes + pages + table.nbytes + result.nbytes


def _infer_parts(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    result, room, span = _infer(specs, attrs), _gathered(specs)[1].shape[2], attrs["span"]
    assert isinstance(span, int)
    return Spec((*result.shape[:3], -(-room // span), result.shape[3] + BESIDE), dtypes.float32)


def _attend_to_parts(query: Any, keys: Any, values: Any, table: Any, *, scale: float, window: int, span: int) -> Any:
    keys, values, mask = _ordered(query, keys, values, table, window)
    keys, values = (
        np.repeat(each.astype(np.float32), query.shape[1] // each.shape[1], axis=1) for each in (keys, values)
    )
    scores = query.astype(np.float32) @ np.swapaxes(keys, -1, -2) * np.float32(scale)
    parts = []
    for first in range(0, keys.shape[2], span):
        part = slice(first, first + span)
        own = np.where(mask[..., part], scores[..., part], -np.inf)
        largest = np.maximum(own.max(-1, keepdims=True), LOWEST)
        weights = np.exp(own - largest)
        found = weights @ values[:, :, part], largest, weights.sum(-1, keepdims=True)
        parts.append(np.concatenate([*found, np.zeros((*query.shape[:3], 2))], axis=-1))
    return np.stack(parts, axis=3).astype(np.float32)


def _infer_combined(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    *outer, _, width = specs[0].shape
    return Spec((*outer, width - BESIDE), dtypes.ALL[str(attrs["dtype"])])


def _combine(parts: Any, *, dtype: str) -> Any:
    sums, largest, totals = parts[..., :-BESIDE], parts[..., -BESIDE, None], parts[..., 1 - BESIDE, None]
    sums = np.where(totals == 0, np.float32(0), sums)
    weights = np.exp(largest - largest.max(axis=3, keepdims=True))
    total = (totals * weights).sum(axis=3)
    return ((sums * weights).sum(axis=3) / np.where(total == 0, np.float32(1), total)).astype(dtype)


MEMORY_ORDER = (0, 2, 1, 3)  # of results, as that of scaled_dot_product_attention
# Query, the pools of keys and values, and the table of the pages. Attributes: scale and window, see paged_mask.
PAGED_ATTENTION = Op(
    "paged_attention", _infer, _attend, memory_order=MEMORY_ORDER, multiply_adds=_multiply_adds, traffic=_traffic
)
# The same over each ``span`` of keys: (batch, heads, queries, parts, width + 4) float32. A part has the sum of its
# values, weighted by the exponentials of their scores less the largest one; that score; and the sum of the weights.
ATTENTION_PARTS = Op(
    "attention_parts", _infer_parts, _attend_to_parts, multiply_adds=_multiply_adds, traffic=_traffic
)  # fmt: skip
# The attention to all keys from that to the parts, in ``dtype``.
COMBINED_ATTENTION = Op(
    "combined_attention", _infer_combined, _combine, memory_order=MEMORY_ORDER, operations=per_input(2)
)  # fmt: skip


def attend_in_pages(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with attention that reads pages, where ``backend`` has a kernel for it."""
    return rewritten(graph, lambda node: _in_pages(node, backend))


def _is_widened(node: Node) -> bool:
    """Return whether ``node`` is the float32 numbers of float16 ones, which kernels widen as they read."""
    return node.is_op("cast") and (node.spec.dtype, node.inputs[0].spec.dtype) == (dtypes.float32, dtypes.float16)


def _in_pages(node: Node, backend: Backend[Any]) -> Replacement | None:
    if not node.is_op("scaled_dot_product_attention") or len(node.inputs) != 4 or node.attrs["causal"]:
        return None
    query, key, value, mask = node.inputs
    mask = mask.inputs[0] if mask.is_op("broadcast_to") else mask
    key, value = (each.inputs[0] if _is_widened(each) else each for each in (key, value))
    if not (mask.is_op("paged_mask") and key.is_op("paged_rows") and value.is_op("paged_rows")):
        return None
    (table,) = mask.inputs
    if key.inputs[1] is not table or value.inputs[1] is not table:
        return None
    operands = (query, key.inputs[0], value.inputs[0], table)
    attrs = {"scale": node.attrs["scale"], "window": mask.attrs["window"]}
    specs = [operand.spec for operand in operands]
    if mask.attrs["size"] != specs[1].shape[2] or not backend.attends_in_pages(specs):
        return None
    span = backend.keys_of_part(key.spec.shape[2])
    if span >= key.spec.shape[2] or not backend.binds_whole(_infer_parts(specs, {"span": span})):
        return Replacement(operands, lambda new: Node(PAGED_ATTENTION, attrs, new, node.spec))

    def combined(new: tuple[Node, ...]) -> Node:
        parts = Node.of(ATTENTION_PARTS, {**attrs, "span": span}, new)
        return Node(COMBINED_ATTENTION, {"dtype": node.spec.dtype.name}, (parts,), node.spec)

    return Replacement(operands, combined)
