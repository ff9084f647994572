"""Memory of a 32-bit Python: models that cannot fit are refused before download; running out raises a typed error."""

from __future__ import annotations

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.base import Spec
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.errors import DeviceMemoryError, MemoryBudgetError
from tests.models.server import TINY

FILES = {path.name: path.read_bytes() for path in (TINY / "tiny-bert").iterdir()}


def _cpu(manager: tc.TensorSharingManager) -> tc.Device:
    return manager.devices.choose("cpu")


def _backend(manager: tc.TensorSharingManager) -> CpuBackend:
    backend = _cpu(manager).backend
    assert isinstance(backend, CpuBackend)
    return backend


async def _refused(manager: tc.TensorSharingManager) -> DeviceMemoryError:
    events: list[str] = []
    with pytest.raises(DeviceMemoryError) as caught:
        await tc.from_pretrained(
            FILES,
            manager=manager,
            device="cpu",
            tokenizer=False,
            progress_callback=lambda event: events.append(event["status"]),
        )
    assert isinstance(caught.value, MemoryBudgetError)
    assert "progress" not in events, "weights were read"
    assert _cpu(manager).total == 0 and not manager.report().models
    return caught.value


async def test_a_tensor_larger_than_an_array_can_be_is_refused_by_name():
    manager = tc.TensorSharingManager()
    _backend(manager).largest = 14_399
    error = await _refused(manager)
    assert "word_embeddings.weight takes 14,400 bytes" in str(error) and "14,399" in str(error)
    assert 'dtype="float16"' in str(error), "that would fit"


async def test_weights_that_do_not_fit_together_are_refused_unless_they_stream():
    manager = tc.TensorSharingManager()
    _backend(manager).memory = 90_000
    error = await _refused(manager)
    assert "90,000" in str(error) and 'dtype="float16"' in str(error)
    tensors = {"a": Spec((50_000,), tc.dtypes.float32)}
    assert _cpu(manager).refusal(tensors)
    small = tc.TensorSharingManager(max_memory_mb=80_000 / 2**20)
    _backend(small).memory = 90_000
    assert not _cpu(small).refusal(tensors), "they stream under this limit"


def test_running_out_of_memory_raises_a_typed_error(monkeypatch):
    def empty(*_: object) -> None:
        raise MemoryError("Unable to allocate 1.00 MiB for an array")

    backend = _backend(tc.TensorSharingManager())
    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", empty)
        with pytest.raises(DeviceMemoryError, match="Unable to allocate"):
            backend.allocate(1, 2**20, None)
    assert not backend.live_buffers()
    backend.largest = 2**20 - 1
    with pytest.raises(DeviceMemoryError, match="1,048,575"):
        backend.allocate(1, 2**20, None)
