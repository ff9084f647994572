"""Fixtures for tests on CPython: the NumPy device, watched for leaks."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tensorcommons.backends.cpu import CpuBackend
from tensorcommons.backends.device import Device


def pytest_collection_finish() -> None:
    """Keep what collecting made, half a million objects, out of the garbage collections around each case."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def cpu() -> Iterator[Device]:
    """A NumPy device of the test's own; after the test nothing on it is alive."""
    device = Device(CpuBackend())
    yield device
    gc.collect()
    assert device.backend.live_buffers() == 0 and device.total == 0, device.memory()


@pytest.fixture(autouse=True)
def nothing_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new bytes of the NumPy device, so that no test passes because memory happened to be zero."""
    empty = CpuBackend._empty  # noqa: SLF001 - the one place where NumPy's memory is left as it is

    def filled(backend: CpuBackend, nbytes: int) -> Any:
        array = empty(backend, nbytes)
        array.fill(0xA5)
        return array

    monkeypatch.setattr(CpuBackend, "_empty", filled)
