"""Weights as constants of the graphs that multiply one row by them, where memory is free.

LiteRT packs a constant when it builds a graph, and multiplies one row by it in a third of the time of an input. It
keeps two copies of each constant, the graph's own and the packed one, beside the tensor that all other graphs share.
So constants are made from the tensors only while their bytes are free under the limit, graph by graph beside the
steps, and leave first. A graph belongs to its weights, not to a program: a cache of another size runs it, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...bridge.runtime import Slices, in_slices
from ...bridge.webnn import WebNNBridge
from ...errors import TensorCommonsError
from ..base import Computation
from .splitting import Calls

COPIES = 2  # of a constant that LiteRT keeps
RUNS = 16  # of a program before its constants are made; twice as many after each time that some left

Key: TypeAlias = "tuple[str, tuple[int, ...]]"  # a graph's structure, and the handles of its weights


@dataclass(frozen=True)
class RowGraph:
    """A graph of a program that multiplies one row by weights: number ``stage`` of the program's.

    ``slots`` are those of its inputs, in the order of the graph, and ``values`` the inputs' numbers in ``computation``;
    ``weights`` are the places of weights among them. ``results`` are values that it stores in ``outputs``.
    """

    stage: int
    computation: Computation
    structure: str
    slots: tuple[int, ...]
    values: tuple[int, ...]
    weights: tuple[int, ...]
    results: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that LiteRT keeps for its weights as constants."""
        return COPIES * sum(self.computation.values[self.values[place]].spec.nbytes for place in self.weights)

    def handles(self, leaves: Sequence[int]) -> tuple[int, ...]:
        """Return the handles of its weights among those of a run's ``leaves``."""
        return tuple([leaves[self.slots[place]] for place in self.weights])


@dataclass(frozen=True)
class _Lowered:
    """The calls of a graph with constants, for ``webnn.js``: its constants and inputs as nodes and places."""

    text: str
    constants: list[tuple[int, int]]
    inputs: list[tuple[int, int]]
    outputs: Sequence[int]


@dataclass
class _Built:
    """A graph with constants: its number in ``webnn.js``, its bytes, and the programs that run it."""

    number: int
    nbytes: int
    lowered: _Lowered
    programs: set[int] = field(default_factory=set)


@dataclass
class _Program:
    """A program's graphs, the handles of their weights in its last run, and the number of its runs with these."""

    graphs: Sequence[RowGraph]
    handles: tuple[tuple[int, ...], ...] = ()
    runs: int = 0


class Constants:
    """The graphs with constants of one device.

    ``lower`` lowers a graph with its weights as constants. ``count`` is :attr:`Backend.count_constants`.
    """

    def __init__(
        self, bridge: WebNNBridge, lower: Callable[[RowGraph], Slices[Calls]], count: Callable[[int], bool]
    ) -> None:
        self._bridge = bridge
        self._lower = lower
        self._count = count
        self._lowered: dict[str, _Lowered] = {}  # by structure
        self._built: dict[Key, _Built] = {}  # the oldest first
        self._keys: dict[int, set[Key]] = {}  # of what is built, by handle of a weight
        self._programs: dict[int, _Program] = {}
        self._numbers = 0
        self._runs = RUNS
        self._building: asyncio.Task[None] | None = None
        self._wanted: frozenset[int] = frozenset()  # handles of the weights of the graphs that are being built
        self._stopped = False  # these are not wanted any more

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`drop_oldest` can free, graph by graph."""
        return sum([built.nbytes for built in self._built.values()])

    def add(self, program: int, graphs: Sequence[RowGraph]) -> None:
        """Note the graphs of a new program."""
        if graphs:
            self._programs[program] = _Program(graphs)

    def remove(self, program: int) -> None:
        """Drop the graphs that only ``program`` uses, which was discarded."""
        if self._programs.pop(program, None) is not None:
            for key, built in list(self._built.items()):
                built.programs.discard(program)
                if not built.programs:
                    self._drop(key)

    def before_run(self, program: int, leaves: Sequence[int]) -> None:
        """Have ``program`` use the graphs of the weights among ``leaves``; after some runs, build missing ones."""
        known = self._programs.get(program)
        if known is None:
            return
        handles = tuple([graph.handles(leaves) for graph in known.graphs])
        if handles != known.handles:
            if known.handles:
                self._bridge.use_inputs(program)
            for built in self._built.values():
                built.programs.discard(program)
            known.handles, known.runs = handles, 0
        if not known.runs:
            for graph, own in zip(known.graphs, handles, strict=True):
                if (graph.structure, own) in self._built:
                    self._use(program, graph, self._built[graph.structure, own])
        known.runs += 1
        if known.runs > self._runs and self._building is None:
            known.runs = 1
            self._building = asyncio.ensure_future(self._build(program, known, handles))

    async def settled(self) -> None:
        """Return once nothing is being built."""
        if self._building is not None:
            await asyncio.wait([self._building])

    async def _build(self, program: int, known: _Program, handles: Sequence[tuple[int, ...]]) -> None:
        """Build the missing graphs of ``program``, as far as their bytes are free."""
        self._wanted, self._stopped = frozenset(itertools.chain(*handles)), False
        try:
            for graph, own in zip(known.graphs, handles, strict=True):
                key = graph.structure, own
                if key not in self._built and not await self._make(graph, key):
                    continue
                if self._programs.get(program) is not known or known.handles != handles:
                    break
                self._use(program, graph, self._built[key])
        except TensorCommonsError:  # a tensor or the device is gone: without constants the same is computed
            self._runs = min(2 * self._runs, 2**20)
        finally:
            self._building = None

    async def _make(self, graph: RowGraph, key: Key) -> bool:
        """Build a graph. Returns False if its bytes are not free, or if it is not wanted any more."""
        nbytes = graph.nbytes
        if self._stopped or not self._count(nbytes):
            return False
        number, self._numbers = self._numbers, self._numbers + 1
        is_kept = False
        try:
            if key[0] not in self._lowered:
                self._lowered[key[0]] = _described(graph, await in_slices(self._lower(graph)))
            lowered = self._lowered[key[0]]
            given = [(node, key[1][graph.weights.index(place)]) for node, place in lowered.constants]
            await self._bridge.build_constants(number, lowered.text, given)
            if self._stopped:
                self._bridge.drop_constants(number)
            else:
                self._built[key], is_kept = _Built(number, nbytes, lowered), True
                for handle in key[1]:
                    self._keys.setdefault(handle, set()).add(key)
            return is_kept
        finally:
            self._count(0 if is_kept else -nbytes)

    def _use(self, program: int, graph: RowGraph, built: _Built) -> None:
        if program not in built.programs:
            built.programs.add(program)
            inputs = [(node, graph.slots[place]) for node, place in built.lowered.inputs]
            outputs = list(zip(built.lowered.outputs, graph.outputs, strict=True))
            self._bridge.use_constants(program, graph.stage, built.number, inputs, outputs)

    def drop_oldest(self) -> None:
        """Free a graph for bytes that are needed elsewhere, and build none for a while."""
        self._drop(next(iter(self._built)))
        self._stopped = True
        self._runs = min(2 * self._runs, 2**20)

    def forget(self, handle: int) -> None:
        """Drop the graphs with the weight of ``handle``, whose bytes change or go."""
        if handle in self._wanted:
            self._stopped = True
        if handle in self._keys:
            for key in list(self._keys[handle]):
                self._drop(key)

    def _drop(self, key: Key) -> None:
        built = self._built.pop(key)
        for handle in key[1]:
            self._keys[handle].discard(key)
            if not self._keys[handle]:
                del self._keys[handle]
        self._bridge.drop_constants(built.number)
        self._count(-built.nbytes)

    def clear(self) -> None:
        """Forget all programs, which went with a lost device; their graphs were dropped."""
        self._stopped = True
        self._programs.clear()


def _described(graph: RowGraph, calls: Calls) -> _Lowered:
    places = {number: place for place, number in enumerate(graph.values)}
    inputs = [(node, places[number]) for node, number in calls.inputs]
    return _Lowered(
        json.dumps({"nodes": calls.nodes, "outputs": calls.outputs}, allow_nan=False),
        [each for each in inputs if each[1] in graph.weights],
        [each for each in inputs if each[1] not in graph.weights],
        calls.outputs,
    )
