"""Fixtures for tests on CPython: the NumPy device, watched for leaks."""

import gc
from collections.abc import Iterator

import pytest

from tensorcommons.backends.cpu import CpuBackend
from tensorcommons.backends.device import Device


@pytest.fixture
def cpu() -> Iterator[Device]:
    """A NumPy device of the test's own; after the test nothing on it is alive."""
    device = Device(CpuBackend())
    yield device
    gc.collect()
    assert device.backend.live_buffers() == 0 and device.total == 0, device.memory()
