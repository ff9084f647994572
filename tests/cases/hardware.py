"""The kernels for hardware on whatever adapter there is: every case of their families again.

A software adapter runs them correctly, only slowly, and never picks them by itself. What takes it minutes is left to
``make conformance`` on a GPU, which runs the families' own cases with these kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from tensorcommons import Device
from tests.cases import case_of, cases_of, only

FAMILIES = ("matmul", "normalization", "attention")
MINUTES = ("attention.many_batches",)


def _as_hardware(name: str) -> Callable[[Device], Coroutine[Any, Any, None]]:
    @only("webgpu")
    async def case(device: Device) -> None:
        backend: Any = device.backend
        adapter = backend.adapter
        backend.adapter = replace(adapter, fallback=False)
        try:
            await case_of(name)(device)
        finally:
            backend.adapter = adapter

    return case


for _name in cases_of(*FAMILIES, kind="webgpu"):
    if _name in MINUTES:
        continue
    globals()[_name.replace(".", "_")] = _as_hardware(_name)
