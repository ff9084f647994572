"""A program: a graph that a device has compiled, run again and again by one call into JavaScript.

Programs are cached on their device by graph identity, so two models that need the same computation hold one program.
All programs of a device share its arena and therefore run one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends.base import Executable, Spec
from ..backends.device import Device
from ..errors import DeviceLost, ShapeMismatch, TensorCommonsError, TensorReleased
from ..sharing.storage import Storage, using
from .fuse import fuse
from .graph import Graph
from .node import Node
from .plan import Planned, make_plan


class ProgramEvictedError(TensorCommonsError):
    """A program was discarded for its bytes while it waited for its turn; the caller compiles it again."""


class Program:
    """A compiled graph. ``nodes`` were traced, ``executed`` are left after merging, ``steps`` after fusion.

    One replay is ``dispatches`` commands.
    """

    def __init__(self, device: Device, planned: Planned, executable: Executable, graph: Graph) -> None:
        device.charge(executable.nbytes, "scratch")
        self.device = device
        self.planned = planned
        self.nodes = graph.traced
        self.executed = graph.executed
        self.steps = len(planned.plan.steps)
        self.dispatches = executable.dispatches
        self._executable: Executable | None = executable
        self._specs = [node.spec for node in graph.outputs]
        self._host = np.zeros(planned.plan.host_bytes, np.uint8)
        self._storages = [node.storage for node in graph.nodes if node.storage is not None]
        self._identities = [storage.identity for storage in self._storages]
        self.is_discarded = False
        self.is_evicted = False
        self._in_run = False
        self._lost = False

    @property
    def idle_bytes(self) -> int:
        """Device bytes that :meth:`discard` gives back now; 0 while it runs."""
        return self._executable.nbytes if self._executable is not None and not self._in_run else 0

    @property
    def has_released_weights(self) -> bool:
        """Whether a weight that the program needs is gone."""
        return any(storage.is_released for storage in self._storages)

    @property
    def is_outdated(self) -> bool:
        """Whether a tensor that it reads was written: it no longer computes what it is cached as."""
        return [storage.identity for storage in self._storages] != self._identities

    async def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[tuple[Storage, Spec]]:
        """Run once. Gives each output's storage and spec, in the order of the graph's outputs.

        Raises:
            ShapeMismatch: an input is missing, or has another shape than the program was compiled for.
            MemoryBudgetError: the outputs or the arena do not fit; nothing ran.
        """
        async with self.device.lock:
            if self._lost:
                raise DeviceLost(f"the {self.device.kind} device was lost while a program waited for its turn")
            if self.is_evicted:
                raise ProgramEvictedError("the program left under memory pressure; compile it again")
            if self.is_discarded:
                raise TensorReleased("a weight of this program was released; load the model again")
            self._in_run = True
            try:
                with using(list(self._storages)):
                    if self.device.ensure is not None:
                        await self.device.ensure(self._storages, self._bytes_to_run())
                    if self.is_discarded:  # the device was lost and came back; the caller compiles again
                        raise DeviceLost(f"the {self.device.kind} device was lost while a program waited for it")
                    return await self._run(inputs)
            finally:
                self._in_run = False
                if self.is_discarded:
                    self.discard()
                if not self.device.programs:
                    self.device.free_arena()

    def _bytes_to_run(self) -> int:
        """What a run takes beside its weights: its outputs, and what the arena has to grow by."""
        return self.device.arena_growth(self.planned.plan.arena_bytes) + sum(self.planned.plan.output_bytes)

    async def _run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[tuple[Storage, Spec]]:
        self._write_host(inputs)
        plan = self.planned.plan
        arena = self.device.arena(plan.arena_bytes) if plan.arena_bytes else 0
        handles: list[int] = []
        try:
            for nbytes in plan.output_bytes:
                handles.append(self.device.adopt(nbytes, "activations"))
            await self.device.backend.run(self._executable, arena, memoryview(self._host), handles)
        except BaseException:
            for handle in handles:
                self.device.disown(handle)
            raise
        buffers = [Storage(self.device, *pair) for pair in zip(handles, plan.output_bytes, strict=True)]
        return [(buffers[index], spec) for index, spec in zip(self.planned.outputs, self._specs, strict=True)]

    def _write_host(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, (offset, spec) in self.planned.host_inputs.items():
            if name not in inputs:
                raise ShapeMismatch(f"input {name} is missing; given: {sorted(inputs)}")
            array = np.ascontiguousarray(inputs[name], spec.dtype.numpy)
            if array.shape != spec.shape:
                raise ShapeMismatch(f"input {name} has shape {array.shape}, the program takes {spec.shape}")
            self._host[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)

    def abandon(self) -> None:
        """What the device kept went with it: nothing to give back but the count."""
        self.is_discarded = self._lost = True
        if self._executable is not None:
            self.device.refund(self._executable.nbytes, "scratch")
            self._executable = None
        self._storages.clear()

    def discard(self) -> None:
        """Give back what the compiled program holds on its device; at the end of the run, if one is under way."""
        self.is_discarded = True
        if not self._in_run and self._executable is not None:
            executable, self._executable = self._executable, None
            self.device.backend.discard(executable)
            self.device.refund(executable.nbytes, "scratch")
            self._storages.clear()


async def compile_graph(device: Device, outputs: Sequence[Node], *, keep: bool = True) -> Program:
    """The program that computes ``outputs`` on ``device``: from the cache, or compiled now.

    With ``keep=False`` it is a new one that the caller discards.

    Raises:
        UnsupportedOp: the device has no kernel for one of the nodes; the message names it.
    """
    graph = Graph(outputs)
    key = hashlib.sha256("".join(node.identity for node in graph.outputs).encode()).hexdigest()
    if keep and key in device.programs:
        found: Program = device.programs[key]
        if not found.is_outdated:
            return found
        del device.programs[key]
        found.is_evicted = True  # who waits for it compiles again
        found.discard()
    planned = make_plan(fuse(graph), device.backend)
    executable = await device.backend.compile(planned.plan)
    try:
        if device.ensure is not None:
            await device.ensure([], executable.nbytes)
        program = Program(device, planned, executable, graph)
    except BaseException:
        device.backend.discard(executable)
        raise
    if keep:
        first: Program = device.programs.setdefault(key, program)
        if first is not program:  # somebody else compiled it meanwhile
            program.discard()
        return first
    return program
