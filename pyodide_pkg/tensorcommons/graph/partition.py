"""Partition: the parts of a graph that its device does not take, or hold, as a whole.

What the device refuses runs on its fallback. Nodes have levels: a level is everything of one device that needs nothing
of a later level, so each part is as large as it can be and no two wait for each other. A level that is over the bounds
of its device becomes several parts (:mod:`~.segments`). Numbers and what is made of them alone do not cross: they are
made wherever they are needed. Views that only the other device reads are its own.

Where the parts together would take longer than everything on the fallback (:func:`cost`), the whole graph moves. The
bits stay: a partition is made after fusion, and no part is rewritten in a way that changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..backends.device import Device
from ..shapes import size_of
from .graph import Graph
from .node import Node
from .rewrite import Replacement, given, rebuild
from .segments import Bounds, segments_of
from .views import owner_of

PartNodes: TypeAlias = "tuple[Device, Sequence[Node]]"  # what a part computes, and where


def _work(node: Node) -> tuple[float, float]:
    """Return the multiply-adds and elements of a node that count towards its cost."""
    assert node.op is not None
    elements = max(size_of(node.spec.shape), *(size_of(child.spec.shape) for child in node.inputs), 0)
    products = node.op.multiply_adds([child.spec for child in node.inputs], node.spec, node.attrs)
    return products, 0 if node.is_view else elements


def cost(device: Device, nodes: Sequence[Node], crossing: int) -> float:
    """Estimate the milliseconds of a part of these nodes on ``device``, with ``crossing`` bytes copied to it."""
    rates, work = device.facts.rates, [_work(node) for node in nodes]
    computing = sum(w[0] for w in work) / rates.multiply_adds + sum(w[1] for w in work) / rates.elements
    return rates.fixed + computing + crossing / rates.crossing_bytes


@dataclass(frozen=True)
class Part:
    """A part that runs as one program of ``device``: ``graph``, whose leaves are the values ``needed``.

    Values are known by their nodes' places in the whole graph: a node would keep its storage. ``made`` are those that
    ``graph`` gives.
    """

    device: Device
    graph: Graph
    needed: tuple[int, ...]
    made: tuple[int, ...]


def _levels(graph: Graph, refused: Mapping[int, str]) -> dict[Node, int]:
    """Return the level of each node: even for the device, odd for the fallback. Free nodes have none."""
    there = {graph.nodes[number] for number in refused}
    outputs = set(graph.outputs)
    read_here = set(outputs)
    for node in reversed(graph.nodes):
        if node.is_view and node not in read_here:
            there.add(node)
        if node not in there:
            read_here.update(node.inputs)
    levels: dict[Node, int] = {}
    free: set[Node] = set()
    for node in graph.nodes:
        if node.op is None:
            continue
        if all(child in free for child in node.inputs) and node not in there and node not in outputs:
            free.add(node)
            continue
        own = int(node in there)
        before = [levels[child] for child in node.inputs if child in levels]
        levels[node] = max([own, *(level + (level % 2 != own) for level in before)])
    return levels


def bounds_of(device: Device) -> Bounds:
    """Return the bounds of one program on ``device``."""
    return Bounds(device.backend.graph_nodes)


def parts_of(
    graph: Graph,
    device: Device,
    fallback: Device,
    refused: Mapping[int, str],
    bounds: Callable[[Device], Bounds] = bounds_of,
) -> list[Part]:
    """Return the parts of a fused ``graph`` in their order, each within the ``bounds`` of its device.

    ``refused`` are the numbers of the nodes that the device does not take. Without any, all parts are on the device.
    """
    levels = _levels(graph, refused)
    split = _nodes_of_parts(graph, levels, device, fallback, bounds)
    if not refused:
        return _cut(graph, split)
    whole = _nodes_of_parts(graph, dict.fromkeys(levels, 1), device, fallback, bounds)
    return min((_cut(graph, nodes) for nodes in (split, whole)), key=lambda parts: sum(map(_cost_of, parts)))


def _nodes_of_parts(
    graph: Graph, levels: Mapping[Node, int], device: Device, fallback: Device, bounds: Callable[[Device], Bounds]
) -> list[PartNodes]:
    """List the nodes of each part, in the order in which they run: the segments of each level."""
    nodes: dict[int, list[Node]] = {}
    for node in graph.nodes:  # in this order, none needs a later one
        if node in levels:
            nodes.setdefault(levels[node], []).append(node)
    found = []
    for level in sorted(nodes):
        who = fallback if level % 2 else device
        found += [(who, segment) for segment in segments_of(nodes[level], bounds(who))]
    return found


def _cost_of(part: Part) -> float:
    nodes = [node for node in part.graph.nodes if node.op is not None]
    return cost(part.device, nodes, sum(node.spec.nbytes for node in (*part.graph.leaves, *part.graph.outputs)))


def _cut(graph: Graph, split: Sequence[PartNodes]) -> list[Part]:
    """Return the part of each of ``split``: it gives outputs, and what other parts need.

    A view that would have to be copied (:func:`_is_copied`) is made by each part that needs it, on one device.
    """
    part_of = {node: index for index, (_, nodes) in enumerate(split) for node in nodes}
    ends = set(graph.outputs)
    readers: dict[Node, set[int]] = {}
    for node in reversed(graph.nodes):
        own, users = part_of.get(node), readers.setdefault(node, set())
        may_repeat = node not in ends and _is_copied(node)
        if own is not None and may_repeat and all(split[user][0] is split[own][0] for user in users):
            own = None
            del part_of[node]
        for child in node.inputs:
            readers.setdefault(child, set()).update(users if own is None else {own})
    made: dict[int, list[Node]] = {}
    for node in graph.nodes:
        own = part_of.get(node, 0)
        if node in ends or (node in part_of and readers[node] - {own}):
            made.setdefault(own, []).append(node)
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    return [_part(split[index][0], index, made[index], part_of, numbers) for index in sorted(made)]


def _is_copied(node: Node) -> bool:
    """Return whether ``node`` is a view that crosses as a copy: it does not show a whole computed value in order."""
    if not node.is_view:
        return False
    owner, layout = owner_of(node)
    return owner.op is None or not layout.is_contiguous or layout.size != size_of(owner.spec.shape)


def _part(
    device: Device, index: int, made: Sequence[Node], part_of: Mapping[Node, int], numbers: Mapping[Node, int]
) -> Part:
    """Return the part that computes ``made`` from what other parts made and what is stored."""
    needed: dict[str, int] = {}

    def pattern(node: Node) -> Replacement | None:
        if not node.is_stored and part_of.get(node, index) == index:
            return None
        name = f"value {len(needed)}"
        needed[name] = numbers[node]
        return given(name, node)

    graph = Graph(rebuild(made, pattern))
    leaves = tuple(needed[str(leaf.name)] for leaf in graph.leaves)
    return Part(device, graph, leaves, tuple(numbers[node] for node in made))
