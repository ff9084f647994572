"""Reuse points: the last values that a graph has in common with another one.

A run that keeps such a value saves a later run every dispatch behind it, for the bytes of the value. The points are
found in fused graphs, so a run that reuses a value executes the steps that it would execute without it, and keeps the
bits: a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from weakref import ref

from ..sharing.storage import Storage
from .graph import Graph
from .node import Node, in_order
from .rewrite import Replacement, given, rebuild
from .views import owner_of


@dataclass(frozen=True, eq=False)
class ReusePoint:
    """A value worth keeping.

    ``identity`` identifies its computation from ``arguments``, the names of the host's inputs in the order in which the
    computation meets them, and from ``weights``.
    """

    node: Node
    identity: str
    arguments: tuple[str, ...]
    weights: tuple[Storage, ...]

    @cached_property
    def sources(self) -> tuple[tuple[ref[Storage], str], ...]:
        """Each of the weights with its identity; the value is valid as long as they have these."""
        return tuple([(ref(weight), weight.identity) for weight in self.weights])

    def key(self, digests: Mapping[str, bytes]) -> str:
        """Key of the value, given the content of the inputs."""
        parts = (self.identity.encode(), *(digests[name] for name in self.arguments))
        return hashlib.sha256(b"".join(parts)).hexdigest()


def reuse_points(graph: Graph, others: Iterable[Graph]) -> list[ReusePoint]:
    """Return the outputs of ``graph``, and the last values that it has in common with each of ``others``.

    All graphs are fused. Values that depend on no weight are left out, since computing them is as cheap as keeping
    them, and so are values that depend on bytes without an identity.
    """
    nodes = dict.fromkeys(node for node in graph.outputs if node.op is not None)
    for other in others:
        nodes |= dict.fromkeys(_frontier(graph, other))
    cuts = (_described(node) for node in nodes)
    return [cut for cut in cuts if cut is not None and cut.weights]


def _frontier(graph: Graph, other: Graph) -> list[Node]:
    """Return the last values that the two graphs have in common, as nodes of ``graph``; of a view its owner."""
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
    """Return ``root`` as a reuse point; None where it depends on bytes without an identity."""
    weights: dict[Storage, None] = {}
    for node in in_order([root]):
        if node.storage is not None and node.storage.category == "weights":
            weights[node.storage] = None
        elif node.is_stored and not (node.storage is not None and node.storage.is_known):
            return None
    return ReusePoint(root, *root.numbered(), tuple(weights))


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
    by_node = {cut.node: cut for cut in found}
    taken: dict[str, ReusePoint] = {}
    made: dict[Node, Node] = {}

    def pattern(node: Node) -> Replacement | None:
        cut = by_node.get(node)
        if cut is None:
            return Replacement(node.inputs, lambda inputs: made.setdefault(node, node.over(inputs)))
        name = f"activation {cut.identity} {' '.join(cut.arguments)}"
        taken[name] = cut
        return given(name, node)

    missing = tuple(i for i, node in enumerate(graph.outputs) if node not in by_node)
    outputs = rebuild([graph.outputs[i] for i in missing], pattern)
    others = made.keys() - set(graph.outputs)
    kept = tuple(cut for cut in cuts if keep and cut.node in others)
    return Remainder(Graph([*outputs, *(made[cut.node] for cut in kept)]), missing, kept, taken)


def needed(graph: Graph, found: Collection[Node]) -> int:
    """Count the nodes of the original graph that are computed where the values of ``found`` exist."""
    stops = set(found)
    below = in_order(graph.outputs, lambda node: () if node in stops else node.inputs)
    computed = (node for node in below if node.op is not None and node not in stops)
    return sum(map(graph.stands_for, computed))
