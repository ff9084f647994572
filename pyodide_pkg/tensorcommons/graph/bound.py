"""Bound programs: the program of a graph together with the storages of its leaves, so that a run is one call."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.base import Spec
from ..backends.device import Device
from ..errors import DeviceMemoryError, DeviceMismatch, MemoryBudgetError, TensorCommonsError
from ..sharing.lock import Bundle
from ..sharing.storage import Storage
from .choice import Choice
from .fuse import fuse
from .graph import Graph
from .node import Node
from .parted import PartedProgram
from .program import Program


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

        ``inputs`` are arrays of the host, ``arguments`` storages; those named in ``donated`` are given up.
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
                if smaller is self.program or any(leaf.state == "released" for leaf in leaves):
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
        bound = await _bound(Choice(device, graph, structure, lambda graph: fuse(graph, device.backend, counts)))
        if not bound.is_outdated:
            return bound


async def compile_fused(device: Device, graph: Graph) -> BoundProgram:
    """Return the program of a graph that :func:`~.fuse.fuse` has seen. Raises as :func:`compile_graph`."""
    return await _bound(Choice(device, graph, f"fused {graph.structure}"))


async def _bound(choose: Choice) -> BoundProgram:
    renames, revision, leaves = Storage.renames, choose.device.budget.revision, choose.graph.leaves
    program = await choose()
    arguments = {place: str(leaf.name) for place, leaf in enumerate(leaves) if leaf.storage is None}
    return BoundProgram(program, tuple(leaf.storage for leaf in leaves), arguments, renames, choose, revision)
