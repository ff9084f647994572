"""Running models: one or several as one merged graph, from programs that are kept for the next call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np

from ..backends.device import Device
from ..errors import DeviceLost, TensorCommonsError
from ..graph.fuse import fuse
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.partition import PartedProgram
from ..graph.profile import run_of
from ..graph.program import BoundProgram, Program, compile_fused
from ..graph.reuse import Remainder, ReusePoint, needed, remainder_of, reuse_points
from ..tensor import Tensor
from .activation_cache import ActivationCache
from .registry import Registry
from .residency import Residency
from .storage import Storage

HASHED_BYTES = 16 * 2**20  # of inputs; more would take longer to hash than it is worth
Made = TypeVar("Made")
ATTEMPTS = 3  # a run may find its device lost


class Call(Protocol):
    """One model's part of a run: the nodes to compute, and what makes its answer of the results."""

    @property
    def nodes(self) -> Sequence[Node]:
        """What to compute."""
        ...

    @property
    def key(self) -> tuple[Any, ...]:
        """The model's name, and whatever else makes that equal keys mean equal nodes."""
        ...

    def finish(self, results: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named outputs from the computed nodes, in their order."""
        ...


class Runnable(Protocol):
    """What ``run_together`` needs of a model."""

    name: str
    device: Device

    def call(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        host: HostInputs,
    ) -> Call:
        """The model's part of a run, its arrays among ``host``'s.

        Raises ShapeMismatch for inputs that the model cannot take.
        """
        ...

    def every(self, inputs: Mapping[str, Any], host: HostInputs) -> Sequence[Node]:
        """Every output that the model can give for ``inputs``, traced anew."""
        ...

    def unload(self) -> None:
        """Let its weights go. Safe to call twice."""
        ...

    def probe(self) -> Sequence[Node]:
        """Every output on inputs of one fixed shape, for comparing with other models."""
        ...


@dataclass(eq=False)
class _Variant:
    """What is left of a run when some values are found, its program, and how many nodes it computes."""

    rest: Remainder
    bound: BoundProgram | None  # None: nothing is left
    executed: int
    _cost: tuple[Any, dict[str, Any]] = field(default_factory=lambda: (None, {}))

    @property
    def cost(self) -> dict[str, Any]:
        """Figures of the program for ``last_run``; it is another program under another limit."""
        program = self.bound.program if self.bound is not None else None
        if program is None or self._cost[0] is not program:
            self._cost = program, _cost_of(program)
        return self._cost[1]


@dataclass(eq=False)
class _Prepared:
    """A run that was asked for: its graph, fused and merged, the cuts in it, and its variants so far.

    ``traced`` nodes were asked for, of which ``executed`` are left after merging. ``sources`` are the leaves and what
    they were; ``renames`` and ``loads`` say when that was looked at last.
    """

    fused: Graph
    traced: int
    executed: int
    cuts: list[ReusePoint]
    sources: list[tuple[Storage, str]]
    renames: int
    loads: int
    variants: dict[tuple[frozenset[ReusePoint], bool], _Variant] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        """Whether no leaf was written: what was merged as one computation is still one."""
        if self.renames != Storage.renames and all(storage.identity == was for storage, was in self.sources):
            self.renames = Storage.renames
        return self.renames == Storage.renames


class Runner:
    """Compiles what models ask for together, once, and remembers what the last run did.

    What a run computes on the way to its outputs is kept for later runs where the graphs of loaded models part.
    """

    def __init__(self, registry: Registry, residency: Residency, activations: ActivationCache) -> None:
        self.last_run: dict[str, Any] = {}
        self._registry = registry
        self._residency = residency
        self._activations = activations
        self._prepared: dict[tuple[Any, ...], _Prepared] = {}
        self._models: WeakValueDictionary[str, Runnable] = WeakValueDictionary()  # they refer to their manager
        self._loads = 0
        self.streamed: dict[str, dict[str, int]] = {}  # by model that streams: what its last run did

    def add(self, model: Runnable) -> None:
        """Run others with ``model`` in mind: what it could take over is kept."""
        self._models[model.name] = model
        self._loads += 1

    def forget(self, model: str) -> None:
        """Drop ``model`` and what was compiled for it."""
        self._models.pop(model, None)
        self.streamed.pop(model, None)
        self._prepared = {key: run for key, run in self._prepared.items() if all(part[0] != model for part in key)}
        self._activations.sweep()

    @property
    def models(self) -> list[Runnable]:
        """The loaded models."""
        return list(self._models.values())

    async def run(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
    ) -> list[dict[str, Tensor]]:
        """See ``TensorSharingManager.run_together``."""
        if not calls:
            return []
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._run(calls, outputs)
            except DeviceLost:
                pass  # it is opened again below
        return await self._run(calls, outputs)

    async def _run(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
    ) -> list[dict[str, Tensor]]:
        parts, host, prepared = await self._asked(calls, outputs)
        device = calls[0][0].device
        keys = host.keys_of(prepared.cuts)
        found: dict[ReusePoint, Tensor] = {}  # as tensors, so that none of them leaves while it is needed
        for cut, key in keys.items():
            kept = self._activations.find(device, key)
            if kept is not None:
                found[cut] = Tensor.of_storage(kept.storage, kept.spec)
        variant = await self._variant(device, prepared, frozenset(found), keep=bool(keys))
        rest, bound, before = variant.rest, variant.bound, device.backend.calls
        with run_of(*[model.name for model, _ in calls]):
            results = await bound.run(host.arrays, _given(rest, found)) if bound is not None else []
        self._tell(calls, device, prepared, variant, device.backend.calls - before)
        tensors = iter([Tensor.of_storage(storage, spec) for storage, spec in results])
        outputs_of = {id(cut.node): tensor for cut, tensor in found.items()}
        answer = [
            next(tensors) if i in rest.missing else outputs_of[id(node)]
            for i, node in enumerate(prepared.fused.outputs)
        ]
        made = {id(prepared.fused.outputs[i]): result for i, result in zip(rest.missing, results, strict=False)}
        made |= {id(cut.node): result for cut, result in zip(rest.kept, results[len(rest.missing) :], strict=True)}
        for cut, key in keys.items():
            if cut in found:
                self._activations.use(device, key)
            elif id(cut.node) in made:
                self._activations.keep(key, *made[id(cut.node)], cut.weights, self._residency.limit)
        answers = []
        for part in parts:
            answers.append(part.finish(answer[: len(part.nodes)]))
            answer = answer[len(part.nodes) :]
        return answers

    async def compile(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
    ) -> None:
        """Compile what :meth:`run` of inputs of these shapes takes where nothing is found, and run nothing."""
        if not calls:
            return
        _, host, prepared = await self._asked(calls, outputs)
        await self._variant(calls[0][0].device, prepared, frozenset(), keep=bool(host.keys_of(prepared.cuts)))

    def prepared(
        self, model: Runnable, inputs: Mapping[str, Any], outputs: Sequence[str] | None
    ) -> tuple[int, int, Graph, Sequence[ReusePoint]]:
        """The operations of a run before and after merging, its fused graph, and its reuse points."""
        host, calls = HostInputs(), [(model, inputs)]
        prepared = self._prepare(calls, [model.call(inputs, outputs, host)], host)
        return prepared.traced, prepared.executed, prepared.fused, prepared.cuts

    async def _asked(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
    ) -> tuple[Sequence[Call], HostInputs, _Prepared]:
        """Each model's part of a run, their inputs, and their graph."""
        if calls[0][0].device.backend.is_lost:
            await calls[0][0].device.recover()
        if {model.device for model, _ in calls} != {calls[0][0].device}:
            raise TensorCommonsError("run_together() takes models on one device: move them, or run them one by one")
        wanted = outputs or [None] * len(calls)
        host = HostInputs()
        parts = [model.call(inputs, names, host) for (model, inputs), names in zip(calls, wanted, strict=True)]
        return parts, host, self._prepare(calls, parts, host)

    def _prepare(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], parts: Sequence[Call], host: HostInputs
    ) -> _Prepared:
        """The graph of a run and its cuts; traced again when a tensor was written or a model came."""
        key = tuple([part.key for part in parts])
        known = self._prepared.get(key)
        if known is not None and known.loads == self._loads and known.is_current:
            return known
        merged = Graph([node for part in parts for node in part.nodes])
        fused = fuse(merged, calls[0][0].device.backend, [len(part.nodes) for part in parts])
        cuts = reuse_points(fused, self._others(calls, host)) if self._activations.share else []
        sources = [(leaf.storage, leaf.storage.identity) for leaf in merged.leaves if leaf.storage is not None]
        counts = merged.traced, needed(fused, ())
        self._prepared[key] = _Prepared(fused, *counts, cuts, sources, Storage.renames, self._loads)
        return self._prepared[key]

    def _others(self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], host: HostInputs) -> Iterator[Graph]:
        """What the models of a run, and those that share a weight with them, could compute of the same inputs."""
        names = {model.name for model, _ in calls}
        related = {name for entry in self._registry if names & entry.names.keys() for name in entry.names} | names
        seen: list[Mapping[str, Any]] = []
        device = calls[0][0].device
        for _, inputs in calls:
            if not any(inputs is other for other in seen):
                seen.append(inputs)
                for name in sorted(related):
                    model = self._models.get(name)
                    if model is not None and model.device is device:
                        with suppress(TensorCommonsError):  # it cannot take these inputs
                            yield fuse(Graph(model.every(inputs, host)), device.backend)

    async def _variant(
        self, device: Device, prepared: _Prepared, found: frozenset[ReusePoint], *, keep: bool
    ) -> _Variant:
        """The program for what is not found; one that keeps nothing besides its outputs where memory is short."""
        if keep:
            variant = await self._compiled(device, prepared, found, keep=True)
            if not variant.rest.kept or variant.bound is None or self._fits(variant.bound):
                return variant
        return await self._compiled(device, prepared, found, keep=False)

    async def _compiled(
        self, device: Device, prepared: _Prepared, found: frozenset[ReusePoint], *, keep: bool
    ) -> _Variant:
        known = prepared.variants.get((found, keep))
        if known is not None:
            return known
        room = int(self._activations.share * self._residency.limit)
        worth = [cut for cut in prepared.cuts if cut.node.nbytes <= room]
        rest = remainder_of(prepared.fused, worth, found, keep=keep)
        bound = await compile_fused(device, rest.graph) if rest.missing else None
        fused = prepared.fused
        stops = [node for i, node in enumerate(fused.outputs) if i not in rest.missing]
        stops += [cut.node for cut in rest.taken.values()]
        prepared.variants[found, keep] = _Variant(rest, bound, needed(fused, stops))
        return prepared.variants[found, keep]

    def _fits(self, bound: BoundProgram) -> bool:
        """Whether a run needs nothing to leave but activations that were kept before."""
        away = sum(leaf.nbytes for leaf in bound.leaves if leaf is not None and not leaf.is_resident)
        free = self._residency.usable - self._residency.used + self._residency.cached_bytes
        free += bound.program.device.idle_staging_bytes
        return bound.program.bytes_to_run() + away <= free

    def _tell(
        self,
        calls: Sequence[tuple[Runnable, Mapping[str, Any]]],
        device: Device,
        prepared: _Prepared,
        variant: _Variant,
        js_calls: int,
    ) -> None:
        reused = prepared.executed - variant.executed
        self._activations.reused += reused
        self.last_run = {
            "models": [model.name for model, _ in calls],
            "device": device.kind,
            "nodes": prepared.traced,
            "executed": variant.executed,
            "reused_in_run": prepared.traced - prepared.executed,
            "reused_from_cache": reused,
            **variant.cost,
            "js_calls": js_calls,
            **_transfers(variant.bound.program if variant.bound is not None else None),
        }
        self._note_streams()

    def tell(self, model: str, program: Program | PartedProgram, js_calls: int) -> None:
        """Account for a run that ``model`` made by itself, with a program of its own."""
        self.last_run = {
            "models": [model],
            "device": program.device.kind,
            "nodes": program.nodes,
            "executed": program.executed,
            "reused_in_run": program.nodes - program.executed,
            "reused_from_cache": 0,
            **_cost_of(program),
            "js_calls": js_calls,
            **_transfers(program),
        }
        self._note_streams()

    def _note_streams(self) -> None:
        """Keep what the last run moved as its models' figures, until one of them runs without streaming."""
        run = self.last_run
        for model in run["models"]:
            if run["segments"]:
                self.streamed[model] = {key: run[key] for key in ("segments", "moved_bytes", "resident_bytes")}
            elif run["steps"]:
                self.streamed.pop(model, None)


def _cost_of(program: Program | PartedProgram | None) -> dict[str, Any]:
    """The part of ``last_run`` that is about a program, the same at each run; None where nothing was left to run."""
    planned = program.plans if program is not None else ()
    return {
        "steps": program.steps if program is not None else 0,
        "dispatches": program.dispatches if program is not None else 0,
        "arena_bytes": max((each.plan.arena_bytes for each in planned), default=0),
        "arena_lower_bound": max((each.arena_lower_bound for each in planned), default=0),
        "intermediate_bytes": sum(each.intermediate_bytes for each in planned),
    }


def _transfers(program: Program | PartedProgram | None) -> dict[str, Any]:
    """Figures of what a run moved: weights that stream, and what crossed devices in a program in parts."""
    if not isinstance(program, PartedProgram):
        return {"segments": 0, "moved_bytes": 0, "resident_bytes": 0}
    return {
        "segments": len(program.parts) if program.streams else 0,
        "moved_bytes": program.traffic.moved,
        "resident_bytes": program.traffic.resident,
        "parts": program.turns,
        "refused": program.why,
        "transfers": program.traffic.transfers,
        "transferred_bytes": program.traffic.transferred,
        "rented": program.traffic.rented,
    }


def _given(rest: Remainder, found: Mapping[ReusePoint, Tensor]) -> dict[str, Storage]:
    storages = {name: found[cut].node.storage for name, cut in rest.taken.items()}
    return {name: storage for name, storage in storages.items() if storage is not None}


class HostInputs:
    """The input arrays of one run. Equal arrays get one name, so what depends on them is the same computation."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._bytes: dict[str, memoryview | bytes] = {}
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What ``make`` gave for ``key`` when it was first asked in this run."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def name_of(self, array: np.ndarray[Any, Any]) -> str:
        """The graph's name of ``array``."""
        raw = _bytes(array)
        for name, other in self.arrays.items():
            if array.shape == other.shape and array.dtype == other.dtype and raw == self._bytes[name]:
                return name
        name = f"input{len(self.arrays)}"
        self.arrays[name], self._bytes[name] = array, raw
        return name

    def keys_of(self, cuts: Sequence[ReusePoint]) -> dict[ReusePoint, str]:
        """What each cut is for these inputs; nothing if they are so large that hashing them would cost too much."""
        if not cuts:
            return {}
        names = {name for cut in cuts for name in cut.arguments}
        if sum(self.arrays[name].nbytes for name in names) > HASHED_BYTES:
            return {}
        digests = {name: hashlib.sha256(np.ascontiguousarray(self.arrays[name])).digest() for name in names}
        return {cut: cut.key(digests) for cut in cuts}


def _bytes(array: np.ndarray[Any, Any]) -> memoryview | bytes:
    """To be compared: a tenth of the time that NumPy takes for two short arrays."""
    return memoryview(array).cast("B") if array.size and array.flags.c_contiguous else array.tobytes()
