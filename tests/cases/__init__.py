"""Test cases that run on every device: under CPython on NumPy (tests/), in a browser on WebGPU and WebNN (e2e/).

A case is a public ``async def`` with one parameter, in a module of this folder; new cases are found automatically and
run in both. Cases of ops take the device, cases of models a :class:`Place`. ``@only("webgpu")`` marks a case for
that device alone, ``@long("webgpu")`` one that takes a software adapter over half a minute, and runs in `make long`,
``@slow`` one that `make quick` omits, ``@of_software`` one that hardware omits.
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

#: Modules of ops: their cases take a device.
OPS = (
    "compiled",
    "kv_cache",
    "paging",
    "elementwise",
    "layout",
    "reduction",
    "normalization",
    "matmul",
    "linalg",
    "attention",
    "embedding",
    "formats",
    "indexing",
    "sorting",
    "choosing",
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
    "arrays",
    "array_functions",
    "random_numbers",
    "chains",
    "rewriting",
    "conformance",
    "hardware",
    "few_rows",
    "fuzz",
    "merging",
    "faults",
    "deep",
    "loops",
    "profiled_ops",
)
#: Modules of models: their cases take a :class:`Place`.
MODELS = (
    "models",
    "architectures",
    "segments",
    "variants",
    "sentences",
    "loading",
    "halves",
    "quantized",
    "adapters",
    "gguf",
    "published",
    "graph_size",
    "constants",
    "limits",
    "full_gpu",
    "tasks",
    "pipelines",
    "decoders",
    "chained",
    "prefixes",
    "options",
    "beams",
    "templates",
    "writing",
    "depth",
    "profiles",
)


@dataclass(frozen=True)
class Place:
    """Devices for models, and the addresses of model folders, without a trailing slash.

    ``models`` has the real models, ``tiny`` those of tests/goldens, and ``faulty`` paths of a fault and a model
    (tests/models/server.py), or is empty where no server runs. ``goldens`` is tests/goldens in the file
    system.
    """

    devices: Devices
    models: str
    tiny: str
    faulty: str
    goldens: str

    def random(self, recipe: str) -> str | dict[str, bytes]:
        """Return the checkpoint of a recipe (scripts/random_checkpoint.py): an address, or files without a server."""
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
    """Mark a case that runs on some kinds of devices only."""

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
    """Mark a case that takes over a second under CPython, which `make quick` omits."""
    case.slow = True  # type: ignore[attr-defined]
    return case


def of_software(case: Case) -> Case:
    """Mark a case that needs a software adapter, which refuses buffers that a GPU has memory for."""
    case.of_software = True  # type: ignore[attr-defined]
    return case


def shows(model: str, what: str, against: str) -> Callable[[Case], Case]:
    """Declare a line of the table in docs/models.md: the case compares ``what`` of ``model`` with ``against``."""

    def mark(case: Case) -> Case:
        case.shows = [*getattr(case, "shows", ()), (model, what, against)]  # type: ignore[attr-defined]
        return case

    return mark


def cases_of(*modules: str, kind: str) -> list[str]:
    """Return ``module.case`` for every case of the modules that runs on that kind of device, in order."""
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
    """Return the function of a name from ``cases_of``."""
    module, _, case = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(f"tests.cases.{module}"), case)
    return found
