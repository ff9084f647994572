"""Calls of an MLGraphBuilder that would take too much memory as one graph become several, which run in order.

LiteRT plans the inputs of a graph and the values in it into one block of memory, and Chromium ends the tab where a
block cannot be had, instead of reporting it: from 1 GiB on (measured in Chromium 153, also for one tensor, whatever
``maxTensorByteLength`` says). So the block of a graph is estimated before it is built: as if every value were computed
as early as it can be, which is what happens to the casts of weights, and nothing were computed in place. LiteRT widens
what a method takes in float16, so such a value counts three times.

What a subgraph needs of an earlier one crosses in a tensor. Casts, slices and the like of the graph's own inputs do
not: each subgraph makes them again, so a float16 weight is never stored a second time in float32.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from ...shapes import Shape, size_of

BLOCK = 2**30  # bytes; a block of as many ends the tab
GRAPH_BYTES = BLOCK - BLOCK // 8  # of a graph or a tensor at most: the estimate leaves out gaps between values
RESERVED_BYTES = 7 * BLOCK  # of address space for all graphs that are kept
TENSORS_BYTES = 7 * BLOCK  # of address space for all tensors; at 16 GiB with the graphs no other block can be had
HIDDEN_BYTES = 2 * BLOCK  # that all of them may keep for values, such as float32 copies of weights
REMADE = ("cast", "reshape", "transpose", "slice")  # of inputs: cheaper to make again than to store

Node: TypeAlias = "list[Any]"  # a method's name and its arguments; {"v": n} is the result of node n
Kind: TypeAlias = "tuple[str, Shape]"  # dtype and shape


def reserved(nbytes: int) -> int:
    """Address space that a block takes: Chromium rounds aligned blocks up to a power of two."""
    return 1 << (nbytes - 1).bit_length() if nbytes else 0


def bytes_of(kind: Kind) -> int:
    """Bytes of a value."""
    return size_of(kind[1]) * np.dtype(kind[0]).itemsize


def references(value: Any) -> list[int]:
    """The nodes that a node's arguments refer to."""
    if isinstance(value, dict):
        return [value["v"]] if "v" in value else [n for item in value.values() for n in references(item)]
    return [n for item in value for n in references(item)] if isinstance(value, list) else []


def _renumbered(value: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(value, dict):
        if "v" in value:
            return {"v": numbers[value["v"]]}
        return {key: _renumbered(item, numbers) for key, item in value.items()}
    return [_renumbered(item, numbers) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Calls:
    """The calls of one MLGraphBuilder: nodes that refer to earlier ones, the kind of each result, and the outputs.

    An input is ``["input", dtype, shape, number]``; the maker of the calls chooses the numbers.
    """

    nodes: Sequence[Node]
    kinds: Sequence[Kind]
    outputs: Sequence[int]

    @property
    def inputs(self) -> list[tuple[int, int]]:
        """The node and the number of each input."""
        return [(number, node[3]) for number, node in enumerate(self.nodes) if node[0] == "input"]

    @cached_property
    def _references(self) -> list[list[int]]:
        return [references(node) for node in self.nodes]

    @cached_property
    def _bytes(self) -> list[int]:
        return [bytes_of(kind) for kind in self.kinds]

    def is_given(self, node: int) -> bool:
        """Return whether a node is an input or a constant."""
        return self.nodes[node][0] in ("input", "constant")

    @cached_property
    def remade(self) -> frozenset[int]:
        """The nodes that each subgraph makes for itself."""
        found: set[int] = set()
        outputs = set(self.outputs)
        for number, node in enumerate(self.nodes):
            sources = self._references[number]
            if node[0] in REMADE and number not in outputs and all(self.is_given(n) or n in found for n in sources):
                found.add(number)
        return frozenset(found)

    def pruned(self, outputs: Sequence[int]) -> Calls:
        """Return only the nodes that ``outputs`` need, renumbered."""
        needed, waiting = set[int](), list(outputs)
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += self._references[node]
        return self._only(sorted(needed), outputs, ())

    def _only(self, order: Sequence[int], outputs: Iterable[int], brought: Iterable[int]) -> Calls:
        """The nodes of ``order``; those ``brought`` by others before become inputs of the number ``-1 - node``."""
        numbers = {node: number for number, node in enumerate(order)}
        entering = set(brought)
        nodes = [
            ["input", *self._as_input(node)] if node in entering else _renumbered(self.nodes[node], numbers)
            for node in order
        ]
        return Calls(nodes, [self.kinds[node] for node in order], [numbers[node] for node in outputs])

    def _as_input(self, node: int) -> Iterator[Any]:
        dtype, shape = self.kinds[node]
        return iter((dtype, list(shape), -1 - node))

    def with_slices(self, starts: Mapping[int, int], vector: Node) -> Calls:
        """Return the calls with a first node ``vector``, of which the vectors in ``starts`` are slices from there."""
        nodes, numbers = [vector], {node: node + 1 for node in range(len(self.nodes))}
        for node, call in enumerate(self.nodes):
            if node in starts:
                nodes.append(["slice", {"v": 0}, [starts[node]], list(self.kinds[node][1])])
            else:
                nodes.append(call if self.is_given(node) else _renumbered(call, numbers))
        kinds = [(vector[1], tuple(vector[2])), *self.kinds]
        return Calls(nodes, kinds, [numbers[node] for node in self.outputs])

    @cached_property
    def block_bytes(self) -> int:
        """About how many bytes the graph's block takes, rather too many than too few."""
        computed = [number for number in range(len(self.nodes)) if not self.is_given(number)]
        return self._block(computed, set(self.outputs))

    def hidden_bytes(self) -> int:
        """About how many bytes LiteRT keeps for the graph: those of its inputs are in tensors."""
        return self.block_bytes - sum(self._bytes[node] for node, _ in self.inputs)

    def bytes_alone(self, node: int) -> int:
        """The block of a graph that computes one node, and what it remakes for it. Never less in any subgraph."""
        return 0 if node in self.remade or self.is_given(node) else self._block([node], {node})

    def _block(self, nodes: Sequence[int], kept: set[int]) -> int:
        """The block of a graph that computes ``nodes``, in their order, of which ``kept`` stay to the end."""
        own, order = set(nodes), self._with_remade(nodes)
        level: dict[int, int] = {}
        last: dict[int, int] = {}  # level at which a value is needed last
        given: set[int] = set()
        widened: set[int] = set()
        for node in order:
            sources = self._references[node]
            if self.nodes[node][0] != "cast":
                widened.update(source for source in sources if self.kinds[source][0] == "float16")
            level[node] = last[node] = 1 + max((level.get(source, 0) for source in sources), default=0)
            for source in sources:
                if source in level:
                    last[source] = max(last[source], level[node])
                else:
                    given.add(source)
        end = max(level.values(), default=0)
        change = [0] * (end + 2)
        for node in order:
            nbytes = self._bytes[node] * (3 if node in widened else 1)
            change[level[node]] += nbytes
            change[(end if node in kept and node in own else last[node]) + 1] -= nbytes
        brought = sum(self._bytes[node] * (3 if node in widened else 1) for node in given)
        return brought + max(itertools.accumulate(change), default=0)

    def _with_remade(self, nodes: Sequence[int]) -> list[int]:
        """``nodes`` and what they have remade for them, in order."""
        found = set(nodes)
        waiting = list(nodes)
        while waiting:
            for source in self._references[waiting.pop()]:
                if source in self.remade and source not in found:
                    found.add(source)
                    waiting.append(source)
        return sorted(found)

    def subgraphs(self, most: int) -> list[Subgraph]:
        """These calls as graphs whose blocks take at most ``most`` bytes each, as far as single nodes do.

        One graph, else as few as it takes, or many of a quarter of that where all together keep less: equal layers
        become equal graphs, which are built and kept once.
        """
        if self.block_bytes <= most:
            return [Subgraph(self, tuple(self.outputs))]
        return min(self._split(most // 4), self._split(most), key=kept_bytes)

    def _split(self, most: int) -> list[Subgraph]:
        order = [number for number in range(len(self.nodes)) if not self.is_given(number) and number not in self.remade]
        places = {node: place for place, node in enumerate(order)}
        ends = self._last_uses(order, places)
        crossing = self._crossing(order, ends)
        found, start = [], 0
        while start < len(order):

            def fits(end: int, start: int = start) -> bool:
                nodes = order[start:end]
                return self._block(nodes, self._leaving(nodes, end, places, ends)) <= most

            sizes = range(start + 1, len(order) + 1)
            end = start + max(bisect.bisect_left(sizes, True, key=lambda end: not fits(end)), 1)
            if end < len(order):  # where least crosses, in the later half of what fits
                end = min(range(end, start + (end - start) // 2, -1), key=lambda place: crossing[place])
            found.append(self._subgraph(order[start:end], end, places, ends))
            start = end
        return found

    def _last_uses(self, order: Sequence[int], places: Mapping[int, int]) -> dict[int, int]:
        """The place at which each node of ``order`` is needed last; its own if nothing needs it."""
        ends = dict(places)
        for node in order:
            for source in self._references[node]:
                if source in ends:
                    ends[source] = max(ends[source], places[node])
        return ends

    def _crossing(self, order: Sequence[int], ends: Mapping[int, int]) -> list[int]:
        """Bytes of the values that a cut before each place would add to what is stored: outputs are in any case."""
        outputs = set(self.outputs)
        change = [0] * (len(order) + 2)
        for place, node in enumerate(order):
            if node not in outputs:
                change[place + 1] += self._bytes[node]
                change[ends[node] + 1] -= self._bytes[node]
        return list(itertools.accumulate(change))

    def _leaving(self, nodes: Sequence[int], end: int, places: Mapping[int, int], ends: Mapping[int, int]) -> set[int]:
        outputs = set(self.outputs)
        return {node for node in nodes if node in outputs or ends[node] >= end}

    def _subgraph(self, nodes: Sequence[int], end: int, places: Mapping[int, int], ends: Mapping[int, int]) -> Subgraph:
        leaving = sorted(self._leaving(nodes, end, places, ends))
        computed = self._with_remade(nodes)
        given = {source for node in computed for source in self._references[node]} - set(computed)
        brought = [node for node in given if not self.is_given(node)]
        return Subgraph(self._only(sorted({*computed, *given}), leaving, brought), tuple(leaving))


@dataclass(frozen=True)
class Subgraph:
    """One graph of several: its calls, and what its outputs are by the nodes of all the calls.

    An input of a number below 0 is the node ``-1 - number``, which an earlier subgraph gives.
    """

    calls: Calls
    gives: tuple[int, ...]

    @property
    def structure(self) -> str:
        """Everything but the numbers of the inputs: subgraphs of one structure are built once."""
        nodes = [node[:3] if node[0] == "input" else node for node in self.calls.nodes]
        return json.dumps([nodes, list(self.calls.outputs)])


def kept_bytes(subgraphs: Sequence[Subgraph]) -> int:
    """About how many bytes subgraphs keep: their graphs, each once, and the values that cross."""
    graphs = {subgraph.structure: subgraph.calls.hidden_bytes() for subgraph in subgraphs}
    crossing = {
        number: bytes_of(subgraph.calls.kinds[node])
        for subgraph in subgraphs
        for node, number in subgraph.calls.inputs
        if number < 0
    }
    return sum(graphs.values()) + sum(crossing.values())
