"""Bound programs: a graph with the storages of its leaves and the program that suits the memory, so that a run is one
call. That program has all weights on the device at once, or it runs in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..backends.base import Computation, Spec
from ..backends.device import Device
from ..bridge.runtime import Slices, at_once, in_slices
from ..errors import DeviceMemoryError, DeviceMismatch, MemoryBudgetError, TensorCommonsError
from ..sharing.lock import Bundle
from ..sharing.storage import Storage
from . import streaming
from .fuse import fuse
from .graph import Graph
from .node import Node
from .parted import PartedProgram
from .partition import bounds_of, parts_of
from .passes import planned
from .program import Chain, Program
from .segments import Bounds


class RunsInParts(Exception):
    """A chain was passed to a program of several parts, which runs once at a time."""


class BoundProgram:
    """``graph`` on ``device``, and what its leaves are: storages, and by their places the names of those that each run
    is given.

    ``fused`` applies the patterns that are left to apply to ``graph``. :meth:`compile` sets ``program``, as does a run.
    """

    program: Program | PartedProgram

    def __init__(
        self, device: Device, graph: Graph, structure: str, fused: Callable[[Graph], Graph] = lambda graph: graph
    ) -> None:
        self.device = device
        self.graph = graph
        self.structure = structure
        self.leaves = tuple(leaf.storage for leaf in graph.leaves)
        self._arguments = {place: str(leaf.name) for place, leaf in enumerate(graph.leaves) if leaf.storage is None}
        self._fused = fused
        self._renames = Storage.renames
        self._revision = -1  # of the budget when the program was chosen; -1: the next run chooses it
        self._working_bytes: int | None = None  # of a run as one program, beside the leaves; once that was planned
        self._bundle: Bundle | None = None  # of the storages, from the second run on
        self._was_run = False

    async def compile(self) -> BoundProgram:
        """Choose and compile the program that suits the limit that there is now, and return the bound program."""
        self._revision, self.program = self.device.budget.revision, await self._choose()
        return self

    def place_of(self, name: str) -> int:
        """Return the number of the leaf that each run is given under ``name``."""
        return next(place for place, own in self._arguments.items() if own == name)

    @property
    def is_outdated(self) -> bool:
        """True if a tensor was written since: what was merged as one computation may be two by now."""
        return self._renames != Storage.renames

    async def run(
        self,
        inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
        arguments: Mapping[str, Storage] | None = None,
        donated: Collection[str] = (),
        chain: Chain | None = None,
    ) -> list[tuple[Storage, Spec]]:
        """Run once, or the runs of ``chain``; see :meth:`Program.run`.

        ``inputs`` are arrays of the host, ``arguments`` storages; those named in ``donated`` are given up.
        """
        leaves: list[Any] = list(self.leaves)
        for place, name in self._arguments.items():
            if arguments is None or name not in arguments:
                raise TensorCommonsError(
                    "a value that is being traced has no numbers yet: read it outside the function"
                )
            leaves[place] = arguments[name]
        budget = self.device.budget
        if self._revision != budget.revision:
            await self.compile()
        given_up = [place for place, name in self._arguments.items() if name in donated]
        try:
            try:
                return await self._run(leaves, inputs or {}, given_up, chain)
            except DeviceMemoryError:  # the device refused bytes that the budget has
                raise
            except MemoryBudgetError:
                if chain is not None:
                    raise
                # Values that cannot leave take the room: tensors that are in use, the cache of a generation.
                smaller = await self._choose(budget.held(leaves), streams=True)
                if smaller is self.program or any(leaf.state == "released" for leaf in leaves):
                    raise
                self.program, self._revision = smaller, -1  # they may be gone by the next run
            return await self._run(leaves, inputs or {}, given_up)
        finally:  # a run without leaves that failed would be the last to keep its program
            self.device.drop_programs()

    async def _run(
        self,
        leaves: Sequence[Storage],
        inputs: Mapping[str, np.ndarray[Any, Any]],
        given_up: Sequence[int],
        chain: Chain | None = None,
    ) -> list[tuple[Storage, Spec]]:
        if isinstance(self.program, PartedProgram):
            if chain is not None:
                raise RunsInParts
            return await self.program.run(leaves, inputs, given_up)
        if self._was_run and self._bundle is None:
            self._bundle = Bundle(self.program.device, self.leaves)
        self._was_run = True
        return await self.program.run(leaves, inputs, given_up, self._bundle, chain)

    async def _choose(self, held: int = 0, *, streams: bool = False) -> Program | PartedProgram:
        """Choose and compile a program, one that ran before or a new one.

        It suits the limit that there is now, beside its pins and ``held`` bytes of other values.

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
        if self._working_bytes is None:
            if self.structure not in programs:
                return None
            self._working_bytes = programs[self.structure].working_bytes
        return programs.get(self._key(self._streamed(self._working_bytes + held, streams=streams)))

    def _key(self, streamed: int) -> str:
        """Return the key of the program whose parts have at most ``streamed`` bytes of weights, 0 for any number."""
        return f"{self.structure} streamed {streamed}" if streamed else self.structure

    def _made(self, held: int = 0, *, streams: bool = False) -> Slices[Program | PartedProgram]:
        """Make a program: a single one, or one in parts where the device does not take every node and has a fallback,
        or not all at once.
        """
        yield
        whole = self._fused(self.graph)
        yield
        device = self.device
        single = Program(device, self.structure, (yield from planned.slices(device, whole)), self.graph)
        self._working_bytes = single.working_bytes
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


async def compile_graph(device: Device, *requests: Sequence[Node]) -> BoundProgram:
    """Return the program that computes the nodes of all ``requests`` on ``device``: a known one, or a new one.

    What they have in common is computed once. Each request's values have the bits that they have without the others.

    Raises:
        UnsupportedOp: the device has no kernel for one of the nodes; the message names it.
        DeviceMismatch: a tensor of the graph is on another device.
    """
    counts = list(map(len, requests))
    while True:
        graph = Graph([node for request in requests for node in request])
        places = {leaf.storage.device for leaf in graph.leaves if leaf.storage is not None}
        if places - {device}:
            raise DeviceMismatch(f"a graph on {device}", places)
        structure = f"{counts} {graph.structure}"
        fused = partial(fuse, backend=device.backend, requests=counts)
        bound = await BoundProgram(device, graph, structure, fused).compile()
        if not bound.is_outdated:
            return bound


async def compile_fused(device: Device, graph: Graph) -> BoundProgram:
    """Return the program of a graph that :func:`~.fuse.fuse` has seen. Raises as :func:`compile_graph`."""
    return await BoundProgram(device, graph, f"fused {graph.structure}").compile()


def _weight_bytes(leaf: Node) -> int:
    """Return the bytes of a leaf that may leave its device."""
    return leaf.nbytes if leaf.storage is not None and leaf.storage.category == "weights" else 0
