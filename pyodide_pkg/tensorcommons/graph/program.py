"""A program: a graph that a device has compiled, run again and again by one call into JavaScript.

What is compiled is the graph's structure. Which storages its leaves are is said by each run, so one program serves
every model of one architecture and every ``a + b`` of one shape. Like a storage it may leave its device and come back:
under memory pressure or with a lost device only the compiled part goes, and the next run makes it from the plan again.

All programs of a device share its arena and therefore run one at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends.base import Computation, Executable, Plan, Spec
from ..backends.device import Device
from ..bridge.runtime import Slices, in_slices, sliced
from ..errors import DeviceMemoryError, InternalError, MemoryBudgetError, ShapeMismatch, TensorCommonsError
from ..sharing.storage import Bundle, Storage, handles_of, using
from . import streaming
from .computation import make_computation
from .elementwise_fusion import chain_elementwise
from .embedding_norm import fuse_embedding_norms
from .fuse import fuse
from .graph import Graph
from .horizontal_fusion import join_products
from .node import Node
from .partition import PartedProgram, bounds_of, parts_of
from .plan import Planned, make_plan
from .profile import open_profile
from .segments import Bounds


class Program:
    """A planned graph. ``nodes`` were traced, ``executed`` are left after merging, ``steps`` after fusion.

    One replay is ``dispatches`` commands, once it is compiled.
    """

    def __init__(
        self, device: Device, structure: str, planned: Planned[Plan] | Planned[Computation], graph: Graph
    ) -> None:
        self.device = device
        self.structure = structure
        self.planned = planned
        self.nodes = graph.traced
        self.executed = graph.executed
        self.steps = len(planned.plan.steps)
        self._leaf_bytes = [leaf.spec.nbytes for leaf in graph.leaves]
        self.output_bytes = sum(planned.plan.output_bytes)
        self.working_bytes = planned.plan.arena_bytes + self.output_bytes
        self._specs = [node.spec for node in graph.outputs]
        for index, spec in zip(planned.outputs, self._specs, strict=True):
            if index < len(planned.specs) and planned.specs[index].nbytes != spec.nbytes:
                raise InternalError(f"an output of {spec} was planned as {planned.specs[index]}")
        self._host = np.zeros(planned.plan.host_bytes, np.uint8)
        self._block = memoryview(self._host)
        self._places = {  # each input as it lies in the host block
            name: np.ndarray(spec.shape, spec.dtype.numpy, self._host, offset)
            for name, (offset, spec) in planned.host_inputs.items()
        }
        self.executable: Executable | None = None
        self._kept_bytes = 0
        self._compiling = asyncio.Lock()
        self._runs = 0
        self._was_run = False

    @property
    def plans(self) -> Sequence[Planned[Any]]:
        """The plan, as the only one."""
        return (self.planned,)

    @property
    def dispatches(self) -> int:
        """Commands of one replay; 0 while it is not compiled."""
        return self.executable.dispatches if self.executable is not None else 0

    @property
    def kept_bytes(self) -> int:
        """Device bytes that it keeps beside the arena while it is compiled; 0 before it was."""
        return self._kept_bytes

    @property
    def uncounted(self) -> tuple[int, int]:
        """Bytes that its device keeps for it beside those that are counted, and their address space."""
        return (self.executable.hidden, self.executable.reserved) if self.executable is not None else (0, 0)

    @property
    def idle_bytes(self) -> int:
        """Device bytes that :meth:`discard` gives back now; 0 while it runs."""
        return self.executable.nbytes if self.executable is not None and not self._runs else 0

    async def compile(self, keep: Sequence[Storage] = ()) -> Executable:
        """Make it ready to run, unless it is. What it takes on the device does not take the place of ``keep``.

        Raises:
            UnsupportedOp: the device has no kernel for one of the nodes; the message names it.
            MemoryBudgetError: what it keeps on the device does not fit.
        """
        async with self._compiling:
            while self.executable is None:
                losses = self.device.losses
                try:
                    executable = await self.device.backend.compile(self.planned.plan)
                    try:
                        self._kept_bytes = executable.nbytes
                        await self.device.budget.ensure(keep, executable.nbytes)
                        self.device.charge(executable.nbytes, "scratch")
                    except BaseException:
                        self.device.backend.discard(executable)
                        raise
                except BaseException:  # the device remembers no program that was not made
                    if self.device.programs.get(self.structure) is self:
                        del self.device.programs[self.structure]
                    raise
                if losses == self.device.losses:
                    self.executable = executable
                else:  # what was compiled went with a device that was lost meanwhile
                    self.device.refund(executable.nbytes, "scratch")
            self.device.keep_program(self)
            return self.executable

    async def run(
        self,
        leaves: Sequence[Storage],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        donated: Collection[int] = (),
        bundle: Bundle | None = None,
    ) -> list[tuple[Storage, Spec]]:
        """Run once over ``leaves``, in the order of the graph's: those of ``bundle``, and others. Gives
        the storage and spec of each of its outputs.

        ``donated`` are the numbers of the leaves that the caller gives up: where the program writes one, that output
        takes over its bytes, unless something else needs them. All others are copied before they are written.

        Raises:
            ShapeMismatch: an input is missing, or has another shape than the program was compiled for.
            TensorReleased: the bytes of a leaf were given back.
            MemoryBudgetError: the outputs or the arena do not fit; nothing ran.
        """
        async with self.device.lock:
            self._runs += 1
            try:
                taken = self._taken(leaves, donated)
                others = leaves if bundle is None else bundle.brought(leaves)
                async with using(others, [leaves[i] for i in taken], bundle):
                    executable, needed = self.executable or await self.compile(leaves), -1
                    while needed != (needed := self.bytes_to_run(taken)):  # arena and spares may leave meanwhile
                        await self.device.budget.ensure(others, needed, bundle)
                        executable = self.executable or await self.compile(leaves)  # if the device was lost meanwhile
                    self.device.keep_program(self)
                    handles = handles_of(leaves) if bundle is None else bundle.handles(leaves)
                    return await self._run(executable, leaves, handles, inputs, taken)
            except DeviceMemoryError:  # the arena may be what could not be made: the next run takes another
                self.device.free_scratch()
                raise
            finally:
                self._runs -= 1
                if self.device.programs.get(self.structure) is not self:  # forgotten while it ran
                    self.discard()

    def _taken(self, leaves: Sequence[Storage], donated: Collection[int]) -> list[int]:
        """The numbers of the leaves that are written where they are."""
        if not donated:
            return []
        uses = Counter(map(id, leaves))  # once: a decoder writes most of its leaves
        return [
            i
            for i in self.planned.plan.written
            if i in donated
            and not leaves[i].is_kept
            and leaves[i].nbytes == self._leaf_bytes[i]
            and uses[id(leaves[i])] == 1
        ]

    def bytes_to_run(self, taken: Collection[int] = ()) -> int:
        """Bytes that a run takes beside its leaves: outputs, copies of leaves that it writes, growth of the arena."""
        plan, device = self.planned.plan, self.device
        copies = sum([self._leaf_bytes[i] for i in plan.written if i not in taken])
        return device.arena_growth(plan.arena_bytes) + self.output_bytes - device.output_pool.bytes_of(self) + copies

    async def _run(
        self,
        executable: Executable,
        leaves: Sequence[Storage],
        handles: list[int],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        taken: Sequence[int],
    ) -> list[tuple[Storage, Spec]]:
        self._write_host(inputs)
        plan, device = self.planned.plan, self.device
        created: list[int] = []
        copies: dict[int, int] = {}
        device.begin_run(executable.nbytes)
        try:
            arena = device.arena(plan.arena_bytes) if plan.arena_bytes else 0
            for i in plan.written:
                if i not in taken:
                    copies[i] = device.allocate(self._leaf_bytes[i], "activations")
                    device.backend.copy(handles[i], 0, copies[i], 0, self._leaf_bytes[i])
                    handles[i] = copies[i]
            device.output_pool.used(self)
            for spec in self.planned.specs:
                created.append(device.adopt(spec, "activations"))
            await device.backend.run(executable, arena, self._block, handles, created)
        except BaseException:
            device.output_pool.drop(self)  # whether the run came to use them is not known
            for handle in created:
                device.disown(handle)
            for handle in copies.values():
                device.free(handle)
            for i in taken:  # some of it may be written
                leaves[i].release()
            raise
        finally:
            device.end_run()
        if self._was_run and device.backend.keeps_spares:
            for number, handle in enumerate(created):
                device.output_pool.made(handle, self, number)
        self._was_run = True
        buffers = [Storage(self.device, *pair) for pair in zip(created, plan.output_bytes, strict=True)]
        for i in plan.written:
            fresh = Storage(self.device, copies[i], self._leaf_bytes[i]) if i in copies else leaves[i].hand_over()
            buffers.append(fresh)
        if (profile := open_profile()) is not None:
            sizes = list(zip(handles, self._leaf_bytes, strict=True))
            await profile.ran(device, self.planned, executable, arena, self._block, sizes)
        return [(buffers[index], spec) for index, spec in zip(self.planned.outputs, self._specs, strict=True)]

    def _write_host(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, place in self._places.items():
            if name not in inputs:
                raise ShapeMismatch(f"input {name} is missing; given: {sorted(inputs)}")
            array = inputs[name]
            if array.shape != place.shape:
                raise ShapeMismatch(f"input {name} has shape {array.shape}, the program takes {place.shape}")
            place[...] = array

    def abandon(self) -> None:
        """Stop counting what the lost device kept."""
        self.device.output_pool.used(self)
        if self.executable is not None:
            self.device.refund(self.executable.nbytes, "scratch")
            self.executable = None

    def discard(self) -> None:
        """Give back what the program holds on its device, unless it is running; the next run compiles it again."""
        if self.executable is not None and not self._runs:
            self.device.output_pool.used(self)  # they go with it
            executable, self.executable = self.executable, None
            self.device.backend.discard(executable)
            self.device.refund(executable.nbytes, "scratch")


@dataclass(eq=False)
class BoundProgram:
    """A program and what its leaves are: storages, and by their places the names of those that each run is given."""

    program: Program | PartedProgram
    leaves: tuple[Storage | None, ...]
    arguments: Mapping[int, str]
    renames: int
    choose: Choice
    revision: int  # of the budget when the program was chosen; -1: choose again
    bundle: Bundle | None = None  # of the storages, from the second run on
    was_run: bool = False

    @property
    def is_outdated(self) -> bool:
        """True if a tensor was written since: what was merged as one computation may be two by now."""
        return self.renames != Storage.renames

    async def run(
        self,
        inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
        arguments: Mapping[str, Storage] | None = None,
        donated: Collection[str] = (),
    ) -> list[tuple[Storage, Spec]]:
        """Run once; see :meth:`Program.run`.

        ``inputs`` are arrays of the host, ``arguments`` storages; those called as in ``donated`` are given up.
        """
        leaves: list[Any] = list(self.leaves)
        for place, name in self.arguments.items():
            if arguments is None or name not in arguments:
                raise TensorCommonsError(
                    "a value that is being traced has no numbers yet: read it outside the function"
                )
            leaves[place] = arguments[name]
        budget = self.choose.device.budget
        if self.revision != budget.revision:
            self.revision, self.program = budget.revision, await self.choose()
        given_up = [place for place, name in self.arguments.items() if name in donated]
        try:
            try:
                return await self._run(leaves, inputs or {}, given_up)
            except DeviceMemoryError:  # the device refused bytes that the budget has
                raise
            except MemoryBudgetError:
                # Values that cannot leave take the room: tensors that are in use, the cache of a generation.
                smaller = await self.choose(budget.held(leaves), streams=True)
                if smaller is self.program or any(leaf.is_released for leaf in leaves):
                    raise
                self.program, self.revision = smaller, -1  # they may be gone by the next run
            return await self._run(leaves, inputs or {}, given_up)
        finally:  # a run without leaves that failed would be the last to keep its program
            self.choose.device.drop_programs()

    async def _run(
        self, leaves: Sequence[Storage], inputs: Mapping[str, np.ndarray[Any, Any]], given_up: Sequence[int]
    ) -> list[tuple[Storage, Spec]]:
        if isinstance(self.program, PartedProgram):
            return await self.program.run(leaves, inputs, given_up)
        if self.was_run and self.bundle is None:
            self.bundle = Bundle(self.program.device, self.leaves)
        self.was_run = True
        return await self.program.run(leaves, inputs, given_up, self.bundle)


async def compile_graph(device: Device, *requests: Sequence[Node]) -> BoundProgram:
    """The program that computes the nodes of all ``requests`` on ``device``: that of the same structure, or a new one.

    What they have in common is computed once. Each request's values have the bits that they have without the others.

    Raises:
        UnsupportedOp: the device has no kernel for one of the nodes; the message names it.
    """
    counts = list(map(len, requests))
    while True:
        renames = Storage.renames
        graph = Graph([node for request in requests for node in request])
        bound = await _compile(
            device, graph, f"{counts} {graph.structure}", lambda graph: fuse(graph, device.backend, counts)
        )
        if renames == Storage.renames:  # else what was merged as one value may be two by now
            return bound


async def compile_fused(device: Device, graph: Graph) -> BoundProgram:
    """:func:`compile_graph` for a graph that is fused already but for its chains."""
    return await _compile(device, graph, f"fused {graph.structure}", lambda graph: graph)


async def _compile_part(device: Device, graph: Graph) -> BoundProgram:
    """:func:`compile_fused` for a graph that is not taken apart any further."""
    return await _compile(device, graph, f"part {graph.structure}", lambda graph: graph, is_part=True)


async def _compile(
    device: Device, graph: Graph, structure: str, fused: Callable[[Graph], Graph], *, is_part: bool = False
) -> BoundProgram:
    renames, revision = Storage.renames, device.budget.revision
    choose = Choice(device, graph, structure, fused, is_part)
    program = await choose()
    arguments = {place: str(leaf.name) for place, leaf in enumerate(graph.leaves) if leaf.storage is None}
    leaves = tuple(leaf.storage for leaf in graph.leaves)
    return BoundProgram(program, leaves, arguments, renames, choose, revision)


@dataclass(eq=False)
class Choice:
    """The program of ``graph`` that suits the memory there is: one that ran before, or a new one."""

    device: Device
    graph: Graph
    structure: str
    fused: Callable[[Graph], Graph]
    is_part: bool  # it is not taken apart any further
    working_bytes: int | None = None  # of a run as one program, beside the leaves; once that was planned
    streaming: dict[int, PartedProgram] = field(default_factory=dict)  # by the bytes of weights that a part may have

    async def __call__(self, held: int = 0, *, streams: bool = False) -> Program | PartedProgram:
        """Choose under the limit and beside the pins that there are now, and ``held`` bytes of other values.

        ``streams``: one that has all weights there at once did not fit.
        """
        program = self._known(held, streams=streams)
        if program is None:
            single, parted, streamed = await in_slices(self._made(held, streams=streams))
            program = self._known(held, streams=streams)  # another run may have made it meanwhile
        if program is not None:
            if isinstance(program, Program):
                await program.compile()
            return program
        if parted is None:
            self.device.keep_program(single)
            await single.compile()
            return single
        if not parted.is_compiled:
            await parted.compile_by(_compile_part)
            self.device.keep_program(parted)
        if streamed:
            self.streaming[streamed] = parted
        return parted

    def _known(self, held: int, *, streams: bool) -> Program | PartedProgram | None:
        """The program that ran before, if it suits."""
        program: Program | PartedProgram | None = self.device.programs.get(self.structure)
        if self.working_bytes is None and program is not None:
            self.working_bytes = program.working_bytes
        if program is not None and (self.is_part or not self._streamed(held, streams=streams)):
            return program
        return None if self.working_bytes is None else self.streaming.get(self._streamed(held, streams=streams))

    def _made(self, held: int, *, streams: bool) -> Slices[tuple[Program, PartedProgram | None, int]]:
        """A new program, what takes its place where it has to run in parts, and the bytes of weights of a part."""
        yield
        whole = self.fused(self.graph)
        yield
        planned = yield from _planned.slices(self.device, whole)
        yield
        single = Program(self.device, self.structure, planned, self.graph)
        self.working_bytes = single.working_bytes
        if self.is_part:
            return single, None, 0
        streamed = self._streamed(held, streams=streams)
        parted = yield from _parted.slices(self.device, self.structure, self.graph, whole, single, streamed)
        return single, parted, streamed

    def _streamed(self, held: int, *, streams: bool) -> int:
        assert self.working_bytes is not None
        return _streamed(self.device, self.graph, self.working_bytes + held, streams=streams)


def outline(device: Device, graph: Graph) -> Program | PartedProgram:
    """The program that :func:`compile_fused` gives under the limit that there is now, planned and not compiled."""
    structure = f"fused {graph.structure}"
    single = Program(device, structure, _planned(device, graph), graph)
    parted = _parted(device, structure, graph, graph, single, _streamed(device, graph, single.working_bytes))
    if parted is None:
        return single
    if not parted.is_compiled:
        parted.plan_by(lambda each, part: Program(each, part.structure, _planned(each, part), part))
    return parted


def _streamed(device: Device, graph: Graph, beside: int, *, streams: bool = False) -> int:
    """The most bytes of weights that a part may have, where those of ``graph`` do not fit all at once; else 0.

    ``beside`` are bytes that are there in any case; with ``streams`` the weights do not fit, whatever these say. Limits
    that differ little give the same parts.
    """
    storages = {leaf.storage for leaf in graph.leaves if leaf.storage is not None}
    weights = sum(storage.nbytes for storage in storages if storage.category == "weights")
    if not weights:
        return 0
    others = sum(leaf.nbytes for leaf in graph.leaves if leaf.storage is None)
    others += sum(storage.nbytes for storage in storages if storage.category != "weights")
    room = device.budget.room(storages) - beside - others
    if weights <= room and not streams:
        return 0
    part = max(min(room, weights) // streaming.PARTS, 1)
    return part >> (rest := max(part.bit_length() - 4, 0)) << rest


@sliced
def _parted(
    device: Device, structure: str, graph: Graph, fused: Graph, single: Program, streamed: int
) -> Slices[PartedProgram | None]:
    """The program in parts, where the device does not take every node and has a fallback, or not all at once."""
    plan, bounds = single.planned.plan, bounds_of(device)
    refused: Mapping[int, str] = {}
    if isinstance(plan, Computation) and device.fallback is not None:
        refused = yield from device.backend.refusals(plan)
    if not refused and not streamed and len(plan.steps) <= bounds.nodes:
        return None
    key = f"{structure} streamed {streamed}" if streamed else structure
    known = device.programs.get(key)
    if isinstance(known, PartedProgram):
        return known
    ops = ((fused.nodes[number].op, reason) for number, reason in refused.items())
    why = {op.name: reason for op, reason in ops if op is not None}

    def bounds_on(each: Device) -> Bounds:
        return replace(bounds_of(each), nbytes=streamed, weigh=_weight_bytes) if streamed else bounds_of(each)

    parts = parts_of(fused, device, device.fallback or device, refused, bounds_on)
    return PartedProgram(device, key, graph, fused, parts, why, single.working_bytes, streams=streamed > 0)


def _weight_bytes(leaf: Node) -> int:
    """The bytes of a leaf that may leave its device."""
    return leaf.nbytes if leaf.storage is not None and leaf.storage.category == "weights" else 0


async def compile_kernels(device: Device, outputs: Sequence[Node]) -> None:
    """Have ``device`` compile the kernels that ``outputs`` take, ahead of need; nothing but them is kept."""
    if not device.backend.takes_graphs:  # those have no kernels to compile
        executable = await device.backend.compile((await in_slices(_kernels(device, outputs))).plan)
        device.backend.discard(executable)


async def misfit(device: Device, outputs: Sequence[Node], weights: Iterable[Spec]) -> str:
    """Say which step of ``outputs`` passes the limits of ``device`` in whatever parts it runs; empty where none does.

    It is looked for where one of the ``weights`` is seen in several bindings.
    """
    backend = device.backend
    if backend.takes_graphs or all(map(backend.binds_whole, weights)):
        return ""
    graph = Graph(outputs)
    found = backend.misfit((await in_slices(_kernels(device, outputs))).plan)
    if found is None:
        return ""
    step, reason = found
    leaves = [graph.leaves[each.place.index] for each in step.inputs if each.place.kind == "leaf"]
    largest = max(leaves, key=lambda leaf: leaf.nbytes, default=None)
    return f"{step.op.name}{f' of {largest.name}' if largest is not None else ''} cannot run there: {reason}"


@dataclass(frozen=True)
class Need:
    """The least memory that a graph can run in: ``nbytes`` while its largest part computes, and how they come about.

    ``weights`` are bytes of that part, ``largest`` the name of the largest of them, of ``largest_bytes``.
    """

    nbytes: int
    weights: int
    largest: str
    largest_bytes: int


@sliced
def least_need(device: Device, outputs: Sequence[Node]) -> Slices[Need]:
    """The least memory for a run of ``outputs``, whose stored leaves are all weights that may come and go."""
    graph = Graph(outputs)
    yield
    fused = fuse(graph, device.backend)
    yield
    parts = parts_of(fused, device, device, {}, lambda each: Bounds(nbytes=1))
    names = [node.name or "" for node in fused.nodes]
    last = {number: turn for turn, part in enumerate(parts) for number in part.needed.values()}
    plans: dict[str, int] = {}
    between, needs = 0, []
    for turn, part in enumerate(parts):
        yield
        structure = part.graph.structure
        if structure not in plans:
            plans[structure] = (yield from _planned.slices(device, part.graph)).plan.arena_bytes
        between += sum(fused.nodes[number].nbytes for number in part.made)
        read = [number for number in part.needed.values() if fused.nodes[number].op is None]
        largest = max(read, key=lambda number: fused.nodes[number].nbytes, default=0)
        weights = sum(fused.nodes[number].nbytes for number in read)
        needs.append(Need(weights + between + plans[structure], weights, names[largest], fused.nodes[largest].nbytes))
        between -= sum(fused.nodes[number].nbytes for number in part.needed.values() if last[number] == turn)
        between += sum(fused.nodes[number].nbytes for number in read if last[number] == turn)
    return max(needs, key=lambda need: need.nbytes)


def bytes_to_run(device: Device, outputs: Sequence[Node]) -> int:
    """Bytes of the arena and the outputs of a run, planned as for a device of kernels; nothing is compiled."""
    backend = device.backend
    plan = make_plan(chain_elementwise(fuse_embedding_norms(fuse(Graph(outputs), backend), backend)), backend).plan
    return plan.arena_bytes + sum(plan.output_bytes)


@sliced
def _planned(device: Device, fused: Graph) -> Slices[Planned[Plan] | Planned[Computation]]:
    """Plan a fused graph as the device compiles it."""
    return make_computation(fused) if device.backend.takes_graphs else (yield from _plan(device, fused))


def _kernels(device: Device, outputs: Sequence[Node]) -> Slices[Planned[Plan]]:
    """Plan ``outputs``, a step a pass over the graph, each of which takes a browser 2 ms a layer of a model."""
    graph = Graph(outputs)
    yield
    graph = fuse(graph, device.backend)
    yield
    return (yield from _plan(device, graph))


def _plan(device: Device, fused: Graph) -> Slices[Planned[Plan]]:
    graph = fuse_embedding_norms(fused, device.backend)
    yield
    graph = chain_elementwise(graph)
    yield
    graph = join_products(graph) if device.backend.steps_cost else graph
    yield
    return make_plan(graph, device.backend)
