"""A device that takes whole graphs, as WebNN does, computes them in NumPy, and refuses the ops that a test names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorcommons import Device
from tensorcommons.backends.base import Computation, Executable, Range, Spec
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.webnn.backend import WebNNBackend
from tensorcommons.bridge.runtime import Slices, at_once
from tensorcommons.errors import UnsupportedOp

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Kept(Executable):
    computation: Computation


def evaluated(computation: Computation, leaves: Sequence[Array], host: memoryview) -> list[Array]:
    """Compute the outputs of a computation by the NumPy references of its ops."""
    made: list[Array] = []
    for value in computation.values:
        if value.op is not None:
            result = value.op.reference(*(made[number] for number in value.inputs), **value.attrs)
            made.append(np.asarray(result).astype(value.spec.dtype.numpy))
        elif value.host:
            raw = np.frombuffer(host, np.uint8)[value.index : value.index + value.spec.nbytes]
            made.append(raw.view(value.spec.dtype.numpy).reshape(value.spec.shape))
        else:
            made.append(leaves[value.index].view(value.spec.dtype.numpy).reshape(value.spec.shape))
        assert made[-1].shape == value.spec.shape, value
    return [made[number] for number in computation.outputs]


class GraphBackend(CpuBackend):
    """Backend that refuses the ops in ``refused``."""

    kind = "webnn"
    facts = WebNNBackend.facts
    takes_graphs = True
    graph_nodes = 4000

    def __init__(self, refused: Sequence[str]) -> None:
        super().__init__()
        self.refused = refused

    def allocate(self, handle: int, nbytes: int, spec: Spec | None) -> None:
        assert spec is not None and spec.nbytes == nbytes, "a failed allocation must raise a typed error"
        super().allocate(handle, nbytes, spec)

    def refusals(self, plan: Computation) -> Slices[Mapping[int, str]]:
        yield
        values = enumerate(plan.values)
        return {i: "it is refused" for i, value in values if value.op is not None and value.op.name in self.refused}

    async def compile(self, plan: Computation) -> Kept:  # type: ignore[override]
        if at_once(self.refusals(plan)):
            raise UnsupportedOp("an op", "webnn", "it is refused")
        return Kept(1, 0, plan)

    async def run(  # type: ignore[override]
        self, executable: Kept, arena: int, host: memoryview, leaves: Sequence[int], outputs: Sequence[int]
    ) -> None:
        results = evaluated(executable.computation, [self.arrays[handle] for handle in leaves], host)
        for handle, result in zip(outputs, results, strict=True):
            self.arrays[handle] = np.ascontiguousarray(result).reshape(-1).view(np.uint8).copy()

    async def read(self, ranges: Sequence[Range]) -> list[memoryview]:
        return await super().read(ranges)


def graph_device(*refused: str) -> Device:
    """Make the device, with NumPy as the fallback for refused ops."""
    device = Device(GraphBackend(refused))
    device.fallbacks = (Device(CpuBackend()),)
    return device
