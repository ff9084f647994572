"""Segments: the nodes that one device computes, cut into consecutive pieces that each stay within bounds.

A piece may need more weights than there is memory for, or be a larger graph than a device takes. A cut is made where
the fewest bytes cross it, which in a model is between its layers, so that most segments are one structure over other
weights. Nothing is rewritten: a graph is cut after fusion, and what is fused later gives the bits of its nodes one by
one, so the results are those of the whole graph. Views stay behind the value that they show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from .node import Node
from .views import owner_of

ANY = 2**62
CENTRAL = 0.75  # of the whole: the most that either side of a cut may have where the cut with the least bytes is chosen
USELESS = 0.95  # of the whole: a cut that leaves more than this on one side is not made


@dataclass(frozen=True)
class Bounds:
    """The most of one segment: ``nodes`` that are computed, and ``nbytes`` of stored leaves as ``weigh`` counts them.

    A single node that exceeds a bound is a segment of its own.
    """

    nodes: int = ANY
    nbytes: int = ANY
    weigh: Callable[[Node], int] = lambda leaf: leaf.nbytes

    def excess(self, nodes: int, nbytes: int) -> float:
        """Return how full a segment is; above 1 it has to be cut."""
        return max(nodes / self.nodes, nbytes / self.nbytes)


def segments_of(nodes: Sequence[Node], bounds: Bounds) -> list[Sequence[Node]]:
    """Split ``nodes``, none of which needs a later one, into consecutive segments within ``bounds``.

    Leaves and all values that are not among ``nodes`` are inputs of a segment.
    """
    found: list[Sequence[Node]] = []
    waiting = [(0, len(nodes))] if nodes else []
    crossing: Sequence[int] = ()
    weights: list[list[Node]] | None = None
    while waiting:
        start, stop = waiting.pop()
        if stop - start <= bounds.nodes and bounds.nbytes >= ANY:
            found.append(nodes[start:stop])
            continue
        if weights is None:
            weights, crossing = [_weights(node) for node in nodes], _bytes_across(nodes)
        before = _measured(nodes, weights, range(start, stop), bounds)
        whole = before[-1]
        after = _measured(nodes, weights, range(stop - 1, start, -1), bounds)[::-1]
        cut = None if whole <= 1 else _cut(nodes, start, crossing, before[:-1], after, whole)
        if cut is None:
            found.append(nodes[start:stop])
        else:
            waiting += [(cut, stop), (start, cut)]
    return found


def _weights(node: Node) -> list[Node]:
    """Return the stored leaves that ``node`` reads: none if it is a view, which each segment that needs it has."""
    owners = [owner_of(child)[0] for child in (node.inputs if owner_of(node)[0] is node else ())]
    return [owner for owner in dict.fromkeys(owners) if owner.is_stored]


def _bytes_across(nodes: Sequence[Node]) -> list[int]:
    """List the bytes that a cut before each of ``nodes`` has on its other side, for those behind it."""
    places = {node: place for place, node in enumerate(nodes)}
    last: dict[Node, int] = {}
    for place, node in enumerate(nodes):
        for child in node.inputs:
            owner = owner_of(child)[0]
            if owner in places:
                last[owner] = place
    changes = [0] * (len(nodes) + 1)
    for owner, end in last.items():
        changes[places[owner] + 1] += owner.spec.nbytes
        changes[end + 1] -= owner.spec.nbytes
    return list(accumulate(changes))


def _measured(nodes: Sequence[Node], weights: Sequence[list[Node]], places: range, bounds: Bounds) -> list[float]:
    """Measure segments of the first one, two, ... of ``places``."""
    seen: set[Node] = set()
    nbytes, fullness = 0, []
    for count, place in enumerate(places, 1):
        for leaf in weights[place]:
            if leaf not in seen:
                seen.add(leaf)
                nbytes += bounds.weigh(leaf)
        fullness.append(bounds.excess(count, nbytes))
    return fullness


def _cut(
    nodes: Sequence[Node],
    start: int,
    crossing: Sequence[int],
    before: Sequence[float],
    after: Sequence[float],
    whole: float,
) -> int | None:
    """Return the place before which a segment from ``start`` on is cut; None where no cut makes it much smaller.

    ``before`` and ``after`` are the fullness of the two sides of each cut.
    """
    sides = {start + at: (before[at - 1], after[at - 1]) for at in range(1, len(before) + 1)}
    sides = {place: both for place, both in sides.items() if not nodes[place].is_view}
    least = min((max(both) for both in sides.values()), default=whole)
    if least > USELESS * whole:
        return None
    most = max(least, CENTRAL * whole)
    allowed = [place for place, both in sides.items() if max(both) <= most]
    return min(allowed, key=lambda place: (crossing[place], sum(map(ceil, sides[place])), max(sides[place])))
