"""The WebNN device: lowers a computation to one description of a graph, which the browser builds and runs."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...bridge.blocks import Data
from ...bridge.webnn import WebNNBridge
from ...errors import TensorCommonsError
from ...shapes import Layout, Shape, size_of
from ..base import Backend, Computation, Executable, Op, Range, Spec, Value
from ..webgpu.backend import WebGPUBackend
from .builder import EMPTY
from .cores import WHOLE, Slot, Stage, stages_of
from .lowering import lower, physical, refusals
from .lowering.rule import Lowering

AXES = 8  # of an MLTensor in Chromium
WISHES = {"": "the browser's choice of device"}


@dataclass(frozen=True)
class Built(Executable):
    """A built program: its id on the JavaScript side."""

    id: int


class WebNNBackend(Backend[Built]):
    """One MLContext behind the bridge. ``op_limits`` is what ``opSupportLimits()`` said of it.

    ``no_constant_tensors`` is why it has no ``createConstantTensor``, and empty where it has.
    """

    kind = "webnn"
    takes_graphs = True
    keeps_spares = True
    graph_nodes = 4000  # building a graph takes the browser's memory, and cannot be stopped

    def __init__(self, bridge: WebNNBridge) -> None:
        self.bridge = bridge
        self.name = f"WebNN, asked for {WISHES.get(bridge.wish, bridge.wish)}"
        self.is_software = bridge.wish == "cpu"
        self.limits = {"maxTensorByteLength": int(bridge.limits.get("maxTensorByteLength", 2**31 - 1))}
        self.op_limits = bridge.limits
        self.no_constant_tensors = bridge.no_constants
        self.cores = bridge.cores if self.is_software else 1  # LiteRT runs a graph on one of them
        self._ids = itertools.count(1)

    @property
    def calls(self) -> int:
        return self.bridge.calls

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        self._check_size(nbytes)
        dtype, shape = _tensor(spec) if spec is not None else ("uint8", (nbytes,))
        self.bridge.create(handle, dtype, shape)

    def _check_size(self, nbytes: int) -> None:
        limit = self.limits["maxTensorByteLength"]
        if nbytes > limit:
            raise TensorCommonsError(f"{nbytes:,} bytes in one tensor pass this context's limit of {limit:,} bytes")

    def free(self, handle: int) -> None:
        self.bridge.destroy(handle)

    def write(self, handle: int, offset: int, data: Data) -> None:
        self.bridge.write(handle, offset, data)

    def spare(self, executable: Built, number: int, handle: int) -> None:
        self.bridge.spare(executable.id, number, handle)

    def drop_spares(self, executable: Built) -> None:
        self.bridge.drop_spares(executable.id)

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        return await self.bridge.read(ranges)

    def copy(self, source: int, source_offset: int, target: int, target_offset: int, nbytes: int) -> None:
        self.bridge.copy(source, source_offset, target, target_offset, nbytes)

    def accepts_layout(self, op: Op, position: int, layout: Layout) -> bool:
        return True

    def refusals(self, plan: Computation) -> dict[int, str]:
        return refusals(plan, self.op_limits, wide_halves=self.is_software)

    async def compile(self, plan: Computation) -> Built:
        for nbytes in plan.output_bytes:
            self._check_size(nbytes)
        description, count, kept = self._described(plan)
        built = Built(count, kept, next(self._ids))
        wanted = True

        def tell(done: int, total: int) -> bool:
            if wanted:
                self.on_build(done, total)
            return wanted

        building = asyncio.ensure_future(self.bridge.build(built.id, json.dumps(description, allow_nan=False), tell))
        try:
            await asyncio.wait([building])
        except asyncio.CancelledError:  # it stops after the graph that is being built, and keeps nothing
            wanted = False
            with suppress(TensorCommonsError):
                await building
            raise
        building.result()
        return built

    def _described(self, plan: Computation) -> tuple[dict[str, Any], int, int]:
        """What ``webnn.js`` builds, how many dispatches it is, and the bytes that it keeps."""
        described = _Description(plan)
        stages = stages_of(plan, self.cores)
        for level in dict.fromkeys(stage.level for stage in stages):
            own = [(stage, self._lowered(stage.computation)) for stage in stages if stage.level == level]
            described.add(own, [stage for stage in stages if stage.level > level])
        return described.as_dict(), len(described.stages), described.nbytes

    def _lowered(self, computation: Computation) -> Lowering:
        return lower(computation, self.op_limits, wide_halves=self.is_software)

    async def run(
        self, executable: Built, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        queued = self.bridge.run(executable.id, host, [*leaves, *outputs])
        if queued is None:
            return
        running = asyncio.ensure_future(queued)
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:  # it is queued all the same: the outputs are there, and nobody wants them
            await running
            for handle in outputs:
                self.bridge.destroy(handle)
            raise
        running.result()

    def discard(self, executable: Built) -> None:
        self.bridge.discard(executable.id)

    async def wait(self) -> None:
        await self.bridge.wait()

    def close(self) -> None:
        self.bridge.close()

    async def lending(self, other: Backend[Any]) -> str:
        if not isinstance(other, WebGPUBackend):
            return await super().lending(other)
        return await self.bridge.lending(other.bridge)

    async def lend(self, handle: int, other: Backend[Any], target: int, nbytes: int, *, give: bool) -> None:
        assert isinstance(other, WebGPUBackend)
        await self.bridge.lend(handle, other.bridge, target, nbytes, give=give)

    @property
    def is_lost(self) -> bool:
        return self.bridge.is_lost

    @property
    def loss(self) -> str:
        return self.bridge.loss

    async def reopen(self) -> None:
        await self.bridge.reopen()
        self.op_limits = self.bridge.limits

    def live_buffers(self) -> int:
        return self.bridge.live()


class _Description:
    """What ``webnn.js`` is told of a program, while its stages are added in their order.

    Between stages values lie in tensors of the program. One that no later level needs is taken again.
    """

    def __init__(self, plan: Computation) -> None:
        self.plan = plan
        self.graphs: dict[str, dict[str, Any]] = {}
        self.stages: list[dict[str, Any]] = []
        self.fixed: list[tuple[str, Shape]] = []
        self.host: dict[int, tuple[int, int]] = {}  # by offset in the block: the fixed tensor, and bytes
        self.nbytes = 0
        self._places: dict[Slot, int] = {}
        self._free: dict[tuple[str, Shape], list[int]] = {}

    def add(self, level: Sequence[tuple[Stage, Lowering]], later: Sequence[Stage]) -> None:
        """The graphs of one level; ``later`` are those of the levels after it."""
        for stage, lowering in level:
            self._add(stage, lowering)
        needed = {slot for stage in later for slot in stage.needs}
        for slot in [slot for slot in self._places if slot not in needed]:
            place = self._places.pop(slot)
            self._free.setdefault(self.fixed[place], []).append(place)

    def _add(self, stage: Stage, lowering: Lowering) -> None:
        values = stage.computation.values
        stored = [(slot, number) for slot, number in zip(stage.gives, stage.computation.outputs, strict=True)]
        stored = [(slot, number) for slot, number in stored if lowering.operand(number).node != EMPTY]
        nodes, inputs, results = lowering.b.finished([lowering.operand(number) for _, number in stored])
        slots = [(node, self._source(stage, values[number])) for node, number in inputs]
        targets = [
            (node, self._target(slot, values[number].spec))
            for node, (slot, number) in zip(results, stored, strict=True)
        ]
        if nodes:  # layers that differ in their weights only are one graph, for each of the parts that run side by side
            key = json.dumps([_unnumbered(nodes), results, stage.part])
            graph = self.graphs.setdefault(key, {"index": len(self.graphs), "nodes": nodes, "outputs": results})
            self.stages.append({"graph": graph["index"], "inputs": slots, "outputs": targets})

    def _source(self, stage: Stage, value: Value) -> int:
        if value.host:
            if value.index not in self.host:
                self.host[value.index] = (self._new(_tensor(value.spec), value.spec.nbytes), value.spec.nbytes)
            return -1 - self.host[value.index][0]
        slot = stage.needs[value.index]
        source = self.plan.values[slot[0]]
        if source.op is None:
            return source.index
        return self._output(slot) if slot not in self._places else -1 - self._places[slot]

    def _target(self, slot: Slot, spec: Spec) -> int:
        if slot[1] == WHOLE and slot[0] in self.plan.outputs:
            return self._output(slot)
        free = self._free.get(_tensor(spec))
        self._places[slot] = free.pop() if free else self._new(_tensor(spec), spec.nbytes)
        return -1 - self._places[slot]

    def _output(self, slot: Slot) -> int:
        return self.plan.leaves + self.plan.outputs.index(slot[0])

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


def _unnumbered(nodes: list[list[Any]]) -> list[list[Any]]:
    """The nodes without the numbers of what is given to them."""
    return [node[:3] if node[0] == "input" else node for node in nodes]


def _tensor(spec: Spec) -> tuple[str, Shape]:
    """An MLTensor's dtype and shape; what has more axes than any lies flat, for other devices to compute with."""
    shape = spec.shape if len(spec.shape) <= AXES else (size_of(spec.shape),)
    return physical(spec.dtype), shape
