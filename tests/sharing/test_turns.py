"""Turns of the event loop while a model loads and is compiled, and operations in these turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons.bridge import runtime
from tensorcommons.errors import TensorReleased
from tests.sharing.devices import manager_on

LAYERS = 12
PASSES = 5  # per graph, from fusion to its plan
FILES = RandomCheckpoint(f"deep-bert,layers={LAYERS}").files()
IDS = {"input_ids": np.arange(1, 9, dtype=np.int32).reshape(1, 8)}


@pytest.fixture(autouse=True)
def every_step_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yield to the event loop after each step that may yield, however short it is."""
    monkeypatch.setattr(runtime, "SLICE", -1.0)


@pytest.fixture
def manager() -> Iterator[tc.TensorSharingManager]:
    with manager_on("webgpu", "cpu") as made:
        yield made


async def load(manager: tc.TensorSharingManager) -> Any:
    return await tc.from_pretrained(FILES, manager=manager, device="webgpu")


async def turns_of(work: Awaitable[Any]) -> int:
    """Count the turns of the event loop until ``work`` is done."""
    count, task = 0, asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    task.result()
    return count


async def after(turns: int, work: Awaitable[Any], act: Callable[[asyncio.Future[Any]], Any]) -> Any:
    """Return the result of ``work``, with ``act`` called ``turns`` turns after its beginning."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not task.done()
    act(task)
    return await task


async def read(model: Any) -> bytes:
    return (await (await model(**IDS))["last_hidden_state"].read()).tobytes()


async def test_loading_and_compiling_yield_to_the_event_loop(manager: tc.TensorSharingManager) -> None:
    loading = asyncio.ensure_future(load(manager))
    assert await turns_of(loading) > 10 * LAYERS, "at least one turn for each tensor"
    model = loading.result()
    assert await turns_of(model.compile([(1, 8)])) > PASSES
    assert await turns_of(model.compile([(1, 8)])) < PASSES, "a compiled graph was planned again"


@pytest.mark.parametrize("turns", [1, 3, PASSES, LAYERS])
async def test_a_run_after_a_cancelled_first_run_is_correct(manager: tc.TensorSharingManager, turns: int) -> None:
    model = await load(manager)
    with pytest.raises(asyncio.CancelledError):
        await after(turns, model(**IDS), lambda task: task.cancel())
    assert manager.last_run == {}
    other = await load(manager)
    assert await read(model) == await read(other)


@pytest.mark.parametrize("turns", [1, 3, PASSES])
async def test_unloading_ends_a_first_run(manager: tc.TensorSharingManager, turns: int) -> None:
    model = await load(manager)
    with pytest.raises(TensorReleased):
        await after(turns, model(**IDS), lambda task: model.unload())
    assert manager.report().unique_weight_bytes == 0
    assert await read(await load(manager)) == await read(await load(manager))


@pytest.mark.parametrize("turns", [1, 3, PASSES])
async def test_a_first_run_of_a_moving_model_ends_on_its_device(manager: tc.TensorSharingManager, turns: int) -> None:
    model = await load(manager)
    moves: list[asyncio.Future[Any]] = []
    out = await after(turns, model(**IDS), lambda task: moves.append(asyncio.ensure_future(model.to("cpu"))))
    await moves[0]
    again = await read(model)
    assert model.device.kind == "cpu" and (await out["last_hidden_state"].read()).tobytes() == again


async def test_equal_runs_at_the_same_time_compile_one_program(manager: tc.TensorSharingManager) -> None:
    model = await load(manager)
    before = len(model.device.programs)
    first, second = await asyncio.gather(read(model), read(model))
    assert first == second and len(model.device.programs) == before + 1


async def test_a_tensor_written_during_merging_is_not_merged(
    manager: tc.TensorSharingManager,
) -> None:
    device = manager.devices.opened[0]
    x, y = (tc.asarray(np.ones((4, 4), np.float32), device=device) for _ in range(2))
    storage = x.node.storage
    assert storage is not None and y.node.storage is not None and storage.identity == y.node.storage.identity

    def write(_: object) -> None:
        device.backend.write(storage.handle, 0, memoryview(bytes(64)))
        storage.rename("anonymous")

    total = x + 10 * y
    np.testing.assert_array_equal(await after(2, total.read(), write), np.full((4, 4), 10, np.float32))
