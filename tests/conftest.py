"""Fixtures for tests on CPython: the CPU device, with checks for leaks."""

import gc
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Read when NumPy is imported; workers inherit it. There is a worker for each core: beside it, threads of BLAS wait
# for each other in a loop, which takes six times the CPU time of the work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.device import Device

# Without the limits of Hypothesis for wall-clock time, which a test exceeds when another process takes its core.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="module", autouse=True)
def older_objects_are_frozen() -> None:
    """Exclude the objects of the collection phase and of earlier files from the collections around each case."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cpu() -> Iterator[Device]:
    """A separate CPU device, which must be empty after the test."""
    device = Device(CpuBackend())
    yield device
    gc.collect()
    assert device.backend.live_buffers() == 0 and device.total == 0, device.memory()


@pytest.fixture(autouse=True)
def nothing_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new bytes of the CPU device with other values than zero, so that no test depends on zeroed memory."""
    empty = CpuBackend._empty  # noqa: SLF001 - the one place where NumPy's memory is left as it is

    def filled(backend: CpuBackend, nbytes: int) -> Any:
        array = empty(backend, nbytes)
        array.fill(0xA5)
        return array

    monkeypatch.setattr(CpuBackend, "_empty", filled)
