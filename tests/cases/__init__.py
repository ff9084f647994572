"""Test bodies that run on every device: under CPython on NumPy (tests/), in a real browser on WebGPU (e2e/).

A case is a public ``async def`` with one parameter, in a module of this folder; a new one is found by itself and runs
in both. Cases of ops take the device, cases of models a :class:`Place`. ``@only("webgpu")`` marks a case that is about
that device alone, ``@long("webgpu")`` one that takes a software adapter over half a minute: `make long` runs it there;
``@slow`` one that `make quick` leaves out, ``@of_software`` one that hardware leaves out.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons import Device, Devices, TensorSharingManager

Case = TypeVar("Case", bound=Callable[..., Any])

#: The modules about ops: their cases take a device alone.
OPS = (
    "compiled",
    "kv_cache",
    "elementwise",
    "layout",
    "reduction",
    "normalization",
    "matmul",
    "attention",
    "embedding",
    "indexing",
    "sorting",
    "convolution",
    "pooling",
    "resize",
    "rotary",
    "functional",
    "tensors",
    "attributes",
    "conversions",
    "full_range",
    "packed",
    "arrangement",
    "chains",
    "rewriting",
    "conformance",
    "hardware",
    "fuzz",
    "merging",
    "faults",
    "deep",
    "loops",
    "profiled_ops",
)
#: The modules about models: their cases take a :class:`Place`.
MODELS = (
    "models",
    "architectures",
    "segments",
    "variants",
    "sentences",
    "loading",
    "halves",
    "graph_size",
    "limits",
    "full_gpu",
    "tasks",
    "pipelines",
    "decoders",
    "options",
    "templates",
    "writing",
    "examples",
    "depth",
    "profiles",
)


@dataclass(frozen=True)
class Place:
    """The devices on which models run, and the addresses of their folders, without a slash at the end.

    ``models`` are the real ones, ``tiny`` those of tests/goldens; below ``faulty`` a fault's name stands before the
    model's (see tests/models/server.py), and it is empty where no server runs. ``goldens`` is tests/goldens in the file
    system.
    """

    devices: Devices
    models: str
    tiny: str
    faulty: str
    goldens: str

    def random(self, recipe: str) -> str | dict[str, bytes]:
        """The checkpoint of a recipe (scripts/random_checkpoint.py): an address, or files without a server."""
        if self.faulty:
            return f"{self.tiny.rpartition('/')[0]}/random/{recipe}"
        checkpoint = RandomCheckpoint(recipe)
        return {name: checkpoint.read(name) for name in checkpoint.names}

    @property
    def device(self) -> Device:
        return self.devices.opened[0]

    def manager(self, max_memory_mb: float = 1024, **options: Any) -> TensorSharingManager:
        return TensorSharingManager(max_memory_mb, devices=self.devices, **options)


def only(*kinds: str) -> Callable[[Case], Case]:
    """Mark a case that is about some kinds of devices."""

    def mark(case: Case) -> Case:
        case.only = kinds  # type: ignore[attr-defined]
        return case

    return mark


def long(*kinds: str) -> Callable[[Case], Case]:
    """Mark a case that takes too long on some kinds of devices to run every time."""

    def mark(case: Case) -> Case:
        case.long = kinds  # type: ignore[attr-defined]
        return case

    return mark


def slow(case: Case) -> Case:
    """Mark a case that takes over a second under CPython: `make quick` leaves it out."""
    case.slow = True  # type: ignore[attr-defined]
    return case


def of_software(case: Case) -> Case:
    """Mark a case that needs a software adapter: it refuses buffers for which a GPU has the memory."""
    case.of_software = True  # type: ignore[attr-defined]
    return case


def shows(model: str, what: str, against: str) -> Callable[[Case], Case]:
    """A line of the table in docs/models.md: the case compares ``what`` of ``model`` with ``against``."""

    def mark(case: Case) -> Case:
        case.shows = [*getattr(case, "shows", ()), (model, what, against)]  # type: ignore[attr-defined]
        return case

    return mark


def cases_of(*modules: str, kind: str) -> list[str]:
    """``module.case`` for every case of the modules that runs on that kind of device, in the order of the files."""
    found = []
    for name in modules:
        module = importlib.import_module(f"tests.cases.{name}")
        for case, function in vars(module).items():
            own = inspect.iscoroutinefunction(function) and function.__module__ == module.__name__
            if (
                own
                and len(inspect.signature(function).parameters) == 1
                and not case.startswith("_")
                and kind in getattr(function, "only", (kind,))
            ):
                found.append(f"{name}.{case}")
    return found


def case_of(name: str) -> Callable[..., Any]:
    """The function that ``cases_of`` named."""
    module, _, case = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"tests.cases.{module}"), case)
    return found
