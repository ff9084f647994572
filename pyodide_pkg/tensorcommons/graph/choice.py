"""Choosing a graph's program: one that has all weights on the device at once, or one that runs in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..backends.base import Computation
from ..backends.device import Device
from ..bridge.runtime import Slices, at_once, in_slices
from . import streaming
from .graph import Graph
from .node import Node
from .parted import PartedProgram
from .partition import bounds_of, parts_of
from .passes import planned
from .program import Program
from .segments import Bounds


@dataclass(eq=False)
class Choice:
    """The program of ``graph`` that suits the memory there is: one that ran before, or a new one.

    ``fused`` applies the patterns that are left to apply to ``graph``.
    """

    device: Device
    graph: Graph
    structure: str
    fused: Callable[[Graph], Graph] = lambda graph: graph
    working_bytes: int | None = None  # of a run as one program, beside the leaves; once that was planned

    async def __call__(self, held: int = 0, *, streams: bool = False) -> Program | PartedProgram:
        """Choose and compile, under the limit that there is now, beside its pins and ``held`` bytes of other values.

        ``streams``: a program that has all weights there at once did not fit.
        """
        program = self._known(held, streams=streams)
        if program is None:
            made = await in_slices(self._made(held, streams=streams))
            program = self._known(held, streams=streams) or made  # another run may have made it meanwhile
        await program.compile()
        return program

    def outline(self) -> Program | PartedProgram:
        """Return the program under the limit that there is now, planned and not compiled."""
        program = at_once(self._made())
        if isinstance(program, PartedProgram) and not program.programs:
            at_once(program.plan())
        return program

    def _known(self, held: int, *, streams: bool) -> Program | PartedProgram | None:
        """Return the program that ran before, if it suits."""
        programs: Mapping[str, Program | PartedProgram] = self.device.programs
        if self.working_bytes is None:
            if self.structure not in programs:
                return None
            self.working_bytes = programs[self.structure].working_bytes
        return programs.get(self._key(self._streamed(self.working_bytes + held, streams=streams)))

    def _key(self, streamed: int) -> str:
        """Return the key of the program whose parts have at most ``streamed`` bytes of weights, 0 for any number."""
        return f"{self.structure} streamed {streamed}" if streamed else self.structure

    def _made(self, held: int = 0, *, streams: bool = False) -> Slices[Program | PartedProgram]:
        """Make a program: a single one, or one in parts where the device does not take every node and has a fallback,
        or not all at once.
        """
        yield
        whole = self.fused(self.graph)
        yield
        device = self.device
        single = Program(device, self.structure, (yield from planned.slices(device, whole)), self.graph)
        self.working_bytes = single.working_bytes
        yield
        streamed, plan = self._streamed(single.working_bytes + held, streams=streams), single.planned.plan
        refused: Mapping[int, str] = {}
        if isinstance(plan, Computation) and device.fallback is not None:
            refused = yield from device.backend.refusals(plan)
        if not refused and not streamed and len(plan.steps) <= bounds_of(device).nodes:
            return single
        key = self._key(streamed)
        known = device.programs.get(key)
        if isinstance(known, PartedProgram):
            return known
        ops = ((whole.nodes[number].op, reason) for number, reason in refused.items())
        why = {op.name: reason for op, reason in ops if op is not None}

        def bounds_on(each: Device) -> Bounds:
            return replace(bounds_of(each), nbytes=streamed, weigh=_weight_bytes) if streamed else bounds_of(each)

        parts = parts_of(whole, device, device.fallback or device, refused, bounds_on)
        return PartedProgram(device, key, self.graph, whole, parts, why, single.working_bytes, streamed)

    def _streamed(self, beside: int, *, streams: bool) -> int:
        """Return the most bytes of weights that a part may have where those of the graph do not fit together, else 0.

        ``beside`` is the number of bytes that are there in any case; with ``streams`` the weights are taken not to fit.
        Limits that differ little give the same parts.
        """
        storages = {leaf.storage for leaf in self.graph.leaves if leaf.storage is not None}
        weights = sum(storage.nbytes for storage in storages if storage.category == "weights")
        if not weights:
            return 0
        others = sum(leaf.nbytes for leaf in self.graph.leaves if leaf.storage is None)
        others += sum(storage.nbytes for storage in storages if storage.category != "weights")
        room = self.device.budget.room(storages) - beside - others
        if weights <= room and not streams:
            return 0
        part = max(min(room, weights) // streaming.PARTS, 1)
        return part >> (rest := max(part.bit_length() - 4, 0)) << rest


def _weight_bytes(leaf: Node) -> int:
    """Return the bytes of a leaf that may leave its device."""
    return leaf.nbytes if leaf.storage is not None and leaf.storage.category == "weights" else 0
