"""Reuse points: the values at which a graph and another one part, having computed the same so far.

A run that kept such a value saves the next one everything behind it. Cuts are made in graphs that are fused already, so
a run with a cut executes the very steps that a run without it would, and gives the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..sharing.storage import Storage
from .graph import Graph
from .node import Node, in_order
from .rewrite import Replacement, given, rebuild
from .views import owner_of


@dataclass(frozen=True, eq=False)
class ReusePoint:
    """A value worth keeping.

    ``identity`` says how it is computed from ``arguments``, the names of the host's inputs in the order in which the
    computation meets them; ``weights`` are what it is computed from besides.
    """

    node: Node
    identity: str
    arguments: tuple[str, ...]
    weights: tuple[Storage, ...]

    def key(self, digests: Mapping[str, bytes]) -> str:
        """Key of the value, given the content of the inputs."""
        parts = (self.identity.encode(), *(digests[name] for name in self.arguments))
        return hashlib.sha256(b"".join(parts)).hexdigest()


def reuse_points(graph: Graph, others: Iterable[Graph]) -> list[ReusePoint]:
    """The outputs of ``graph``, and the values at which it parts from one of ``others``. Both are fused.

    A value that no weight went into is computed as cheaply as it is kept, so it is not among them; nor is one that
    depends on bytes that nobody can name.
    """
    nodes = dict.fromkeys(node for node in graph.outputs if node.op is not None)
    for other in others:
        nodes |= dict.fromkeys(_frontier(graph, other))
    cuts = (_described(node) for node in nodes)
    return [cut for cut in cuts if cut is not None and cut.weights]


def _frontier(graph: Graph, other: Graph) -> list[Node]:
    """The last values that the two graphs have in common, as nodes of ``graph``; of a view what it shows."""
    mine = {node.key: node for node in graph.nodes if node.op is not None}
    common = mine.keys() & {node.key for node in other.nodes if node.op is not None}
    found: list[Node] = []
    for each in (graph, other):
        last = [node for node in each.outputs if node.key in common]
        for node in each.nodes:
            if node.op is not None and node.key not in common:
                last += [child for child in node.inputs if child.key in common]
        found += [owner_of(mine[node.key])[0] for node in last]
    return [node for node in found if node.op is not None]


def _described(root: Node) -> ReusePoint | None:
    """``root`` as a reuse point; None where it depends on bytes that have no identity."""
    weights: dict[Storage, None] = {}
    for node in in_order([root]):
        if node.storage is not None and node.storage.category == "weights":
            weights[node.storage] = None
        elif node.is_stored and not (node.storage is not None and node.storage.is_known):
            return None
    return ReusePoint(root, root.identity, root.arguments, tuple(weights))


@dataclass(frozen=True)
class Remainder:
    """The part of a graph that is left to run: ``graph`` computes the ``outputs`` that were not found, then the
    ``kept`` cuts.

    ``taken`` are the cuts whose values it is given, by the names of its leaves; ``missing`` the numbers of the outputs.
    """

    graph: Graph
    missing: tuple[int, ...]
    kept: tuple[ReusePoint, ...]
    taken: Mapping[str, ReusePoint]


def remainder_of(graph: Graph, cuts: Iterable[ReusePoint], found: Collection[ReusePoint], *, keep: bool) -> Remainder:
    """Return the rest of ``graph`` where the values of ``found`` exist; with ``keep`` it gives the others."""
    by_node = {id(cut.node): cut for cut in found}
    taken: dict[str, ReusePoint] = {}
    made: dict[int, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        cut = by_node.get(id(node))
        if cut is None:
            return Replacement(node.inputs, lambda inputs: made.setdefault(id(node), node.over(inputs)))
        name = f"activation {cut.identity} {' '.join(cut.arguments)}"
        taken[name] = cut
        return given(name, node)

    missing = tuple(i for i, node in enumerate(graph.outputs) if id(node) not in by_node)
    outputs = rebuild([graph.outputs[i] for i in missing], pattern)
    others = made.keys() - {id(node) for node in graph.outputs}
    kept = tuple(cut for cut in cuts if keep and id(cut.node) in others)
    return Remainder(Graph([*outputs, *(made[id(cut.node)] for cut in kept)]), missing, kept, taken)


def needed(graph: Graph, found: Collection[Node]) -> int:
    """Count the nodes of the original graph that are computed where the values of ``found`` exist."""
    stops = {id(node) for node in found}
    below = in_order(graph.outputs, lambda node: () if id(node) in stops else node.inputs)
    computed = (node for node in below if node.op is not None and id(node) not in stops)
    return sum(graph.stands_for.get(node.key, 1) for node in computed)
