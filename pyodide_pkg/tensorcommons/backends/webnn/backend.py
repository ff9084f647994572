"""The WebNN device: lowers a computation to one description of a graph, which the browser builds and runs."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...bridge.webnn import WebNNBridge
from ...errors import TensorCommonsError
from ...shapes import Layout, Shape, size_of
from ..base import Backend, Computation, Executable, Op, Range, Spec
from .builder import EMPTY
from .lowering import lower, physical, refusals

AXES = 8  # of an MLTensor in Chromium
WISHES = {"": "the browser's choice of device"}


@dataclass(frozen=True)
class Built(Executable):
    """A built program: its id on the JavaScript side."""

    id: int


class WebNNBackend(Backend[Built]):
    """One MLContext behind the bridge. ``op_limits`` is what ``opSupportLimits()`` said of it."""

    kind = "webnn"
    takes_graphs = True

    def __init__(self, bridge: WebNNBridge) -> None:
        self.bridge = bridge
        self.name = f"WebNN, asked for {WISHES.get(bridge.wish, bridge.wish)}"
        self.is_software = bridge.wish == "cpu"
        self.limits = {"maxTensorByteLength": int(bridge.limits.get("maxTensorByteLength", 2**31 - 1))}
        self.op_limits = bridge.limits
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

    def write(self, handle: int, offset: int, data: memoryview) -> None:
        self.bridge.write(handle, offset, data)

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
        building = asyncio.ensure_future(self.bridge.build(built.id, json.dumps(description)))
        try:
            await asyncio.shield(building)
        except asyncio.CancelledError:  # JavaScript finishes anyway: wait for it, then take back what it kept
            await building
            self.bridge.discard(built.id)
            raise
        return built

    def _described(self, plan: Computation) -> tuple[dict[str, Any], int, int]:
        """What ``webnn.js`` builds, how many dispatches it is, and the bytes that it keeps."""
        lowering = lower(plan, self.op_limits, wide_halves=self.is_software)
        stored = [(i, lowering.operand(number)) for i, number in enumerate(plan.outputs)]
        stored = [(i, operand) for i, operand in stored if operand.node != EMPTY]
        nodes, inputs, results = lowering.b.finished([operand for _, operand in stored])
        fixed: list[tuple[str, Shape]] = []
        host, slots = [], []
        for node, number in inputs:
            value = plan.values[number]
            slots.append((node, value.index))
            if value.host:
                slots[-1] = (node, -1 - len(fixed))
                host.append((len(fixed), value.index, value.spec.nbytes))
                fixed.append(_tensor(value.spec))
        stage = {
            "nodes": nodes,
            "inputs": slots,
            "outputs": [(node, plan.leaves + i) for node, (i, _) in zip(results, stored, strict=True)],
        }
        description = {
            "fixed": fixed,
            "host": host,
            "outputs": [_tensor(plan.values[number].spec) for number in plan.outputs],
            "stages": [stage] if nodes else [],
        }
        return description, len(results) and 1, sum(nbytes for _, _, nbytes in host)

    async def run(
        self, executable: Built, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        running = asyncio.ensure_future(self.bridge.run(executable.id, host, [*leaves, *outputs]))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:  # it is queued all the same: the outputs are there, and nobody wants them
            await running
            for handle in outputs:
                self.bridge.destroy(handle)
            raise

    def discard(self, executable: Built) -> None:
        self.bridge.discard(executable.id)

    async def wait(self) -> None:
        await self.bridge.wait()

    def close(self) -> None:
        self.bridge.close()

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


def _tensor(spec: Spec) -> tuple[str, Shape]:
    """An MLTensor's dtype and shape; what has more axes than any lies flat, for other devices to compute with."""
    shape = spec.shape if len(spec.shape) <= AXES else (size_of(spec.shape),)
    return physical(spec.dtype), shape
