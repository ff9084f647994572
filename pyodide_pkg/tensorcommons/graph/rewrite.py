"""The one driver of rewriting: a graph is built again with some of its nodes replaced.

A pattern looks at a graph and says of a node what takes its place. There are two phases. Patterns of the first may
change bits; they run on each request's own graph, before merging (fuse.py), so that merged is equal to separate.
Patterns of the second keep the bits; they run on the merged graph, when it is known what else needs a value:
embedding_norm.py, elementwise_fusion.py, horizontal_fusion.py, reuse.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .graph import Graph
from .node import Node


@dataclass(frozen=True)
class Replacement:
    """A node's replacement: ``make`` of the new nodes that stand for ``operands``, nodes of the old graph."""

    operands: Sequence[Node]
    make: Callable[[tuple[Node, ...]], Node]


Pattern = Callable[[Node], "Replacement | None"]


def rebuild(outputs: Iterable[Node], pattern: Pattern) -> list[Node]:
    """The outputs with every node replaced for which ``pattern`` gives a replacement, asked once a node.

    Nothing is built that no output needs. A node stays the object that it is where nothing below it changed.
    """
    built: dict[int, Node] = {}
    plans: dict[int, Replacement | None] = {}
    roots = list(outputs)
    stack = roots[::-1]
    while stack:
        node = stack[-1]
        if id(node) in built:
            stack.pop()
            continue
        if id(node) not in plans:
            plans[id(node)] = pattern(node)
        plan = plans[id(node)]
        operands = node.inputs if plan is None else plan.operands
        waiting = [operand for operand in operands if id(operand) not in built]
        if waiting:
            stack += reversed(waiting)
            continue
        stack.pop()
        new = tuple([built[id(operand)] for operand in operands])
        built[id(node)] = with_inputs(node, new) if plan is None else plan.make(new)
    return [built[id(root)] for root in roots]


def with_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    """``node`` over ``inputs``; itself where these are its own."""
    same = all(new is old for new, old in zip(inputs, node.inputs, strict=True))
    return node if same else Node(node.op, node.attrs, inputs, node.spec)


def rewritten(graph: Graph, pattern: Pattern) -> Graph:
    """``graph`` after :func:`rebuild`, over the same leaves in the same order."""
    return Graph(rebuild(graph.outputs, pattern), graph.leaves)


def uses_in(graph: Graph) -> Counter[int]:
    """Count the uses of each node, by its id: as an input, or as an output."""
    uses = Counter(id(child) for node in graph.nodes for child in node.inputs)
    uses.update(id(output) for output in graph.outputs)
    return uses
