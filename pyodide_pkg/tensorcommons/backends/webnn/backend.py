"""The WebNN device: lowers a computation to one description of a graph, which the browser builds and runs."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...bridge.byte_buffer import ByteBuffer, Data, part_of
from ...bridge.runtime import Slices, at_once, in_slices
from ...bridge.webnn import WebNNBridge
from ...dtypes import float32
from ...errors import DeviceMemoryError, TensorCommonsError
from ...shapes import Layout, Shape, size_of
from ..backend import Backend, DeviceKind
from ..base import TIMED, BlockSpec, Command, Computation, Executable, Op, Probe, Range, Spec, Timing, Value, Work
from ..facts import Facts, Rates
from ..webgpu.backend import WebGPUBackend
from .builder import EMPTY, GraphBuilder
from .constants import Constants, RowGraph
from .decoding import constant_weights, decoding_stages
from .fields import Fields, field_tensors
from .lowering import lower, lower_supported, physical
from .lowering.context import LoweringContext
from .multicore import WHOLE, Slot, Stage, stages_of
from .pages import with_places
from .splitting import (
    GRAPH_BYTES,
    HIDDEN_BYTES,
    RESERVED_BYTES,
    TENSORS_BYTES,
    Calls,
    Kind,
    Subgraph,
    bytes_of,
    reserved,
)

AXES = 8  # of an MLTensor in Chromium
SMALL = 2**14  # bytes of a vector that is packed with others
MANY = 16  # such vectors of a graph, from which on that pays
SIDE = 512  # of the matrices of a probe: 268 million operations
# As the ops of these names: only their names are needed of them here.
NEGATIVE = Op("negative", lambda specs, attrs: specs[0], lambda x: -x)
PRODUCT = Op("matmul", lambda specs, attrs: specs[0], lambda a, b: a @ b)
WISHES = {"": "the browser's choice of device"}


@dataclass(frozen=True)
class Built(Executable):
    """A built program: its id on the JavaScript side."""

    id: int


class WebNNBackend(Backend[Built]):
    """One MLContext behind the bridge. ``op_limits`` is the result of its ``opSupportLimits()``.

    ``no_constant_tensors`` is the reason for which it has no ``createConstantTensor``; empty where it has one.
    """

    kind = "webnn"
    facts = Facts(
        rank=1,
        fallback_rank=1,
        what="used where there is no hardware GPU",
        why="no hardware GPU was found",
        rates=Rates(1.1, 4e7, 1e6, 5e5),
        granularity=4,
    )
    takes_graphs = True
    reads_whole = True
    keeps_spares = True
    graph_nodes = 1000  # the browser takes 0.3 s for these, 19 s for four times as many, and cannot be stopped
    most_hidden, most_reserved = HIDDEN_BYTES, RESERVED_BYTES

    def __init__(self, bridge: WebNNBridge) -> None:
        self.bridge = bridge
        self.name = f"WebNN, asked for {WISHES.get(bridge.wish, bridge.wish)}"
        self.is_software = bridge.wish == "cpu"
        self.most = GRAPH_BYTES  # bytes that one graph, or one tensor, may take
        self.limits = {"maxTensorByteLength": min(int(bridge.limits.get("maxTensorByteLength", 2**31 - 1)), self.most)}
        self.op_limits = bridge.limits
        self.no_constant_tensors = bridge.no_constants
        self.features = (f"{bridge.cores} cores", f"constant tensors: {bridge.no_constants or 'yes'}")
        self.cores = bridge.cores if self.is_software else 1  # LiteRT runs a graph on one of them
        self._ids = itertools.count(1)
        self.constants = Constants(bridge, self._with_constants, lambda nbytes: self.count_constants(nbytes))
        self._fields = Fields()
        # of the last plan that was checked, if nothing of it is refused, until one is compiled or described
        self._lowered: tuple[Computation, LoweringContext] | None = None
        self._spaces: dict[int, int] = {}  # address space of each tensor that was allocated, by handle
        self._space = 0  # of all of them

    @property
    def calls(self) -> int:
        return self.bridge.calls

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        self._check_size(nbytes)
        space = self._space + reserved(nbytes)
        if space > TENSORS_BYTES:
            reason = f"all tensors would reserve {space:,} bytes, and a tab has {TENSORS_BYTES:,} for tensors"
            raise DeviceMemoryError("webnn", f"a tensor of {nbytes:,} bytes", reason, nbytes, TENSORS_BYTES)
        kinds = [(handle, _tensor(spec) if spec is not None else ("uint8", (nbytes,)))]
        if isinstance(spec, BlockSpec):
            kinds = list(self._fields.make(handle, spec))
        for number, (dtype, shape) in kinds:
            self.bridge.create(number, dtype, shape)
        self._spaces[handle] = reserved(nbytes)
        self._space = space

    def _check_size(self, nbytes: int) -> None:
        limit = self.limits["maxTensorByteLength"]
        if nbytes > limit:  # the browser says only that the tab crashed
            reason = f"it takes {nbytes:,} bytes, and one tensor of this context at most {limit:,}"
            raise DeviceMemoryError("webnn", "a tensor", reason, nbytes, limit)

    @property
    def constant_bytes(self) -> int:
        return self.constants.nbytes

    def drop_constants(self) -> None:
        self.constants.drop_oldest()

    def free(self, handle: int) -> None:
        self.constants.forget(handle)
        self._space -= self._spaces.pop(handle, 0)
        for number in self._fields.drop(handle):
            self.bridge.destroy(number)

    def write(self, handle: int, offset: int, data: Data) -> None:
        self.constants.forget(handle)
        for number, at, start, stop in self._fields.ranges(handle, offset, data.nbytes):
            self.bridge.write(number, at, part_of(data, start, stop))

    def fill(self, handle: int, offset: int, data: Data) -> None:
        self.constants.forget(handle)
        for number, at, start, stop in self._fields.ranges(handle, offset, data.nbytes):
            self.bridge.fill(number, at, part_of(data, start, stop))

    def spare(self, executable: Built, number: int, handle: int) -> None:
        self._space -= self._spaces.pop(handle, 0)
        self.bridge.spare(executable.id, number, handle)

    def drop_spares(self, executable: Built) -> None:
        self.bridge.drop_spares(executable.id)

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        cut = [self._fields.ranges(*each) for each in ranges]
        parts = [(number, at, stop - start) for each in cut for number, at, start, stop in each]
        found = iter(await self.bridge.read(parts))
        result = []
        for (_, _, nbytes), own in zip(ranges, cut, strict=True):
            pieces = [next(found) for _ in own]
            whole = pieces[0] if len(pieces) == 1 and pieces[0].nbytes == nbytes else memoryview(b"".join(pieces))
            result.append(whole if whole.nbytes == nbytes else memoryview(bytes(whole).ljust(nbytes, b"\0")))
        return result

    async def check(self, handles: Sequence[int]) -> None:
        await self.bridge.check([*handles, *self._fields.beside(handles)])

    async def read_block(self, handle: int, offset: int, nbytes: int) -> ByteBuffer:
        ranges = self._fields.ranges(handle, offset, nbytes)
        if len(ranges) == 1 and ranges[0][3] == nbytes:
            return await self.bridge.read_block(*ranges[0][:2], nbytes)
        return await super().read_block(handle, offset, nbytes)

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        self.constants.forget(target)
        for number, at, start, stop in self._fields.ranges(source, source_offset, nbytes):
            for other, to, first, end in self._fields.ranges(target, target_offset + start, stop - start):
                self.bridge.copy(number, at + first, other, to, end - first)

    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        return True

    def refusal(self, tensors: Mapping[str, Spec]) -> str:
        limit = self.limits["maxTensorByteLength"]
        for name, spec in tensors.items():
            if spec.nbytes > limit:
                return f"{name} takes {spec.nbytes:,} bytes, and one tensor of this WebNN at most {limit:,}"
            if isinstance(spec, BlockSpec) and (wide := 9 * size_of(spec.weight_shape)) > self.most:
                return (
                    f"{name} takes {wide:,} bytes in a graph that widens it, which may take {self.most:,} on this WebNN"
                )
            if spec.dtype.name == "float16" and 3 * spec.nbytes > self.most:
                copy, both = 2 * spec.nbytes, 3 * spec.nbytes
                return (
                    f"{name} takes {spec.nbytes:,} bytes and its float32 copy {copy:,}, {both:,} in one graph, "
                    f"which may take {self.most:,} on this WebNN"
                )
        space = sum(reserved(spec.nbytes) for spec in tensors.values())
        if space > TENSORS_BYTES:
            return f"its tensors reserve {space:,} bytes, each a power of two, and a tab has {TENSORS_BYTES:,} for them"
        return ""

    def refusals(self, plan: Computation) -> Slices[Mapping[int, str]]:
        lowering = yield from lower_supported.slices(plan, self._builder())
        self._lowered = None if lowering.why else (plan, lowering)
        return lowering.why or {}

    def _builder(self, constants: Collection[int] = ()) -> GraphBuilder:
        return GraphBuilder(self.op_limits, wide_halves=self.is_software, most=self.most, constants=constants)

    def _with_constants(self, graph: RowGraph) -> Slices[Calls]:
        """Lower a graph with its weights as constants."""
        builder = self._builder({graph.values[place] for place in graph.weights})
        lowering = yield from lower.slices(graph.computation, builder)
        return builder.finished([lowering.operands[number] for number in graph.results])

    async def compile(self, plan: Computation) -> Built:
        for nbytes in plan.output_bytes:
            self._check_size(nbytes)
        described, text = await in_slices(self._described(plan))
        if described.reserved > self.most_reserved:
            reason = f"its graphs reserve {described.reserved:,} bytes, and a tab has {self.most_reserved:,} for graphs"
            raise DeviceMemoryError("webnn", "a program", reason, described.reserved, self.most_reserved)
        built = Built(
            sum(not stage["once"] for stage in described.stages),
            described.nbytes,
            next(self._ids),
            hidden=described.hidden,
            reserved=described.reserved,
        )
        wanted = True

        def tell(done: int, total: int) -> bool:
            if wanted:
                self.on_build(done, total)
            return wanted

        self.make_way(described.hidden, described.reserved)
        building = asyncio.ensure_future(self.bridge.build(built.id, text, tell))
        try:
            await asyncio.wait([building])
        except asyncio.CancelledError:  # it stops after the graph that is being built, and keeps nothing
            wanted = False
            with suppress(TensorCommonsError):
                await building
            raise
        building.result()
        self.constants.add(built.id, described.row_graphs)
        return built

    def _described(self, plan: Computation) -> Slices[tuple[_Description, str]]:
        """Return the description that ``webnn.js`` builds from, and its text."""
        with_facts = with_places(plan)
        stages = decoding_stages(with_facts)
        described = _Description(plan if stages is None else with_facts, self.most)
        stages = stages or stages_of(plan, self.cores)
        known, self._lowered = self._lowered, None
        last = {slot: stage.level for stage in stages for slot in stage.needs}
        for level, own in itertools.groupby(stages, lambda stage: stage.level):
            for stage in own:
                if known is not None and known[0] is stage.computation:
                    lowering = known[1]
                else:
                    lowering = yield from lower.slices(stage.computation, self._builder())
                yield from described.add(stage, lowering, packs=len(stages) == 1)
            described.free(slot for slot in described.held if last.get(slot, level) <= level)
        yield
        return described, json.dumps(described.as_dict(), allow_nan=False)

    async def run(
        self, executable: Built, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        self.constants.before_run(executable.id, leaves)
        queued = self.bridge.run(executable.id, host, [*leaves, *self._fields.beside(leaves)], outputs)
        if queued is None:
            return
        running = asyncio.ensure_future(queued)
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:  # it stays queued: the outputs exist and are not used
            await running
            for handle in outputs:
                self.bridge.destroy(handle)
            raise
        running.result()

    def commands(self, plan: Computation) -> Iterator[Command]:
        described, _ = at_once(self._described(plan))
        keys = [hashlib.sha256(key.encode()).hexdigest() for key in described.graphs]
        for stage, (computation, part, parts) in zip(described.stages, described.sources, strict=True):
            if stage["once"]:  # runs do not dispatch it again
                continue
            values = computation.values
            work = tuple(
                Work(value.op, value.attrs, given, given, value.spec)
                for value in values
                if value.op is not None
                for given in (tuple(values[child].spec for child in value.inputs),)
            )
            yield Command(work, "MLGraph", keys[stage["graph"]], part, parts)

    async def time(
        self,
        executable: Built,
        classes: Sequence[int],
        arena: int,
        host: memoryview,
        leaves: Sequence[int],
        outputs: Sequence[int],
    ) -> dict[int, Timing]:
        handles = [*leaves, *self._fields.beside(leaves), *outputs]
        timing = asyncio.ensure_future(self.bridge.time(executable.id, classes, TIMED, host, handles))
        try:
            await asyncio.wait([timing])
            return {number: Timing(ms) for number, ms in timing.result()}
        finally:  # its graphs use the tensors until it is done
            await asyncio.wait([timing])
            del timing

    def probes(self, nbytes: int) -> tuple[Probe, Probe]:
        flat = Spec((max(nbytes // 8, 1),), float32)
        square = Spec((min(math.isqrt(flat.shape[0]), SIDE),) * 2, float32)
        return (
            Probe(_single(NEGATIVE, flat, 1), 2 * flat.nbytes, (flat,)),
            Probe(_single(PRODUCT, square, 2), 2 * square.shape[0] ** 3, (square, square)),
        )

    def discard(self, executable: Built) -> None:
        self.constants.remove(executable.id)
        self.bridge.discard(executable.id)

    async def wait(self) -> None:
        await self.constants.settled()
        await self.bridge.wait()

    def close(self) -> None:
        self._lowered = None
        self.constants.clear()
        self.bridge.close()

    async def lending(self, other: Backend[Any]) -> str:
        if not isinstance(other, WebGPUBackend):
            return await super().lending(other)
        return await self.bridge.lending(other.bridge)

    async def lend(self, handle: int, other: Backend[Any], target: int, nbytes: int, *, give: bool) -> None:
        assert isinstance(other, WebGPUBackend)
        if not give:
            self.constants.forget(handle)
        await self.bridge.lend(handle, other.bridge, target, nbytes, give=give)

    @property
    def is_lost(self) -> bool:
        return self.bridge.is_lost

    @property
    def loss(self) -> str:
        return self.bridge.loss

    async def reopen(self) -> None:
        await self.bridge.reopen()
        self._spaces.clear()
        self._fields.clear()
        self._space = 0
        self._lowered = None
        self.constants.clear()
        self.op_limits = self.bridge.limits

    def live_buffers(self) -> int:
        return self.bridge.live()


def _single(op: Op, spec: Spec, leaves: int) -> Computation:
    """One operation on ``leaves`` values, with a result of their spec."""
    given = [Value(None, {}, (), spec, index) for index in range(leaves)]
    return Computation((*given, Value(op, {}, tuple(range(leaves)), spec)), (leaves,), 0, leaves)


class _Description:
    """Description of a program for ``webnn.js``, made while its stages are added in their order.

    Between stages values lie in tensors of the program. One that no later level needs is taken again.
    """

    def __init__(self, plan: Computation, most: int) -> None:
        self.plan = plan
        self.most = most  # bytes of one graph
        self.hidden = self.reserved = 0  # bytes that LiteRT keeps for all graphs, and their address space
        self.graphs: dict[str, dict[str, Any]] = {}
        self.sources: list[tuple[Computation, int, int]] = []  # of each stage: its computation, part and parts
        self.stages: list[dict[str, Any]] = []
        self.row_graphs: list[RowGraph] = []  # those of a decoding step that multiply by weights
        self.fixed: list[tuple[str, Shape]] = []
        self.host: dict[int, tuple[int, int]] = {}  # by offset in the block: the fixed tensor, and bytes
        self.nbytes = 0
        self._beside: dict[int, int] = {}  # by leaf: the first handle of a run for its fields but the first
        after = plan.leaves
        for value in sorted((each for each in plan.values if each.op is None and not each.host), key=_index):
            self._beside[value.index] = after
            if isinstance(value.spec, BlockSpec):
                after += len(field_tensors(value.spec.format, value.spec.weight_shape)) - 1
        self._first_output = after  # among the handles of a run
        self._places: dict[Slot, int] = {}
        self._free: dict[tuple[str, Shape], list[int]] = {}

    @property
    def held(self) -> list[Slot]:
        """The slots that lie in tensors of the program."""
        return list(self._places)

    def free(self, slots: Iterable[Slot]) -> None:
        """Let later levels write to the tensors of ``slots``, which none of them needs."""
        for slot in slots:
            place = self._places.pop(slot)
            self._free.setdefault(self.fixed[place], []).append(place)

    def add(self, stage: Stage, lowering: LoweringContext, *, packs: bool) -> Slices[None]:
        """Add the graphs of ``stage``; with ``packs`` its small leaves are one tensor, see :meth:`_packed`."""
        values = stage.computation.values
        stored = [(slot, number) for slot, number in zip(stage.gives, stage.computation.outputs, strict=True)]
        stored = [(slot, number) for slot, number in stored if lowering.operands[number].node != EMPTY]
        calls = lowering.b.finished([lowering.operands[number] for _, number in stored])
        yield
        if not calls.nodes:
            return
        place, calls = self._packed(stage, calls) if packs else (-1, calls)
        targets = {
            node: self._target(slot, values[number].spec)
            for node, (slot, number) in zip(calls.outputs, stored, strict=True)
        }
        targets[len(calls.nodes)] = -1 - place  # what the vector's input refers to
        subgraphs = calls.subgraphs(self.most)
        yield
        weights = constant_weights(stage.computation) if stage.rows and len(subgraphs) == 1 else set()
        if weights:
            results = [number for _, number in stored]
            self.row_graphs.append(self._row_graph(stage, subgraphs[0], weights, results, targets))
        crossing: dict[int, int] = {}  # places of what a subgraph gives to later ones, by node
        for place, subgraph in enumerate(subgraphs):
            inputs = [
                (node, self._source(stage, values[number], subgraph.calls.kinds[node]))
                if number >= 0
                else (node, targets[-1 - number])
                for node, number in subgraph.calls.inputs
            ]
            for node in subgraph.gives:
                if node not in targets:
                    crossing[node] = self._place(calls.kinds[node], bytes_of(calls.kinds[node]))
                    targets[node] = -1 - crossing[node]
            outputs = [
                (node, targets[given]) for node, given in zip(subgraph.calls.outputs, subgraph.gives, strict=True)
            ]
            self._dispatch(stage, subgraph, inputs, outputs)
            self.sources.append((stage.computation, place, len(subgraphs)))
            yield
            later = {-1 - number for each in subgraphs[place + 1 :] for _, number in each.calls.inputs}
            for node in [node for node in crossing if node not in later]:
                self._free.setdefault(calls.kinds[node], []).append(crossing.pop(node))

    def _packed(self, stage: Stage, calls: Calls) -> tuple[int, Calls]:
        """Add a graph that makes one vector of many small leaves; return its place, and ``calls`` that slice it.

        A page's thread takes 4 µs for each input of a graph, and a model has a hundred biases and norms. The vector is
        made again only where one of these leaves is another one or was written.
        """
        values = stage.computation.values
        small = [
            (node, number)
            for node, number in calls.inputs
            if not values[number].host and calls.kinds[node][0] == "float32" and len(calls.kinds[node][1]) == 1
            if bytes_of(calls.kinds[node]) <= SMALL
        ]
        if len(small) < MANY:
            return -1, calls
        sizes = [calls.kinds[node][1][0] for node, _ in small]
        vector = Spec((sum(sizes),), float32)
        leaves = [values[number] for _, number in small]
        kinds = [*(calls.kinds[node] for node, _ in small), _tensor(vector)]
        concat = ["concat", [{"v": node} for node in range(len(small))], 0]
        place = self._new(_tensor(vector), vector.nbytes)
        self._dispatch(
            stage,
            Subgraph(Calls([*(calls.nodes[node] for node, _ in small), concat], kinds, [len(small)]), (len(small),)),
            [(node, self._source(stage, leaf, kinds[node])) for node, leaf in enumerate(leaves)],
            [(len(small), -1 - place)],
            once=True,
        )
        self.sources.append((stage.computation, 0, 1))
        starts = dict(zip((node for node, _ in small), itertools.accumulate(sizes, initial=0), strict=False))
        return place, calls.with_slices(starts, ["input", "float32", [sum(sizes)], -2 - len(calls.nodes)])

    def _row_graph(
        self, stage: Stage, subgraph: Subgraph, weights: set[int], results: Sequence[int], targets: Mapping[int, int]
    ) -> RowGraph:
        calls, values = subgraph.calls, stage.computation.values
        numbers = tuple(number for _, number in calls.inputs)
        return RowGraph(
            len(self.stages),
            stage.computation,
            subgraph.structure,
            slots=tuple(self._source(stage, values[number], calls.kinds[node]) for node, number in calls.inputs),
            values=numbers,
            weights=tuple(place for place, number in enumerate(numbers) if number in weights),
            results=tuple(results),
            outputs=tuple(targets[node] for node in subgraph.gives),
        )

    def _dispatch(
        self,
        stage: Stage,
        subgraph: Subgraph,
        inputs: list[tuple[int, int]],
        outputs: list[tuple[int, int]],
        *,
        once: bool = False,
    ) -> None:
        """Add a graph and its dispatch. Layers that differ in their weights only are one graph, for each of the parts
        that run side by side."""
        nodes, results = subgraph.calls.nodes, subgraph.calls.outputs
        key = f"{stage.part} {subgraph.structure}"
        if key not in self.graphs:
            self.hidden += subgraph.calls.hidden_bytes()
            self.reserved += reserved(subgraph.calls.block_bytes)
        graph = self.graphs.setdefault(key, {"index": len(self.graphs), "nodes": nodes, "outputs": results})
        self.stages.append({"graph": graph["index"], "once": once, "inputs": inputs, "outputs": outputs})

    def _source(self, stage: Stage, value: Value, kind: Kind) -> int:
        if value.host:
            if value.index not in self.host:
                self.host[value.index] = (self._new(_tensor(value.spec), value.spec.nbytes), value.spec.nbytes)
            return -1 - self.host[value.index][0]
        slot = stage.needs[value.index]
        source = self.plan.values[slot[0]]
        if source.op is None:
            place = 0
            if isinstance(source.spec, BlockSpec):
                place = field_tensors(source.spec.format, source.spec.weight_shape).index(kind)
            return source.index if not place else self._beside[source.index] + place - 1
        return self._output(slot) if slot not in self._places else -1 - self._places[slot]

    def _target(self, slot: Slot, spec: Spec) -> int:
        if slot[1] == WHOLE and slot[0] in self.plan.outputs:
            return self._output(slot)
        self._places[slot] = self._place(_tensor(spec), spec.nbytes)
        return -1 - self._places[slot]

    def _place(self, tensor: Kind, nbytes: int) -> int:
        """A tensor of the program for what a later graph needs: one that nothing needs any more, or a new one."""
        free = self._free.get(tensor)
        return free.pop() if free else self._new(tensor, nbytes)

    def _output(self, slot: Slot) -> int:
        return self._first_output + self.plan.outputs.index(slot[0])

    def _new(self, tensor: tuple[str, Shape], nbytes: int) -> int:
        self.fixed.append(tensor)
        self.nbytes += nbytes
        return len(self.fixed) - 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "fixed": self.fixed,
            "host": [(place, offset, nbytes) for offset, (place, nbytes) in self.host.items()],
            "outputs": [_tensor(self.plan.values[number].spec) for number in self.plan.outputs],
            "graphs": list(self.graphs.values()),
            "stages": self.stages,
        }


def _index(value: Value) -> int:
    return value.index


def _tensor(spec: Spec) -> tuple[str, Shape]:
    """An MLTensor's dtype and shape; what has more axes than any lies flat, for other devices to compute with."""
    shape = spec.shape if len(spec.shape) <= AXES else (size_of(spec.shape),)
    return physical(spec.dtype), shape


async def _open(wish: str) -> WebNNBackend:
    return WebNNBackend(await WebNNBridge.open(wish))


# The processors that a context can be requested for; "" is the browser's choice.
KIND = DeviceKind(WebNNBackend.kind, _open, ("cpu", "gpu", "npu", ""))
