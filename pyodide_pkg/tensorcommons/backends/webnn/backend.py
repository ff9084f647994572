"""The WebNN device: lowers a computation to one description of a graph, which the browser builds and runs."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...bridge.byte_buffer import ByteBuffer, Data, part_of
from ...bridge.runtime import Slices, at_once, in_slices
from ...bridge.webnn import WebNNBridge
from ...errors import DeviceMemoryError, TensorCommonsError
from ...shapes import Layout, size_of
from ..backend import Backend, DeviceKind
from ..base import TIMED, BlockSpec, Command, Computation, Executable, Op, Probe, Range, Spec, Timing, Work
from ..facts import Facts, Rates
from ..webgpu.backend import WebGPUBackend
from .builder import GraphBuilder
from .constants import Constants, RowGraph
from .decoding import decoding_stages
from .description import Description, tensor_kind
from .fields import BLOCKS, Fields
from .lowering import lower, lower_supported
from .lowering.context import LoweringContext
from .multicore import stages_of
from .pages import with_places
from .probes import probes
from .splitting import (
    GRAPH_BYTES,
    HIDDEN_BYTES,
    RESERVED_BYTES,
    TENSORS_BYTES,
    Calls,
    reserved,
)

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
    block_formats = frozenset(BLOCKS)
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
        kinds = [(handle, tensor_kind(spec) if spec is not None else ("uint8", (nbytes,)))]
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

    def _described(self, plan: Computation) -> Slices[tuple[Description, str]]:
        """Return the description that ``webnn.js`` builds from, and its text."""
        with_facts = with_places(plan)
        stages = decoding_stages(with_facts)
        described = Description(plan if stages is None else with_facts, self.most)
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
        return probes(nbytes)

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


async def _open(wish: str) -> WebNNBackend:
    return WebNNBackend(await WebNNBridge.open(wish))


# The processors that a context can be requested for; "" is the browser's choice.
KIND = DeviceKind(WebNNBackend.kind, _open, ("cpu", "gpu", "npu", ""))
