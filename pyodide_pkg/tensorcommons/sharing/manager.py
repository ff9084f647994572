"""TensorSharingManager: the models of one tab, the weights they share, the memory they may take.

It knows storages, identities and holders. What a model computes it never looks at: a model hands it nodes to run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from ..backends.cpu import CpuBackend
from ..backends.device import CATEGORIES, Device
from ..backends.select import Devices
from ..errors import MemoryBudgetError, TensorCommonsError
from ..graph.node import Node
from ..graph.program import Program, compile_graph
from ..tensor import Tensor
from .registry import Registry
from .report import MemoryReport, ModelMemory, TensorMemory

MB = 2**20


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


class TensorSharingManager:
    """Holds the weights of several models on ``devices``, each content once, under ``max_memory_mb`` (1 MB = 2**20).

    Without ``devices`` it works on NumPy alone; in a browser pass ``await tensorcommons.open_devices()``.
    """

    def __init__(self, max_memory_mb: float = 1024, devices: Devices | None = None) -> None:
        if not max_memory_mb > 0:
            raise TensorCommonsError(f"max_memory_mb must be above 0, not {max_memory_mb}")
        self.devices = devices or Devices([Device(CpuBackend())], {"webgpu": "no devices were given"})
        self.limit_bytes = int(max_memory_mb * MB)
        self.registry = Registry()
        self.tokenizers: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._models: dict[str, Device] = {}
        self._subscribers: dict[int, Callable[[MemoryReport], None]] = {}
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._last_run: dict[str, Any] = {}
        for device in self.devices.opened:
            device.reserve = self._reserve

    # --- models and their weights ---

    def add_model(self, name: str, device: Device) -> str:
        """Make room for a model; gives its name, with a number behind it where the name is taken."""
        unique, number = name, 1
        while unique in self._models:
            number += 1
            unique = f"{name}-{number}"
        self._models[unique] = device
        return unique

    def release_model_tensors(self, model_name: str) -> int:
        """End every hold of ``model_name`` and free what nobody else holds. Gives how many holds ended."""
        ended = self.registry.release(model_name)
        self._models.pop(model_name, None)
        for device in self.devices.opened:
            device.drop_programs()
        self._programs = {
            key: program for key, program in self._programs.items() if all(part[0] != model_name for part in key)
        }
        self.changed()
        return ended

    def _reserve(self, nbytes: int) -> None:
        """The budget: refuse bytes that would pass the limit, before they are taken."""
        used = sum(device.total for device in self.devices.opened)
        if used + nbytes > self.limit_bytes:
            report = self.report()
            holders = [(f"model {model.name}", model.total_bytes) for model in report.models]
            holders += [(kind, size) for kind, size in report.by_category.items() if kind != "weights" and size]
            raise MemoryBudgetError(nbytes, self.limit_bytes, holders)

    # --- running ---

    async def run_together(
        self,
        calls: Sequence[tuple[Runnable, Mapping[str, Any]]],
        outputs: Sequence[Sequence[str] | None] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Run several models as one merged graph; what they have in common is computed once.

        ``calls`` are (model, inputs) pairs; models given equal inputs share everything that depends on them alone.
        ``outputs`` names for each call the outputs wanted (the model's own by default). Gives each call's outputs.

        Raises:
            ShapeMismatch: a model cannot take its inputs; nothing ran.
            TensorCommonsError: the models are on different devices.
        """
        if not calls:
            return []
        device = calls[0][0].device
        if any(model.device is not device for model, _ in calls):
            raise TensorCommonsError("run_together() takes models on one device: move them, or run them one by one")
        wanted = outputs or [None] * len(calls)
        host = _HostInputs()
        parts = [model.call(inputs, names, host.name_of) for (model, inputs), names in zip(calls, wanted, strict=True)]
        before = device.backend.calls
        key = tuple(part.key for part in parts)
        program = self._programs.get(key)
        if program is None or program.is_discarded:
            program = await compile_graph(device, [node for part in parts for node in part.nodes])
            self._programs[key] = program
            before = device.backend.calls
        results = [Tensor.of_storage(storage, spec) for storage, spec in await program.run(host.arrays)]
        self._last_run = {
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
        self.changed()
        answers = []
        for part in parts:
            answers.append(part.finish(results[: len(part.nodes)]))
            results = results[len(part.nodes) :]
        return answers

    # --- accounts ---

    def get_stats(self) -> dict[str, Any]:
        """Counts and bytes now, and ``last_run``: what the last run computed and how often it called JavaScript."""
        used = sum(device.total for device in self.devices.opened)
        return {
            "total_tensors": len(self.registry),
            "total_models": len(self._models),
            "memory_usage_bytes": used,
            "memory_usage_mb": used / MB,
            "models": list(self._models),
            "last_run": dict(self._last_run),
        }

    def report(self) -> MemoryReport:
        """Who holds what, now."""
        totals = {name: [0, 0, 0.0] for name in self._models}
        tensors = []
        unique = separate = 0
        for weight in self.registry:
            nbytes, holders = weight.storage.nbytes, tuple(weight.names)
            unique += nbytes
            separate += nbytes * len(holders)
            for holder in holders:
                total = totals[holder]
                total[0] += nbytes
                total[1] += nbytes if len(holders) == 1 else 0
                total[2] += nbytes / len(holders)
            spec, device = weight.spec, weight.storage.device
            tensors.append(
                TensorMemory(
                    weight.name, spec.shape, spec.dtype.name, device.kind, nbytes, holders, weight.storage.identity,
                    "resident",
                )
            )  # fmt: skip
        memories = [device.memory() for device in self.devices.opened]
        return MemoryReport(
            limit_bytes=self.limit_bytes,
            device_bytes=sum(memory["total"] for memory in memories),
            peak_bytes=sum(memory["peak"] for memory in memories),
            by_category={kind: sum(memory[kind] for memory in memories) for kind in CATEGORIES},
            unique_weight_bytes=unique,
            separate_weight_bytes=separate,
            saved_bytes=separate - unique,
            models=tuple(
                ModelMemory(name, self._models[name].kind, int(all_), int(own), int(all_ - own), part)
                for name, (all_, own, part) in totals.items()
            ),
            tensors=tuple(tensors),
        )

    def subscribe(self, callback: Callable[[MemoryReport], None]) -> Callable[[], None]:
        """Call ``callback`` with a report after every change. Gives a function that ends this."""
        key = max(self._subscribers, default=0) + 1
        self._subscribers[key] = callback
        return lambda: self._subscribers.pop(key, None) and None

    def changed(self) -> None:
        """Tell the subscribers. Called after a change is complete, never in the middle of one."""
        if self._subscribers:
            report = self.report()
            for callback in list(self._subscribers.values()):
                callback(report)


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
