"""Programs: graphs compiled for a device, each replayed by one call into JavaScript.

A program is compiled from the structure of a graph, and each run passes the storages of its leaves, so one program
serves every model of one architecture and every ``a + b`` of one shape. Like a storage it can be evicted: under memory
pressure or with a lost device only the compiled part goes, and the next run compiles the plan again.

All programs of a device share its arena and therefore run one at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Computation, Executable, Plan, Spec
from ..backends.device import Device
from ..errors import DeviceMemoryError, InternalError, ShapeMismatch
from ..sharing.lock import Bundle, handles_of, using
from ..sharing.storage import Storage
from .graph import Graph
from .plan import Planned
from .profile import Profile, ProgramRun


@dataclass(frozen=True)
class Chain:
    """Several runs in one call: each but the first reads the output ``output`` of the one before as its leaf ``leaf``.

    ``inputs`` are the host arrays of each run.
    """

    inputs: Sequence[Mapping[str, np.ndarray[Any, Any]]]
    output: int
    leaf: int


class Program:
    """A planned graph. ``nodes`` were traced, ``executed`` are left after merging, ``steps`` after fusion.

    One replay is ``dispatches`` commands, once it is compiled. Beside the arena it keeps ``kept_bytes`` on the device,
    which are 0 before the first compilation. ``plans`` is the plan, as a sequence of one.
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
        self.kept_bytes = 0
        self.plans: Sequence[Planned[Any]] = (planned,)
        self._compiling = asyncio.Lock()
        self._runs = 0
        self._was_run = False

    @property
    def dispatches(self) -> int:
        """Commands of one replay; 0 while it is not compiled."""
        return self.executable.dispatches if self.executable is not None else 0

    @property
    def uncounted(self) -> tuple[int, int]:
        """Bytes that the device keeps for it and that are not counted, and their address space."""
        return (self.executable.hidden, self.executable.reserved) if self.executable is not None else (0, 0)

    @property
    def idle_bytes(self) -> int:
        """Device bytes that :meth:`discard` would free now; 0 while it runs."""
        return self.executable.nbytes if self.executable is not None and not self._runs else 0

    async def compile(self, keep: Sequence[Storage] = ()) -> Executable:
        """Compile the plan, unless it is compiled. The storages ``keep`` are not evicted for it.

        Raises:
            UnsupportedOp: the device has no kernel for one of the nodes; the message names it.
            MemoryBudgetError: what it keeps on the device does not fit.
        """
        self.device.keep_program(self)  # so that another run of the structure waits for it
        async with self._compiling:
            while self.executable is None:
                losses = self.device.losses
                try:
                    executable = await self.device.backend.compile(self.planned.plan)
                    try:
                        self.kept_bytes = executable.nbytes
                        await self.device.budget.ensure(keep, executable.nbytes)
                        self.device.charge(executable.nbytes, "scratch")
                    except BaseException:
                        self.device.backend.discard(executable)
                        raise
                except BaseException:  # the device remembers no program that was not made
                    self.device.forget_program(self)
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
        chain: Chain | None = None,
    ) -> list[tuple[Storage, Spec]]:
        """Run once, or the runs of ``chain``, over ``leaves``, in the graph's order: those of ``bundle``, and others.

        The result is the storage and spec of each output; the last one of a chain has the values of its ``output`` of
        every run, (runs, ...).

        ``donated`` are the numbers of the leaves that the caller gives up: where the program writes one, that output
        takes over its bytes, unless they are needed elsewhere. All others are copied before they are written.

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
                    return await self._run(executable, leaves, handles, inputs, taken, chain)
            except DeviceMemoryError:  # the arena may be what could not be made: the next run takes another
                self.device.free_scratch()
                raise
            finally:
                self._runs -= 1
                if not self.device.keeps(self):  # forgotten while it ran
                    self.discard()

    def _taken(self, leaves: Sequence[Storage], donated: Collection[int]) -> list[int]:
        """The numbers of the leaves that are written where they are."""
        if not donated:
            return []
        uses = Counter(leaves)  # once: a decoder writes most of its leaves
        return [
            i
            for i in self.planned.plan.written
            if i in donated
            and not leaves[i].is_kept
            and leaves[i].nbytes == self._leaf_bytes[i]
            and uses[leaves[i]] == 1
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
        chain: Chain | None,
    ) -> list[tuple[Storage, Spec]]:
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
            if chain is None:
                self._write_host(inputs)
                await device.backend.run(executable, arena, self._block, handles, created)
            else:
                blocks = np.empty((len(chain.inputs), len(self._host)), np.uint8)
                for block, each in zip(blocks, chain.inputs, strict=True):
                    self._write_host(each)
                    block[:] = self._host
                output = self.planned.outputs[chain.output]
                one = self.planned.specs[output]
                every = Spec((len(blocks), *one.shape), one.dtype)
                created.append(device.adopt(every, "activations"))
                numbers = len(blocks), output, chain.leaf
                await device.backend.run_chain(
                    executable, arena, memoryview(blocks.reshape(-1)), handles, created, numbers
                )
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
            for number, handle in enumerate(created[: len(plan.output_bytes)]):
                device.output_pool.made(handle, self, number)
        self._was_run = True
        buffers = [Storage(self.device, *pair) for pair in zip(created, plan.output_bytes, strict=chain is None)]
        for i in plan.written:
            fresh = Storage(self.device, copies[i], self._leaf_bytes[i]) if i in copies else leaves[i].hand_over()
            buffers.append(fresh)
        if Profile.current is not None:
            sizes = list(zip(handles, self._leaf_bytes, strict=True))
            await Profile.current.ran(ProgramRun(device, self.planned, executable, arena, self._block, sizes))
        results = [(buffers[index], spec) for index, spec in zip(self.planned.outputs, self._specs, strict=True)]
        return results if chain is None else [*results, (Storage(device, created[-1], every.nbytes), every)]

    def _write_host(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        for name, place in self._places.items():
            if name not in inputs:
                raise ShapeMismatch(f"input {name} is missing; given: {sorted(inputs)}")
            array = inputs[name]
            if array.shape != place.shape:
                raise ShapeMismatch(f"input {name} has shape {array.shape}, the program takes {place.shape}")
            place[...] = array

    def abandon(self) -> None:
        """Drop the compiled program of a lost device from the accounts."""
        self.device.output_pool.used(self)
        if self.executable is not None:
            self.device.refund(self.executable.nbytes, "scratch")
            self.executable = None

    def discard(self) -> None:
        """Free the compiled program, unless it is running; the next run compiles it again."""
        if self.executable is not None and not self._runs:
            self.device.output_pool.used(self)  # they go with it
            executable, self.executable = self.executable, None
            self.device.backend.discard(executable)
            self.device.refund(executable.nbytes, "scratch")
