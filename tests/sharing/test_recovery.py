"""The policy for lost devices, wherever and however often a device is lost."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons import Device
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.facts import Rates
from tensorcommons.backends.recovery import ATTEMPTS
from tensorcommons.errors import DeviceLost
from tests.cases.support import numbers
from tests.graph.graph_device import graph_device
from tests.graph.test_partition import cpu_takes, program_of
from tests.sharing.devices import Backend, backends, empty, manager_on
from tests.sharing.test_faults import IDS, source

Array = np.ndarray[Any, Any]
DECODER = (
    "smollm2-135m,dtype=F32,layers=1,hidden_size=8,intermediate_size=16,num_attention_heads=2,"
    "num_key_value_heads=1,vocab_size=64"
)


def losing(backend: Any, method: str, times: int) -> None:
    """Lose the device in each of its next ``times`` calls of ``method``."""
    call, left = getattr(backend, method), [times]

    async def lost(*args: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            backend.lose()
            raise DeviceLost("the test took the device away")
        return await call(*args, **options)

    setattr(backend, method, lost)


class Work(NamedTuple):
    """Work on a device that is lost in calls of ``method``; ``answer`` returns its values."""

    method: str
    answer: Callable[[], Awaitable[Array]]
    model: Any


async def in_a_run(manager: tc.TensorSharingManager) -> Work:
    model = await tc.from_pretrained(source("tiny-bert"), manager=manager, device="webgpu")

    async def answer() -> Array:
        manager.activations.clear()
        return await next(iter((await model(**IDS)).values())).read()

    return Work("run", answer, model)


async def in_a_merged_run(manager: tc.TensorSharingManager) -> Work:
    work = await in_a_run(manager)
    other = await tc.from_pretrained(source("tiny-bert-mlm"), manager=manager, device="webgpu")

    async def answer() -> Array:
        manager.activations.clear()
        one, _ = await manager.run_together([(work.model, IDS), (other, IDS)])
        return await next(iter(one.values())).read()

    return Work("run", answer, work.model)


async def in_a_compilation(manager: tc.TensorSharingManager) -> Work:
    work = await in_a_run(manager)

    rows = itertools.count(1)

    async def answer() -> Array:
        several = {"input_ids": np.repeat(IDS["input_ids"], next(rows), 0)}  # each call compiles again
        await manager.compile_together([(work.model, several)])
        return (await next(iter((await work.model(**several)).values())).read())[:1]

    return Work("compile", answer, work.model)


async def in_a_generation(manager: tc.TensorSharingManager) -> Work:
    model = await tc.from_pretrained(RandomCheckpoint(DECODER).files(), manager=manager, device="webgpu")

    async def answer() -> Array:
        return np.asarray(await model.generate(input_ids=np.array([[5, 7, 9]]), max_new_tokens=4))

    return Work("run", answer, model)


PLACES = (in_a_run, in_a_merged_run, in_a_compilation, in_a_generation)


@pytest.mark.parametrize("times", range(1, ATTEMPTS + 2))
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_a_model_stays_on_its_device_until_it_is_lost_too_often(place: Any, times: int) -> None:
    manager = manager_on("webgpu", "cpu")
    work = await place(manager)
    wanted = await work.answer()
    backend, device = backends(manager)[0], manager.devices.choose("webgpu")
    losing(backend, work.method, times)
    np.testing.assert_array_equal(await work.answer(), wanted)
    assert work.model.device.kind == ("webgpu" if times < ATTEMPTS else "cpu")
    assert device.losses == min(times, ATTEMPTS - 1) and device.is_gone == (times >= ATTEMPTS)
    if times >= ATTEMPTS:
        assert "webgpu was lost" in work.model.why and "lost again each time it was opened" in work.model.why
        assert device.total == 0


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_without_another_device_the_loss_is_raised(place: Any) -> None:
    manager = manager_on("webgpu")
    work = await place(manager)
    wanted = await work.answer()
    device = manager.devices.choose("webgpu")
    losing(device.backend, work.method, ATTEMPTS)
    with pytest.raises(DeviceLost):
        await work.answer()
    assert device.losses == ATTEMPTS - 1 and device.total == 0
    np.testing.assert_array_equal(await work.answer(), wanted)  # the next call opens it again


@pytest.mark.parametrize("times", range(1, ATTEMPTS + 2))
@pytest.mark.parametrize("method", ["run", "compile"])
async def test_a_fallback_that_is_lost_too_often_is_replaced(
    monkeypatch: pytest.MonkeyPatch, method: str, times: int
) -> None:
    cpu_takes(monkeypatch, Rates(0.0, 1e-6, 1e9, 1e9))  # moving the whole graph is too expensive
    device = graph_device("exp")
    backend = Backend("cpu")
    backend.kind = "webgpu"
    first, second = Device(backend), Device(CpuBackend())
    device.fallbacks = (first, second)
    losing(backend, method, times)
    x = numbers(8, 8)
    y = tc.asarray(x, device=device)
    result = tc.linear(tc.exp(tc.linear(y, y)), y)
    np.testing.assert_allclose(await result.read(), np.exp(x @ x.T) @ x.T, rtol=1e-5)
    used = {part.device for part in program_of(device).parts}
    assert used == {device, first if times < ATTEMPTS else second}
    assert first.losses == min(times, ATTEMPTS - 1) and first.is_gone == (times >= ATTEMPTS)


@pytest.mark.parametrize("times", range(1, ATTEMPTS + 2))
async def test_bytes_with_an_origin_are_readable_after_any_number_of_losses(times: int) -> None:
    manager = manager_on("webgpu", "cpu")
    model = await tc.from_pretrained(source("tiny-bert"), manager=manager, device="webgpu")
    storage = next(iter(manager.registry)).storage
    wanted = bytes(await storage.content())
    losing(backends(manager)[0], "read", times)
    assert bytes(await storage.content()) == wanted
    assert storage.device.losses == 1, "the origin has the bytes: no attempt may use the device again"
    model.unload()
    empty(manager)
