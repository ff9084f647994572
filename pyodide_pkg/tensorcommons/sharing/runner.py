"""Running models: one or several as one merged graph, from programs that are kept for the next call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import Slices, in_slices, run_now
from ..dtypes import as_dtype
from ..errors import TensorCommonsError, TensorReleased
from ..graph.bound import BoundProgram, compile_fused
from ..graph.graph import Graph
from ..graph.merge import merge
from ..graph.profile import run_of
from ..graph.reuse import Remainder, ReusePoint, needed, remainder_of, reuse_points
from ..graph.traces import Trace
from ..tensor import Tensor
from .activation_cache import ActivationCache
from .arguments import Arguments
from .contract import Movable, Request
from .registry import Registry
from .residency import Residency
from .run_account import RunAccount


@dataclass(eq=False)
class _CompiledRun:
    """A run without the values that were found: what is left of it, its program, and how many nodes it computes."""

    rest: Remainder
    bound: BoundProgram | None  # None: nothing is left
    executed: int


@dataclass(eq=False)
class PreparedRun:
    """A requested run: the merged graph of its ``traces``, the reuse points in it, and what was ``compiled`` of it.

    ``executed`` operations are left after merging. ``loads`` identifies the models that the reuse points were found
    with.
    """

    traces: Sequence[Trace]
    fused: Graph
    executed: int
    cuts: list[ReusePoint]
    loads: int
    compiled: dict[tuple[frozenset[ReusePoint], bool], _CompiledRun] = field(default_factory=dict)


class Runner:
    """Compile and run the requests of models as one graph; ``account`` gets the figures of the runs.

    Programs are kept for the next run of equal requests, and values for later runs where the graphs of loaded models
    part.
    """

    def __init__(
        self,
        registry: Registry,
        residency: Residency,
        activations: ActivationCache,
        models: Mapping[str, Movable],
        account: RunAccount,
    ) -> None:
        self._account = account
        self._registry = registry
        self._residency = residency
        self._activations = activations
        self._prepared: dict[tuple[Any, ...], PreparedRun] = {}
        self._models = models  # those that are loaded, by name
        self._loads = 0

    def loaded(self) -> None:
        """Note that a model was loaded: runs of others keep what it could reuse."""
        self._loads += 1

    def forget(self, model: str, adapters: Hashable = None) -> None:
        """Drop what was compiled for ``model``, or for its calls with these ``adapters`` alone."""
        if adapters is None:
            self._account.forget([model])

        def is_of(part: Sequence[Any]) -> bool:
            return part[0] == model and (adapters is None or part[1][2:] == (adapters,))

        self._prepared = {key: run for key, run in self._prepared.items() if not any(map(is_of, key))}
        self._activations.sweep()

    async def run(self, device: Device, requests: Callable[[], Sequence[Request]]) -> list[dict[str, Tensor]]:
        """Run the requests, all of models on ``device``, as one graph, and return their answers."""
        asked, arguments, prepared = await self._asked(device, requests)
        keys = arguments.keys_of(prepared.cuts) if prepared.cuts else {}
        found: dict[ReusePoint, Tensor] = {}  # as tensors, so that none of them leaves while it is needed
        for cut, key in keys.items():
            kept = self._activations.find(device, key)
            if kept is not None:
                found[cut] = Tensor.of_storage(kept.storage, kept.spec)
        compiled = await self._select(device, prepared, frozenset(found), keep=bool(keys))
        rest, bound, before = compiled.rest, compiled.bound, device.backend.calls
        names = [request.model for request in asked]
        with run_of(*names):
            given = {name: of for name, cut in rest.taken.items() if (of := found[cut].node.storage) is not None}
            results = await bound.run(arguments.arrays, given) if bound is not None else []
        nodes = prepared.fused.traced, prepared.executed, compiled.executed
        program, js_calls = bound.program if bound is not None else None, device.backend.calls - before
        self._account.ran(names, device, program, js_calls, nodes)
        tensors = iter([Tensor.of_storage(storage, spec) for storage, spec in results])
        outputs_of = {id(cut.node): tensor for cut, tensor in found.items()}
        answer = [
            next(tensors) if i in rest.missing else outputs_of[id(node)]
            for i, node in enumerate(prepared.fused.outputs)
        ]
        if keys:
            computed = [*(prepared.fused.outputs[i] for i in rest.missing), *(cut.node for cut in rest.kept)]
            made = dict(zip(map(id, computed), results, strict=True))
            for cut, key in keys.items():
                if cut in found:
                    self._activations.use(device, key)
                elif id(cut.node) in made:
                    self._activations.keep(key, *made[id(cut.node)], cut.sources, self._residency.limit)
        answers = []
        for request in asked:
            count = len(request.trace.nodes)
            answers.append(request.finish(answer[:count]))
            answer = answer[count:]
        return answers

    async def compile(self, device: Device, requests: Callable[[], Sequence[Request]]) -> None:
        """Compile what :meth:`run` of requests of these shapes takes where nothing is found, and run nothing."""
        _, arguments, prepared = await self._asked(device, requests)
        await self._select(device, prepared, frozenset(), keep=bool(arguments.keys_of(prepared.cuts)))

    def prepared(self, device: Device, request: Request) -> PreparedRun:
        """Return the graph of a run of ``request``, without a run."""
        return run_now(self._asked(device, lambda: [request]))[2]

    async def _asked(
        self, device: Device, asked: Callable[[], Sequence[Request]]
    ) -> tuple[Sequence[Request], Arguments, PreparedRun]:
        """Return the requests, their arguments, and their graph: that of an equal run, unless a tensor was written or
        a model was loaded since.
        """
        while True:
            requests, arguments = asked(), Arguments()
            if {request.trace.device for request in requests} != {device}:
                raise TensorReleased("a model moved to another device while its run waited")
            names = [arguments.bound(request.arrays) for request in requests]
            key = tuple([(each.model, each.key, *own.values()) for each, own in zip(requests, names, strict=True)])
            traces = [request.trace for request in requests]
            known = self._prepared.get(key)
            if known is not None and known.loads == self._loads and known.traces == traces:
                return requests, arguments, known
            await in_slices(self._traced(device, requests))
            if all(trace.is_current for trace in traces):  # else a tensor was written meanwhile
                prepared = self._prepare(device, requests, names)
                loaded = [self._models.get(request.model) for request in requests]
                if all(each is not None and each.device is device for each in loaded):
                    self._prepared[key] = prepared  # else it is their last run there
                return requests, arguments, prepared

    def _traced(self, device: Device, requests: Sequence[Request]) -> Slices[None]:
        """Make the graphs of all traces that a run needs; the traces keep them."""
        for request in requests:
            yield
            yield from request.trace.passes()
            if self._activations.share:
                for trace in self._related(device, requests, request):
                    yield
                    yield from trace.passes()

    def _prepare(self, device: Device, requests: Sequence[Request], names: Sequence[Mapping[str, str]]) -> PreparedRun:
        """Make the graph of a run and find its reuse points."""
        traces = [request.trace for request in requests]
        fused = merge([(trace.graph, own) for trace, own in zip(traces, names, strict=True)])
        cuts = self._reuse_points(device, fused, requests, names) if self._activations.share else []
        return PreparedRun(traces, fused, needed(fused, ()), cuts, self._loads)

    def _reuse_points(
        self, device: Device, fused: Graph, requests: Sequence[Request], names: Sequence[Mapping[str, str]]
    ) -> list[ReusePoint]:
        """Find where ``fused`` parts from the graphs of the run's models, and of those that share a weight with them,
        for the same arguments.
        """
        others: dict[Any, tuple[Graph, Mapping[str, str]]] = {}
        for request, mine in zip(requests, names, strict=True):
            for trace in self._related(device, requests, request):
                others[id(trace), *mine.items()] = trace.graph, mine
        return reuse_points(fused, (merge([other]) for other in others.values()))

    def _related(self, device: Device, requests: Sequence[Request], request: Request) -> Iterator[Trace]:
        """Yield what the models of a run, and those that share a weight with them, compute of a request's arguments."""
        own = {request.model for request in requests}
        related = {name for entry in self._registry if own & entry.names.keys() for name in entry.names} | own
        specs = tuple([(name, Spec(a.shape, as_dtype(a.dtype))) for name, a in request.arrays.items()])
        for name in sorted(related):
            model = self._models.get(name)
            for traces in model.related_traces if model is not None and model.device is device else ():
                trace = None
                with suppress(TensorCommonsError):  # it cannot take these arguments
                    trace = traces.of_equal(specs)
                if trace is not None:
                    yield trace

    async def _select(
        self, device: Device, prepared: PreparedRun, found: frozenset[ReusePoint], *, keep: bool
    ) -> _CompiledRun:
        """Choose the program for what is not found; where memory is short, one that keeps only its outputs."""
        if keep:
            run = await self._compiled(device, prepared, found, keep=True)
            if not run.rest.kept or run.bound is None or self._fits(run.bound):
                return run
        return await self._compiled(device, prepared, found, keep=False)

    async def _compiled(
        self, device: Device, prepared: PreparedRun, found: frozenset[ReusePoint], *, keep: bool
    ) -> _CompiledRun:
        known = prepared.compiled.get((found, keep))
        if known is not None:
            return known
        room = int(self._activations.share * self._residency.limit)
        worth = [cut for cut in prepared.cuts if cut.node.nbytes <= room]
        rest = remainder_of(prepared.fused, worth, found, keep=keep)
        bound = await compile_fused(device, rest.graph) if rest.missing else None
        fused = prepared.fused
        stops = [node for i, node in enumerate(fused.outputs) if i not in rest.missing]
        stops += [cut.node for cut in rest.taken.values()]
        prepared.compiled[found, keep] = _CompiledRun(rest, bound, needed(fused, stops))
        return prepared.compiled[found, keep]

    def _fits(self, bound: BoundProgram) -> bool:
        """Return whether a run needs nothing to leave but activations that were kept before."""
        away = sum([leaf.nbytes for leaf in bound.leaves if leaf is not None and leaf.state != "resident"])
        free = self._residency.usable - self._residency.used + bound.program.device.idle_staging_bytes
        missing = bound.program.bytes_to_run() + away - free
        return missing <= 0 or missing <= self._residency.cached_bytes
