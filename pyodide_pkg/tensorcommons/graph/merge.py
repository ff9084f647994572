"""Merging: the graphs of several requests become one, which computes what they have in common once.

It pays wherever two requests share a value: every dispatch behind it, and its bytes, exist once. Merging keeps the
bits, since each graph was fused before by itself (:mod:`~.fuse`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .graph import Graph
from .node import Node, argument
from .rewrite import Replacement, rebuild


def merge(requests: Sequence[tuple[Graph, Mapping[str, str]]]) -> Graph:
    """Return one graph with the outputs of all ``requests`` in order.

    A request is a graph with the names of its arguments in the merged graph; equal names mean equal values.
    """
    if len(requests) == 1 and all(old == new for old, new in requests[0][1].items()):
        return requests[0][0]
    outputs: list[Node] = []
    counts: dict[str, int] = {}
    for graph, names in requests:

        def pattern(node: Node, graph: Graph = graph, names: Mapping[str, str] = names) -> Replacement:
            def made(inputs: tuple[Node, ...]) -> Node:
                new = node.over(inputs)
                if node.op is None and node.storage is None and names[str(node.name)] != node.name:
                    new = argument(names[str(node.name)], node.spec, is_stored=node.is_stored)
                counts[new.key] = graph.stands_for(node)
                return new

            return Replacement(node.inputs, made)

        outputs += rebuild(graph.outputs, pattern)
    return Graph(outputs, traced=sum(graph.traced for graph, _ in requests), counts=counts)
