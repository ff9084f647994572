"""Activations of quantised products of the precision "fast": rounded to int8 before kernels that do not do it.

WebGPU's kernels of few rows round x themselves. Those of many multiply floats: they are given the numbers that x is
rounded to (:mod:`~tensorcommons.formats.int8_blocks`), so that a product means the same for any number of rows, and
several products of one value share the step. Both kinds add up products of the same numbers, so the number of rows
changes no more than the order of a sum. This is a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from typing import Any

from .. import dtypes
from ..backends.backend import Backend
from ..backends.base import Op, Spec, per_element
from ..formats.int8_blocks import int8_blocks
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten

INT8_BLOCKS = Op(
    "int8_blocks",
    lambda specs, attrs: Spec(specs[0].shape, dtypes.float32),
    lambda x: int8_blocks(x.astype("float32")),
    operations=per_element(3),
)


def round_activations(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with a step before those products of the precision "fast" that do not round x themselves."""
    if not any(node.attrs.get("precision") == "fast" for node in graph.nodes):
        return graph
    rounded: dict[Node, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        if not node.is_op("quantized_linear") or node.attrs["precision"] != "fast":
            return None
        if backend.rounds(node.inputs[0].spec, str(node.attrs["block_format"])):
            return None

        def made(inputs: tuple[Node, ...]) -> Node:
            x, *more = inputs
            if x not in rounded:
                rounded[x] = Node(INT8_BLOCKS, {}, (x,), Spec(x.spec.shape, dtypes.float32))
            return Node(node.op, {**node.attrs, "precision": "exact"}, (rounded[x], *more), node.spec)

        return Replacement(node.inputs, made)

    return rewritten(graph, pattern)
