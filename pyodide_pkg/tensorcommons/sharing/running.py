"""Running models: one or several as one merged graph, from programs that are kept for the next call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..backends.device import Device
from ..errors import DeviceLost, TensorCommonsError
from ..graph.node import Node
from ..graph.program import BoundProgram, compile_graph
from ..tensor import Tensor

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
        name_of: Callable[[np.ndarray[Any, Any]], str],
    ) -> Call:
        """The model's part of a run; ``name_of`` gives the graph's name of an input array.

        Raises ShapeMismatch for inputs that the model cannot take.
        """
        ...


class Runner:
    """Compiles what models ask for together, once, and remembers what the last run did."""

    def __init__(self) -> None:
        self.last_run: dict[str, Any] = {}
        self._programs: dict[tuple[Any, ...], BoundProgram] = {}

    def forget(self, model: str) -> None:
        """Drop what was compiled for ``model``."""
        self._programs = {key: bound for key, bound in self._programs.items() if all(part[0] != model for part in key)}

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
                device = calls[0][0].device
                if device.backend.is_lost:
                    await device.recover()
        return await self._run(calls, outputs)

    async def _run(
        self, calls: Sequence[tuple[Runnable, Mapping[str, Any]]], outputs: Sequence[Sequence[str] | None] | None
    ) -> list[dict[str, Tensor]]:
        device = calls[0][0].device
        if any(model.device is not device for model, _ in calls):
            raise TensorCommonsError("run_together() takes models on one device: move them, or run them one by one")
        wanted = outputs or [None] * len(calls)
        host = _HostInputs()
        parts = [model.call(inputs, names, host.name_of) for (model, inputs), names in zip(calls, wanted, strict=True)]
        before = device.backend.calls
        key = tuple(part.key for part in parts)
        bound = self._programs.get(key)
        if bound is None or bound.is_outdated:
            bound = await compile_graph(device, [node for part in parts for node in part.nodes])
            self._programs[key] = bound
            before = device.backend.calls
        program = bound.program
        results = [Tensor.of_storage(storage, spec) for storage, spec in await bound.run(host.arrays)]
        self.last_run = {
            "models": [model.name for model, _ in calls],
            "device": device.kind,
            "nodes": program.nodes,
            "executed": program.executed,
            "reused_in_run": program.nodes - program.executed,
            "reused_from_cache": 0,
            "steps": program.steps,
            "dispatches": program.dispatches,
            "js_calls": device.backend.calls - before,
            "arena_bytes": program.planned.plan.arena_bytes,
            "arena_lower_bound": program.planned.arena_lower_bound,
            "intermediate_bytes": program.planned.intermediate_bytes,
        }
        answers = []
        for part in parts:
            answers.append(part.finish(results[: len(part.nodes)]))
            results = results[len(part.nodes) :]
        return answers


class _HostInputs:
    """The input arrays of one run. Equal arrays get one name, so what depends on them is the same computation."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}

    def name_of(self, array: np.ndarray[Any, Any]) -> str:
        """The graph's name of ``array``."""
        for name, other in self.arrays.items():
            if array.shape == other.shape and array.dtype == other.dtype and bool((array == other).all()):
                return name
        name = f"input{len(self.arrays)}"
        self.arrays[name] = array
        return name
