"""Plans: a graph's steps in order, with a place in memory for every value.

Values that are not outputs live in the arena (:mod:`~.arena`) from the step that writes them to the last step that
reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..backends.backend import Backend
from ..backends.base import COPY, Attributes, Computation, Op, Operand, Place, Plan, Spec, Step
from ..shapes import Layout, size_of
from .arena import Life, align, lower_bound, pack
from .graph import Graph
from .node import Node
from .views import own_layout, owner_of


def _infer_part(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    shape = attrs["shape"]
    assert isinstance(shape, tuple)
    return Spec(tuple(map(int, shape)), specs[0].dtype)  # type: ignore[arg-type]


# One of the values that a step writes side by side, from element ``start`` on: it takes no step, and its place is a
# part of theirs. Each begins at a multiple of the alignment, and no two overlap.
PART = Op("part", _infer_part, lambda x, start, shape: x.reshape(-1)[start : start + size_of(shape)].reshape(shape))


def place_host(graph: Graph) -> tuple[dict[str, tuple[int, Spec]], int]:
    """Place the host's inputs side by side: the offset and spec of each by name, and the bytes of all."""
    places: dict[str, tuple[int, Spec]] = {}
    nbytes = 0
    for node in graph.nodes:
        if node.op is None and not node.is_stored:
            places[str(node.name)] = nbytes, node.spec
            nbytes += align(node.spec.nbytes)
    return places, nbytes


P_co = TypeVar("P_co", Plan, Computation, covariant=True)


@dataclass(frozen=True)
class Planned(Generic[P_co]):
    """A plan with what the caller needs to run and to describe it.

    ``host_inputs`` maps an input's name to its offset in the host block; ``outputs`` holds for each of the graph's
    outputs the index of the buffer that holds it, dense and row-major: of those that are created, then of the leaves
    that are written. ``specs`` are those of the created buffers.
    """

    plan: P_co
    host_inputs: dict[str, tuple[int, Spec]]
    outputs: tuple[int, ...]
    specs: tuple[Spec, ...]
    arena_lower_bound: int
    intermediate_bytes: int


def make_plan(graph: Graph, backend: Backend[Any]) -> Planned[Plan]:
    """Plan ``graph`` for ``backend``."""
    return _Planner(graph, backend).planned()


@dataclass
class Draft:
    """A step before places are known: ``inputs`` are owners with layouts, ``layout`` is how ``target`` is written."""

    op: Op
    attrs: Attributes
    inputs: list[tuple[Node, Layout]]
    target: Node
    layout: Layout


def _written_as(node: Node) -> Node:
    """The value that a step writes: what a part is a part of."""
    return node.inputs[0] if node.op is PART else node


class _Planner:
    """One walk over the graph; the fields are what the walk collects."""

    def __init__(self, graph: Graph, backend: Backend[Any]) -> None:
        self.graph = graph
        self.backend = backend
        self.drafts: list[Draft] = []
        self.drafted: set[Node] = set()  # targets
        self.uses = graph.uses()
        self.copies: dict[Node, Node] = {}
        self.output_index: dict[Node, int] = {}
        self.stored: list[Spec] = []
        self.leaves = {node: number for number, node in enumerate(graph.leaves)}
        self.written: dict[Node, int] = {}  # outputs that are written over a leaf: its number
        self.places = {node: Place("leaf", self.leaves[node], 0, node.nbytes) for node in graph.leaves}

    def planned(self) -> Planned[Plan]:
        outputs = [self._claim_output(node) for node in self.graph.outputs]
        for node in self.graph.nodes:
            if node.op is not None and node.op is not PART and owner_of(node)[0] is node:
                self._draft(node)
        for node, holder in dict.fromkeys(outputs):
            if holder is not owner_of(node)[0]:
                self._draft_copy(node, holder)
        host, host_bytes = place_host(self.graph)
        for node in self.graph.nodes:
            if node.op is None and not node.is_stored:
                self.places[node] = Place("arena", 0, host[str(node.name)][0], node.spec.nbytes)
        lives = self._place_values(host_bytes)
        steps = tuple(self._step(draft) for draft in self.drafts)
        arena = max([host_bytes, *(life.offset + life.nbytes for life in lives)])
        stored = tuple(spec.nbytes for spec in self.stored)
        plan = Plan(steps, arena, host_bytes, len(self.graph.leaves), stored, tuple(self.written.values()))
        return Planned(
            plan,
            host,
            tuple(self._number(holder) for _, holder in outputs),
            tuple(self.stored),
            host_bytes + lower_bound(lives),
            sum(life.nbytes for life in lives),
        )

    def _claim_output(self, node: Node) -> tuple[Node, Node]:
        """The node whose buffer will be the output: its owner, or a dense copy where the owner shows something else."""
        holder, layout = owner_of(node)
        whole = layout == Layout.contiguous(layout.shape) and layout.size == size_of(holder.spec.shape)
        if holder.op is None or holder.op is PART or not whole:
            holder = self._copy_node(node)
        if holder not in self.output_index and holder not in self.written:
            if self._may_write_leaf(holder):
                self.written[holder] = self.leaves[holder.inputs[0]]
            else:
                self.output_index[holder] = len(self.stored)
                self.stored.append(holder.spec)
        return node, holder

    def _may_write_leaf(self, node: Node) -> bool:
        """Return whether ``node`` writes into a stored value that nothing else here needs."""
        if node.op is None or not node.op.in_place or not node.inputs[0].is_stored:
            return False
        return self.uses[node.inputs[0]] == 1

    def _number(self, holder: Node) -> int:
        if holder in self.written:
            return len(self.stored) + list(self.written).index(holder)
        return self.output_index[holder]

    def _copy_node(self, node: Node) -> Node:
        return self.copies.setdefault(node, Node(COPY, {}, (node,), node.spec))

    def _draft_copy(self, node: Node, target: Node) -> None:
        """A step that writes what ``node`` shows to ``target``, row-major; once."""
        if target not in self.drafted:
            owner, layout = owner_of(node)
            self._add(Draft(COPY, {}, [(owner, layout)], target, Layout.contiguous(layout.shape)))

    def _add(self, draft: Draft) -> None:
        self.drafts.append(draft)
        self.drafted.add(draft.target)

    def _draft(self, node: Node) -> None:
        """One step for ``node``, after the copies of those inputs that its kernel cannot read in place."""
        assert node.op is not None
        if node.op.view is not None:  # a view that no layout expresses is a copy of its input in row-major order
            self._draft_copy(node.inputs[0], node)
            return
        inputs = []
        for position, child in enumerate(node.inputs):
            source, layout = owner_of(child)
            if not layout.is_dense and not self.backend.accepts_layout(node.op, position, layout):
                target = self._copy_node(child)
                self._draft_copy(child, target)
                source, layout = target, Layout.contiguous(child.spec.shape)
            inputs.append((source, layout))
        if node.op.in_place and node not in self.written:
            self._add(Draft(COPY, {}, inputs[:1], node, own_layout(node)))
            inputs[0] = node, own_layout(node)
        self._add(Draft(node.op, node.attrs, inputs, node, own_layout(node)))

    def _place_values(self, reserved: int) -> list[Life]:
        lives: dict[Node, Life] = {}
        for index, draft in enumerate(self.drafts):
            target = draft.target
            if target in self.written:
                self.places[target] = self.places[target.inputs[0]]
            elif target in self.output_index:
                number = self.output_index[target]
                self.places[target] = Place("output", number, 0, target.spec.nbytes)
            else:
                lives.setdefault(target, Life(align(target.spec.nbytes), index, index))
            for source, _ in draft.inputs:
                value = _written_as(source)
                if value in lives:
                    lives[value].last = index
        pack(list(lives.values()), reserved, self.backend.buffer_bytes)
        for key, life in lives.items():
            self.places[key] = Place("arena", 0, life.offset, life.nbytes)
        return list(lives.values())

    def _place_of(self, source: Node) -> Place:
        place = self.places[_written_as(source)]
        if source.op is not PART:
            return place
        start = source.attrs["start"]
        assert isinstance(start, int)
        return replace(place, offset=place.offset + start * source.spec.dtype.itemsize, nbytes=source.spec.nbytes)

    def _step(self, draft: Draft) -> Step:
        inputs = tuple(Operand(self._place_of(source), view, source.spec.dtype) for source, view in draft.inputs)
        output = Operand(self.places[draft.target], draft.layout, draft.target.spec.dtype)
        return Step(draft.op, draft.attrs, inputs, output)
