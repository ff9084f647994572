"""Values between the parts of a graph: what crosses from one to another, and which views are made again instead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import accumulate

from ..shapes import size_of
from .node import Node
from .views import owner_of


def is_view(node: Node) -> bool:
    """Return whether ``node`` shows bytes of another value."""
    return node.op is not None and node.op.view is not None


def bytes_across(nodes: Sequence[Node]) -> list[int]:
    """List the bytes that a cut before each of ``nodes`` has on its other side, for those behind it."""
    places = {id(node): place for place, node in enumerate(nodes)}
    last: dict[int, int] = {}
    owners: dict[int, Node] = {}
    for place, node in enumerate(nodes):
        for child in node.inputs:
            owner = owner_of(child)[0]
            if id(owner) in places:
                last[id(owner)] = place
                owners[id(owner)] = owner
    changes = [0] * (len(nodes) + 1)
    for key, end in last.items():
        changes[places[key] + 1] += owners[key].spec.nbytes
        changes[end + 1] -= owners[key].spec.nbytes
    return list(accumulate(changes))


def is_repeated(node: Node) -> bool:
    """Return whether each part that needs ``node`` makes it again, instead of reading it from an earlier part.

    That is so for a view that does not show a whole computed value as it lies in memory: it would have to be copied.
    """
    if not is_view(node):
        return False
    owner, layout = owner_of(node)
    return owner.op is None or not layout.is_contiguous or layout.size != size_of(owner.spec.shape)


def uses_elsewhere(
    nodes: Sequence[Node], outputs: Collection[Node], part_of: dict[int, int], repeats: Callable[[int, set[int]], bool]
) -> list[Node]:
    """List the nodes that their part has to give: outputs, and what other parts need.

    ``part_of`` says by id in which part a node is computed. A view (:func:`is_repeated`) that ``repeats`` allows, given
    its own part and those that need it, is taken out of it: whoever needs the view makes it.
    """
    ends = {id(node) for node in outputs}
    needed: dict[int, set[int]] = {}
    for node in reversed(nodes):
        own, users = part_of.get(id(node)), needed.get(id(node), set())
        if own is not None and id(node) not in ends and users - {own} and is_repeated(node) and repeats(own, users):
            del part_of[id(node)]
            own = None
        for child in node.inputs:
            needed.setdefault(id(child), set()).update(users if own is None else {own})
    return [
        node
        for node in nodes
        if id(node) in ends or (id(node) in part_of and needed.get(id(node), set()) - {part_of[id(node)]})
    ]
