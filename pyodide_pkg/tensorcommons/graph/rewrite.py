"""The one driver of rewriting: a graph is built again with some of its nodes replaced.

A pattern maps a node to its replacement. There are two phases. Patterns of the first phase may change bits; they run on
each request's own graph, before merging (fuse.py, split_k.py), so that merged is equal to separate. Patterns of the
second phase keep the bits; they run on the merged graph, where all users of a value are known: embedding_norm.py,
elementwise_fusion.py, horizontal_fusion.py, reuse.py, partition.py. The module of each pattern states when it pays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .graph import Graph
from .node import Node, argument, in_order


@dataclass(frozen=True)
class Replacement:
    """A node's replacement: ``make`` of the new nodes that stand for ``operands``, nodes of the old graph."""

    operands: Sequence[Node]
    make: Callable[[tuple[Node, ...]], Node]


Pattern = Callable[[Node], "Replacement | None"]


def rebuild(outputs: Sequence[Node], pattern: Pattern) -> list[Node]:
    """Return ``outputs`` with every node replaced for which ``pattern`` gives a replacement; it is called once a node.

    Only what an output needs is built. A node stays the object that it is where nothing below it changed.
    """
    built: dict[Node, Node] = {}
    plans: dict[Node, Replacement] = {}

    def operands(node: Node) -> Sequence[Node]:
        plans[node] = pattern(node) or Replacement(node.inputs, node.over)
        return plans[node].operands

    for node in in_order(outputs, operands):
        plan = plans[node]
        built[node] = plan.make(tuple([built[operand] for operand in plan.operands]))
    return [built[output] for output in outputs]


def given(name: str, node: Node) -> Replacement:
    """Replace ``node`` by an argument: a storage that each run is given under ``name``."""
    return Replacement((), lambda _: argument(name, node.spec))


def rewritten(graph: Graph, pattern: Pattern) -> Graph:
    """Return ``graph`` after :func:`rebuild`, over the same leaves in the same order."""
    return Graph(rebuild(graph.outputs, pattern), graph.leaves)
