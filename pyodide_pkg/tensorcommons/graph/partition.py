"""Parts: a graph that its device does not take, or hold, as a whole runs as several programs, one after another.

What the device refuses runs on its fallback. Nodes have levels: a level is everything of one device that needs nothing
of a later level, so each part is as large as it can be and no two wait for each other. A level that is over the bounds
of its device becomes several parts (:mod:`~.segments`).

What crosses between devices goes through the host, and is counted. Numbers and what is made of them alone do not cross:
they are made wherever they are needed. Views that only the other device reads are its own.

Where the parts together would take longer than everything on the fallback (:func:`cost`), the whole graph moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar
from weakref import ref

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..errors import DeviceLost, DeviceUnavailable
from ..shapes import size_of
from ..sharing.storage import Storage
from ..sharing.transfer import cross
from .boundary import uses_elsewhere
from .graph import Graph
from .node import Node
from .plan import Planned
from .segments import Bounds, segments_of
from .streaming import Residents, Stream, residents_of

T = TypeVar("T")
_Copies: TypeAlias = dict[tuple[int, int], Storage]  # of a run's values, by device (its id) and number
Compile: TypeAlias = "Callable[[Device, Graph], Awaitable[Bound]]"
PartNodes: TypeAlias = "tuple[Device, Sequence[Node]]"  # what a part computes, and where


def _work(node: Node) -> tuple[float, float]:
    """Multiply-adds and elements of a node, as far as they matter for a choice."""
    assert node.op is not None
    elements = max(size_of(node.spec.shape), *(size_of(child.spec.shape) for child in node.inputs), 0)
    products = node.op.multiply_adds([child.spec for child in node.inputs], node.spec, node.attrs)
    return products, 0 if node.op.view is not None else elements


def cost(device: Device, nodes: Sequence[Node], crossing: int) -> float:
    """About how many ms a part of these nodes takes on ``device`` with ``crossing`` bytes brought there."""
    rates, work = device.facts.rates, [_work(node) for node in nodes]
    computing = sum(w[0] for w in work) / rates.multiply_adds + sum(w[1] for w in work) / rates.elements
    return rates.fixed + computing + crossing / rates.crossing_bytes


class Bound(Protocol):
    """A part's program, compiled and bound to its leaves."""

    @property
    def program(self) -> Any:
        """The program."""

    async def run(
        self,
        inputs: Mapping[str, np.ndarray[Any, Any]] | None,
        arguments: Mapping[str, Storage] | None,
        donated: Collection[str],
    ) -> list[tuple[Storage, Spec]]:
        """Run once; see ``program.BoundProgram.run``."""


@dataclass(frozen=True)
class Part:
    """A part that runs as one program: ``graph`` over ``needed`` values, which it takes as arguments of those names.

    Values are known by their nodes' places in the whole graph: a node would keep its storage. ``made`` are those that
    ``graph`` gives, ``nodes`` counts what it computes.
    """

    device: Device
    graph: Graph
    needed: Mapping[str, int]
    made: tuple[int, ...]
    nodes: int


def _levels(graph: Graph, refused: Mapping[int, str]) -> dict[int, int]:
    """The level of each node, by id: even ones for the device, odd ones for the fallback. Free nodes have none."""
    users: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for child in node.inputs:
            users.setdefault(id(child), []).append(node)
    there = {id(node) for number, node in enumerate(graph.nodes) if number in refused}
    outputs = {id(node) for node in graph.outputs}
    for node in reversed(graph.nodes):
        looked_at = users.get(id(node), [])
        is_view = node.op is not None and node.op.view is not None and id(node) not in outputs
        if is_view and looked_at and all(id(user) in there for user in looked_at):
            there.add(id(node))
    levels: dict[int, int] = {}
    free: set[int] = set()
    for node in graph.nodes:
        if node.op is None:
            continue
        if all(id(child) in free for child in node.inputs) and id(node) not in there and id(node) not in outputs:
            free.add(id(node))
            continue
        own = int(id(node) in there)
        before = [levels[id(child)] for child in node.inputs if id(child) in levels]
        levels[id(node)] = max([own, *(level + (level % 2 != own) for level in before)])
    return levels


def bounds_of(device: Device) -> Bounds:
    """The most that ``device`` takes as one program."""
    return Bounds(device.backend.graph_nodes)


def parts_of(
    graph: Graph,
    device: Device,
    fallback: Device,
    refused: Mapping[int, str],
    bounds: Callable[[Device], Bounds] = bounds_of,
) -> list[Part]:
    """The parts of a fused ``graph`` in their order, each within the ``bounds`` of its device.

    ``refused`` says which nodes, by number, the device does not take. Without any, all parts are the device's own.
    """
    levels = _levels(graph, refused)
    split = _nodes_of_parts(graph, levels, device, fallback, bounds)
    if not refused:
        return _cut(graph, split)
    whole = _nodes_of_parts(graph, dict.fromkeys(levels, 1), device, fallback, bounds)
    return min((_cut(graph, nodes) for nodes in (split, whole)), key=lambda parts: sum(map(_cost_of, parts)))


def _nodes_of_parts(
    graph: Graph, levels: Mapping[int, int], device: Device, fallback: Device, bounds: Callable[[Device], Bounds]
) -> list[PartNodes]:
    """List the nodes of each part, in the order in which they run: the segments of each level."""
    nodes: dict[int, list[Node]] = {}
    for node in graph.nodes:  # in this order, none needs a later one
        if id(node) in levels:
            nodes.setdefault(levels[id(node)], []).append(node)
    found = []
    for level in sorted(nodes):
        who = fallback if level % 2 else device
        found += [(who, segment) for segment in segments_of(nodes[level], bounds(who))]
    return found


def _cost_of(part: Part) -> float:
    nodes = [node for node in part.graph.nodes if node.op is not None]
    return cost(part.device, nodes, sum(node.spec.nbytes for node in (*part.graph.leaves, *part.graph.outputs)))


def _cut(graph: Graph, split: Sequence[PartNodes]) -> list[Part]:
    """The part of each of ``split``."""
    part_of = {id(node): index for index, (_, nodes) in enumerate(split) for node in nodes}

    def may_repeat(own: int, users: set[int]) -> bool:
        return all(split[user][0] is split[own][0] for user in users)

    wanted: dict[int, list[Node]] = {}
    for node in uses_elsewhere(graph.nodes, graph.outputs, part_of, may_repeat):
        wanted.setdefault(part_of.get(id(node), 0), []).append(node)
    numbers = {id(node): number for number, node in enumerate(graph.nodes)}
    return [_part(split[index][0], index, wanted[index], part_of, numbers) for index in sorted(wanted)]


def _part(
    device: Device, index: int, made: Sequence[Node], part_of: Mapping[int, int], numbers: Mapping[int, int]
) -> Part:
    """The graph that computes ``made`` from what other parts made and what is stored."""
    needed: dict[str, int] = {}
    renewed: dict[int, Node] = {}
    stack = list(made)
    while stack:
        node = stack[-1]
        outside = node.is_stored or part_of.get(id(node), index) != index
        waiting = [] if outside else [child for child in node.inputs if id(child) not in renewed]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        if id(node) in renewed:
            continue
        if outside:
            name = f"value {len(needed)}"
            needed[name] = numbers[id(node)]
            renewed[id(node)] = Node(None, {}, (), node.spec, name=name, is_stored=True)
        else:
            inputs = tuple(renewed[id(child)] for child in node.inputs)
            renewed[id(node)] = Node(node.op, node.attrs, inputs, node.spec, name=node.name)
    own = Graph([renewed[id(node)] for node in made])
    return Part(device, own, needed, tuple(numbers[id(node)] for node in made), own.executed)


@dataclass
class Traffic:
    """Traffic of one run between devices, in bytes but for the counts ``transfers`` and ``rented`` of them.

    ``moved`` are weights that were brought to the device, and ``resident`` those that stay there between runs;
    ``transferred`` came from one device to another, in ``transfers``, ``rented`` of them without the host.
    """

    moved: int = 0
    resident: int = 0
    transfers: int = 0
    transferred: int = 0
    rented: int = 0


class PartedProgram:
    """A graph that runs in parts, each a program of its device; what :class:`~.program.Program` is for one device.

    Weights that cross stay where they were brought as long as the program keeps what it compiled, and nobody writes or
    releases them. A fallback that is lost and does not come back is replaced by the one after it. With ``streams`` the
    weights come and go (:mod:`~.streaming`). ``working_bytes`` are those of the whole graph's arena and outputs,
    ``traffic`` that of the run that ended last.
    """

    def __init__(
        self,
        device: Device,
        structure: str,
        graph: Graph,
        fused: Graph,
        parts: Sequence[Part],
        why: Mapping[str, str],
        working_bytes: int,
        *,
        streams: bool,
    ) -> None:
        self.device = device
        self.structure = structure
        self.nodes = graph.traced
        self.executed = graph.executed
        self.parts = tuple(parts)
        self.why = dict(why)
        self.working_bytes = working_bytes
        self.streams = streams
        self.steps = sum(part.nodes for part in parts)
        self.traffic = Traffic()
        self.programs: list[Any] = []  # those of the parts
        self._bound: list[Bound] = []
        self._compile: Compile | None = None
        self._kept: dict[tuple[int, str], Storage] = {}  # copies of weights, by device and identity
        self._runs = 0
        numbers = {id(node): number for number, node in enumerate(fused.nodes)}
        self._outputs = [(numbers[id(node)], node.spec) for node in fused.outputs]
        self._leaves = [numbers[id(node)] for node in fused.leaves]
        self._specs = [node.spec for node in fused.nodes]
        self._needs = [set(part.needed.values()) for part in parts]
        self._ends: list[set[int]] = [set() for _ in parts]  # values that no later part needs, nor the caller
        later = {number for number, _ in self._outputs}
        for index in range(len(parts) - 1, -1, -1):
            self._ends[index] = (self._needs[index] | set(parts[index].made)) - later
            later |= self._needs[index]
        self._residents: dict[Any, Residents] = {}

    @property
    def plans(self) -> Sequence[Planned[Any]]:
        """Plans of the parts."""
        return [plan for program in self.programs for plan in program.plans]

    @property
    def dispatches(self) -> int:
        """Commands of one run, of all parts."""
        return sum(program.dispatches for program in self.programs)

    @property
    def devices(self) -> list[dict[str, Any]]:
        """Devices with the number of nodes that each runs, in order; ``why`` says what the first one does not take."""
        return [{"device": part.device.kind, "nodes": part.nodes} for part in self.parts]

    @property
    def uncounted(self) -> tuple[int, int]:
        """None: the parts' programs are their devices' own."""
        return 0, 0

    @property
    def idle_bytes(self) -> int:
        """Bytes of the weights' copies that :meth:`discard` gives back; the parts' programs are their devices' own."""
        return 0 if self._runs else sum(copy.nbytes for copy in self._kept.values() if copy.is_resident)

    def bytes_to_run(self, taken: Collection[int] = ()) -> int:
        """Bytes that a run takes on the program's own device beside its leaves."""
        return sum(program.bytes_to_run() for program in self.programs if program.device is self.device)

    async def compile_by(self, compile_part: Compile) -> None:
        """Have every part compiled. Raises as a program does."""
        self._compile = compile_part
        await self._finding_fallbacks(self._compiled)

    async def _compiled(self) -> None:
        assert self._compile is not None
        self._bound = [await self._compile(part.device, part.graph) for part in self.parts]
        self.programs = [bound.program for bound in self._bound]

    @property
    def is_compiled(self) -> bool:
        """True if :meth:`compile_by` is done."""
        return bool(self._bound)

    def plan_by(self, plan_part: Callable[[Device, Graph], Any]) -> None:
        """Have every part planned, to look at it: the program cannot run."""
        made: dict[tuple[Device, str], Any] = {}
        for part in self.parts:
            key = part.device, part.graph.structure
            if key not in made:
                made[key] = plan_part(part.device, part.graph)
            self.programs.append(made[key])

    async def _finding_fallbacks(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``; again where a fallback was lost and came back, or another took its place."""
        while True:
            try:
                return await work()
            except (DeviceLost, DeviceUnavailable):
                lost = {part.device for part in self.parts if part.device.backend.is_lost} - {self.device}
                if not lost or self.device.backend.is_lost:
                    raise
                for device in lost:
                    await self._replace(device)

    async def _replace(self, lost: Device) -> None:
        try:
            await lost.recover()
        except DeviceUnavailable:
            other = self.device.fallback
            if other is None:
                raise
            self.parts = tuple(replace(p, device=other) if p.device is lost else p for p in self.parts)
            await self._finding_fallbacks(self._compiled)

    async def run(
        self,
        leaves: Sequence[Storage],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        donated: Collection[int] = (),
    ) -> list[tuple[Storage, Spec]]:
        """Run all parts; raises as a program does. Outputs are on the program's own device."""
        self._runs += 1
        try:
            return await self._finding_fallbacks(lambda: self._run(leaves, inputs, donated))
        finally:
            self._runs -= 1
            if self.device.programs.get(self.structure) is not self:  # forgotten while it ran
                self.discard()

    async def _run(
        self, leaves: Sequence[Storage], inputs: Mapping[str, np.ndarray[Any, Any]], donated: Collection[int]
    ) -> list[tuple[Storage, Spec]]:
        values = dict(zip(self._leaves, leaves, strict=True))
        copies, traffic, last = _Copies(), Traffic(), self._last_uses()
        given_up = self._given_up(leaves, donated)
        stream = self._stream(values, traffic) if self.streams else None
        try:
            for index, (part, bound) in enumerate(zip(self.parts, self._bound, strict=True)):
                arguments = {
                    name: await self._on(part.device, number, values[number], copies, traffic)
                    for name, number in part.needed.items()
                }
                if stream is not None:
                    await stream.begin(index, bound.program.bytes_to_run())
                ends = self._ends[index]
                results = await bound.run(
                    inputs, arguments, [name for name, number in part.needed.items() if number in given_up & ends]
                )
                if stream is not None:
                    stream.ran(index)
                values.update({number: storage for number, (storage, _) in zip(part.made, results, strict=True)})
                for number in ends:  # their bytes go back with the last reference
                    del values[number]
                for number in part.needed.values():
                    if last[id(part.device), number] == index:
                        copies.pop((id(part.device), number), None)
                del arguments, results
            outputs = [
                (await self._on(self.device, number, values[number], copies, traffic), spec)
                for number, spec in self._outputs
            ]
        except BaseException:  # a traceback that is kept would keep them
            for number in values.keys() - set(self._leaves):
                values[number].release()
            for copy in set(copies.values()) - set(self._kept.values()):
                copy.release()
            raise
        finally:
            if stream is not None:
                traffic.moved = stream.moved
                await stream.close()
        self.traffic = traffic
        return outputs

    def _last_uses(self) -> dict[tuple[int, int], int]:
        """Find, by device (its id) and value, the last part there that needs it; for an output the number of parts."""
        last = {
            (id(part.device), each): index for index, part in enumerate(self.parts) for each in part.needed.values()
        }
        return last | {(id(self.device), number): len(self.parts) for number, _ in self._outputs}

    def _given_up(self, leaves: Sequence[Storage], donated: Collection[int]) -> set[int]:
        """The numbers of the leaves that a part may write where they are: those that are given up, for one part."""
        if not donated or any(part.device is not self.device for part in self.parts):
            return set()
        uses = Counter(map(id, leaves))
        parts = Counter(number for needs in self._needs for number in needs)
        places = [place for place in donated if uses[id(leaves[place])] == 1]
        return {self._leaves[place] for place in places if parts[self._leaves[place]] == 1}

    def _stream(self, values: Mapping[int, Storage], traffic: Traffic) -> Stream:
        """List the bytes that a run over the leaves ``values`` brings to the device, part by part."""
        reads, found = self.residents(values)
        traffic.resident = sum(values[number].nbytes for number in found.weights)
        stay = {values[number] for number in found.weights}
        return Stream(self.device, [[values[number] for number in part] for part in reads], stay, found.alone)

    def residents(self, leaves: Mapping[int, Storage]) -> tuple[list[list[int]], Residents]:
        """The weights of ``leaves`` that each part reads on the device, by number, and which of them stay there.

        A part on the fallback reads copies, which come from wherever the weights are.
        """
        weights = {number for number, storage in leaves.items() if storage.category == "weights"}
        reads = [
            [number for number in part.needed.values() if number in weights and part.device is self.device]
            for part in self.parts
        ]
        others = sum(storage.nbytes for number, storage in leaves.items() if number not in weights)
        room = self.device.budget.room(set(leaves.values())) - others
        key = room, frozenset(weights)
        if key not in self._residents:
            sizes = {number: leaves[number].nbytes for number in weights}
            rooms = [room - nbytes for nbytes in self._taken_beside()]
            self._residents = {key: residents_of(reads, sizes, rooms)}
        return reads, self._residents[key]

    def _taken_beside(self) -> list[int]:
        """Bytes of each part beside its leaves: what the programs keep, the arena, values between parts, and copies."""
        programs: list[Any] = list(dict.fromkeys(self.programs))
        kept = max((program.working_bytes - program.output_bytes for program in programs), default=0)
        kept += sum(program.kept_bytes for program in programs)
        between, taken, leaves, last = 0, [], set(self._leaves), self._last_uses()
        home = dict.fromkeys(self._leaves, self.device)
        copies: set[tuple[int, int]] = set()
        for index, (part, ends) in enumerate(zip(self.parts, self._ends, strict=True)):
            home |= dict.fromkeys(part.made, part.device)
            here = {(id(part.device), number) for number in part.needed.values() if home[number] is not part.device}
            between += sum(self._specs[number].nbytes for number in part.made)
            between += sum(self._specs[number].nbytes for _, number in here - copies)
            copies |= here
            taken.append(kept + between)
            between -= sum(self._specs[number].nbytes for number in ends if number not in leaves)
            gone = {key for key in here if last[key] == index}
            between -= sum(self._specs[number].nbytes for _, number in gone)
            copies -= gone
        return taken

    async def _on(self, device: Device, number: int, storage: Storage, copies: _Copies, traffic: Traffic) -> Storage:
        """A value on ``device``: brought there once a run, and a weight once."""
        if storage.device is device:
            return storage
        key = (id(device), number)
        if key not in copies:
            weight = (id(device), storage.identity) if storage.is_known and storage.category == "weights" else None
            known = self._kept.get(weight) if weight is not None else None
            if known is None or not known.is_resident:
                known, way = await cross(storage, device, "weights" if weight else "activations", self._specs[number])
                traffic.transfers += 1
                traffic.transferred += known.nbytes
                traffic.rented += way == "rented"
                if weight is not None and not self.streams:
                    self._keep(weight, known, storage)
            copies[key] = known
        return copies[key]

    def _keep(self, weight: tuple[int, str], copy: Storage, original: Storage) -> None:
        """Keep the copy of a weight until that is written or released."""
        self._kept[weight] = copy
        program = ref(self)

        def drop() -> None:
            if (known := program()) is not None:
                known._kept.pop(weight, None)

        original.when_changed(drop)

    def abandon(self) -> None:
        """The parts' devices know of their own losses; the weights' copies there are as good as they were."""

    def discard(self) -> None:
        """Give the weights' copies back; the parts' devices keep and discard their programs."""
        if not self._runs:
            self._kept.clear()
