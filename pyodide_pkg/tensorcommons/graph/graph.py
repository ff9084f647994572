"""A graph: the nodes that some outputs need, each computation once, in an order that can run.

Nodes of equal key become one node, within a model and across models: a graph of the outputs of five heads on one
backbone has the backbone once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

from ..errors import InternalError
from .node import Node, in_order


class Graph:
    """Nodes in dependency order, merged by key.

    ``outputs`` are the merged output nodes, ``leaves`` the nodes whose storages a run is given. ``traced`` counts the
    nodes before merging, ``executed`` those left to compute. A graph made from another one is given that
    graph's ``leaves``, to keep their order, and its ``traced``; ``counts`` maps the key of a node to the number of
    original nodes that it replaces (:meth:`stands_for`).
    """

    def __init__(
        self,
        outputs: Sequence[Node],
        leaves: Sequence[Node] | None = None,
        *,
        traced: int | None = None,
        counts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.nodes: list[Node] = []
        self._counts = counts
        by_key: dict[str, Node] = {}
        merged: dict[Node, Node] = {}
        for node in in_order(outputs):
            known = by_key.get(key := node.key)
            if known is None:
                known = by_key[key] = node.over(tuple([merged[child] for child in node.inputs]))
                self.nodes.append(known)
            elif known.spec != node.spec or known.nbytes != node.nbytes:
                raise InternalError(f"{known.spec} and {node.spec} have the key {key}")
            merged[node] = known
        self.outputs = [merged[output] for output in outputs]
        self.leaves = [node for node in self.nodes if node.is_stored] if leaves is None else list(leaves)
        self.executed = sum(node.op is not None for node in self.nodes)
        self.traced = sum(node.op is not None for node in merged) if traced is None else traced

    def stands_for(self, node: Node) -> int:
        """Return the number of original nodes that ``node`` replaces."""
        return self._counts.get(node.key, 1)

    def uses(self) -> Counter[Node]:
        """Count the uses of each node: as an input, or as an output."""
        uses = Counter(child for node in self.nodes for child in node.inputs)
        uses.update(self.outputs)
        return uses

    @cached_property
    def structure(self) -> str:
        """Hex SHA-256 of the operations, without the leaves' content: graphs of one structure share a program."""
        numbers = {node: str(number) for number, node in enumerate(self.nodes)}
        parts = [",".join(numbers[output] for output in self.outputs)]
        for node in self.nodes:
            if node.op is not None:
                parts += [node.formula, *(numbers[child] for child in node.inputs)]
            else:
                parts += ["leaf" if node.is_stored else f"input {node.name!r}", repr(node.spec), str(node.nbytes)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
