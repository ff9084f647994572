"""Migration of loaded models to another device, on request and after the loss of a device."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from tensorcommons.backends.select import MATRICES, ROW, Decision
from tensorcommons.errors import DeviceLost, DeviceUnavailable, MemoryBudgetError, TensorReleased
from tensorcommons.models.decode_programs import Choice
from tests.cases import Place
from tests.cases.seeded import checkpoint
from tests.sharing.devices import Backend, Fault, backends, budget, cancelled, check, empty, manager_on, some
from tests.sharing.test_faults import IDS, TINY, source

MB = 2**20


async def load(manager: tc.TensorSharingManager, name: str = "tiny-bert", device: str = "webgpu") -> Any:
    return await tc.from_pretrained(source(name), manager=manager, device=device)


async def answer(model: Any, **options: Any) -> np.ndarray[Any, Any]:
    return await first(await model(**IDS, **options))


async def first(out: dict[str, tc.Tensor]) -> np.ndarray[Any, Any]:
    return await next(iter(out.values())).read()


async def same(outs: list[dict[str, tc.Tensor]], wanted: np.ndarray[Any, Any]) -> None:
    for out in outs:
        np.testing.assert_array_equal(await first(out), wanted)


def backend_of(manager: tc.TensorSharingManager, kind: str) -> Backend:
    return next(backend for backend in backends(manager) if backend.kind == kind)


def state(manager: tc.TensorSharingManager, *models: Any) -> Any:
    """Record the state that a failed move may not change."""
    held = {
        name: (entry.storage.device.kind, entry.storage.identity)
        for model in models
        for name, entry in manager.registry.held_by(model.name).items()
    }
    return held, dict(manager.models), [(model.device, model.why) for model in models], len(manager.registry)


def for_good(backend: Backend, *, after: int = 1) -> None:
    """Lose the device for good at its ``after``-th run."""
    run = backend.run
    left = [after]

    async def dying(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            backend.lose()
        await run(*args, **kwargs)

    async def refuse() -> None:
        raise DeviceUnavailable(backend.kind, "the test keeps it")

    backend.run = dying  # type: ignore[method-assign]
    backend.reopen = refuse  # type: ignore[method-assign]


async def test_a_model_moves_there_and_back_with_its_memory():
    manager = manager_on("webgpu", "webnn", "cpu")
    model = await load(manager)
    wanted, content = await answer(model), {entry.content for entry in manager.registry}
    there = manager.report().unique_weight_bytes
    for kind in ("cpu", "webnn", "webnn", "webgpu"):
        seen: list[tuple[int, int]] = []
        assert await model.to(kind, lambda *bytes_: seen.append(bytes_)) is model  # noqa: B023
        assert model.device.kind == manager.models[model.name].kind == kind
        assert seen == sorted(seen) and all(total == there for _, total in seen)
        assert {entry.storage.device.kind for entry in manager.registry} == {kind}
        assert {entry.content for entry in manager.registry} == content, "the content changed"
        assert manager.report().unique_weight_bytes == there
        assert all(device.total == 0 for device in manager.devices.opened if device.kind != kind)
        np.testing.assert_array_equal(await answer(model), wanted)
        assert manager.last_run["device"] == kind and manager.last_run["fallback"] == ""
        assert model.explain().startswith(f"{model.name} is on {kind} (")
        check(manager, others=1)
    model.unload()
    empty(manager)


ROWS_AND_ROW = {  # "auto": webgpu, webnn, cpu for an encoder; webgpu, cpu, webnn for a model that generates
    MATRICES: {"webgpu": 1.0, "webnn": 4.0, "cpu": 5.0},
    ROW: {"webgpu": 1.0, "webnn": 3.0, "cpu": 2.0},
}


async def test_an_encoder_and_a_decoder_of_one_manager_are_each_on_the_device_that_suits_it():
    manager = manager_on("webgpu", "webnn", "cpu")
    manager.devices.set_times(ROWS_AND_ROW, {})
    llama = checkpoint(Place(manager.devices, "", "", "", str(TINY)), "tiny-llama")
    encoder, decoder = await load(manager, device="auto"), await tc.from_pretrained(llama, manager=manager)
    prompt = np.array([[3, 1, 4, 1, 5]])
    wanted, text = await answer(encoder), await decoder.generate(prompt, max_new_tokens=8)
    for_good(backend_of(manager, "webgpu"))
    manager.activations.clear()
    for _ in range(2):  # the models leave the lost device
        np.testing.assert_array_equal(await decoder.generate(prompt, max_new_tokens=8), text)
        np.testing.assert_array_equal(await answer(encoder), wanted)
    assert (encoder.device.kind, decoder.device.kind) == ("webnn", "cpu")
    assert {model.name: model.device for model in manager.report().models} == {
        encoder.name: "webnn",
        decoder.name: "cpu",
    }
    for files, kind in ((source("tiny-bert"), "webnn"), (llama, "cpu")):
        assert (await tc.estimate_load(files, manager=manager)).device == kind
    scores = await first(await decoder(input_ids=prompt))
    outs = await manager.run_together([(encoder, IDS), (decoder, {"input_ids": prompt})])
    np.testing.assert_array_equal(await first(outs[0]), wanted)
    np.testing.assert_array_equal(await first(outs[1]), scores)
    assert manager.last_run["device"] == "webnn + cpu"
    del outs
    for model, other in ((encoder, "cpu"), (decoder, "webnn")):
        before = model.device.kind
        await model.to(other)
        await model.to("auto")
        assert model.device.kind == before
    encoder.unload()
    decoder.unload()
    empty(manager)


async def test_tensors_shared_by_two_models_are_shared_after_a_move():
    manager = manager_on("webgpu", "cpu")
    one, two = await load(manager), await load(manager)
    wanted, single = await answer(one), manager.report().unique_weight_bytes
    await one.to("cpu")
    assert manager.report().unique_weight_bytes == 2 * single, "the other model must stay"
    np.testing.assert_array_equal(await answer(two), wanted)
    await two.to("cpu")
    assert manager.report().unique_weight_bytes == single
    assert manager.devices.choose("webgpu").total == 0
    assert all(len(entry.names) == 2 for entry in manager.registry)
    await asyncio.gather(one.to("webgpu"), two.to("webgpu"))
    assert manager.report().unique_weight_bytes == single
    outs = await manager.run_together([(one, IDS), (two, IDS)])
    assert manager.last_run["reused_in_run"] > 0
    await same(outs, wanted)
    outs.clear()
    one.unload()
    two.unload()
    empty(manager)


@pytest.mark.parametrize("without_origin", [("webgpu",), ("webgpu", "cpu")])
async def test_a_model_moves_to_a_device_that_lost_the_same_tensors(without_origin):
    manager = manager_on("webgpu", "cpu")
    stays, moves = await load(manager), await load(manager)
    wanted, single = await answer(stays), manager.report().unique_weight_bytes
    await moves.to("cpu")
    for entry in manager.registry:
        if entry.storage.device.kind in without_origin:
            entry.storage.origin = None
    backend_of(manager, "webgpu").lose()
    await moves.to("webgpu")
    assert manager.report().unique_weight_bytes == single and manager.devices.choose("cpu").total == 0
    assert all(len(entry.names) == 2 for entry in manager.registry)
    for model in (moves, stays):
        np.testing.assert_array_equal(await answer(model), wanted)
    check(manager, others=1)
    stays.unload()
    moves.unload()
    empty(manager)


async def test_bytes_that_cross_through_the_host_are_counted():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    nbytes, before = manager.report().unique_weight_bytes, manager.get_stats()["crossed_bytes"]["host"]
    await model.to("cpu")
    assert manager.get_stats()["crossed_bytes"]["host"] - before == nbytes


async def test_a_file_that_was_read_for_one_device_is_not_read_again_for_the_other():
    manager = manager_on("webgpu", "cpu")
    events: list[dict[str, Any]] = []
    files = source()
    one = await tc.from_pretrained(files, manager=manager, device="webgpu")
    await one.to("cpu")
    two = await tc.from_pretrained(files, manager=manager, device="cpu", progress_callback=events.append)
    assert events[-1]["shared_bytes"] == manager.report().unique_weight_bytes
    one.unload()
    two.unload()
    empty(manager)


@pytest.mark.parametrize("how", ["cancel", "fault"])
async def test_a_failed_or_cancelled_move_changes_nothing(how):
    manager = manager_on("webgpu", "webnn")
    one, two = await load(manager), await load(manager, "tiny-bert-mlm")
    wanted = await answer(one)
    manager.activations.clear()
    before, ended = state(manager, one, two), 0
    for at in range(1, 400):
        backend = backend_of(manager, "webnn")
        if how == "cancel":
            finished, _ = await cancelled(partial(one.to, "webnn"), at)
        else:
            backend.fault_in = at
            with contextlib.suppress(Fault):
                await one.to("webnn")
            finished, backend.fault_in = backend.fault_in > 0, 0
        if finished:
            break
        ended += 1
        assert state(manager, one, two) == before, at
        assert backend.nbytes == 0 and manager.devices.choose("webnn").total == 0
        check(manager)
    assert ended > 10 and one.device.kind == "webnn"
    np.testing.assert_array_equal(await answer(one), wanted)
    one.unload()
    two.unload()
    empty(manager)


async def test_a_move_stays_under_the_limit_of_the_load():
    manager = manager_on("webgpu", "webnn")
    model = await load(manager)
    wanted = await answer(model)
    size = manager.report().unique_weight_bytes
    await manager.set_memory_limit(1.8 * size / MB)
    assert manager.limit_bytes < 2 * size, "two copies may not fit"
    await model.to("webnn")
    assert manager.report().peak_bytes <= 64 * MB and manager.devices.choose("webgpu").total == 0
    np.testing.assert_array_equal(await answer(model), wanted)
    model.unload()
    empty(manager)


@pytest.mark.parametrize("has_origin", [True, False])
async def test_a_move_needs_room_for_one_copy_of_its_largest_weight(has_origin):
    manager = manager_on("webgpu", "webnn")
    recipe = "bert-base,layers=1,hidden_size=64,num_attention_heads=2,intermediate_size=64,max_position_embeddings=64"
    files = RandomCheckpoint(f"{recipe},vocab_size=4096").files()
    model = await tc.from_pretrained(files, manager=manager, device="webgpu", tokenizer=False)
    wanted = await answer(model)
    manager.activations.clear()
    if not has_origin:
        for entry in manager.registry:
            entry.storage.origin = None
    largest = max((entry.storage for entry in manager.registry), key=lambda storage: storage.nbytes)
    await manager.set_memory_limit(budget(largest.nbytes * 11 // 10, "webgpu"))
    await largest.ensure()
    await model.to("webnn")
    assert model.device.kind == "webnn" and manager.devices.choose("webgpu").total == 0
    np.testing.assert_array_equal(await answer(model), wanted)
    model.unload()
    empty(manager)


async def test_a_model_moves_from_a_device_that_does_not_come_back():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    wanted = await answer(model)
    manager.activations.clear()
    for_good(backend_of(manager, "webgpu"))
    backend_of(manager, "webgpu").lose()
    await model.to("cpu")
    np.testing.assert_array_equal(await answer(model), wanted)
    model.unload()
    empty(manager)


async def test_a_move_that_cannot_fit_keeps_the_model_on_its_device():
    manager = manager_on("webgpu", "webnn")
    model = await load(manager)
    wanted = await answer(model)
    manager.activations.clear()
    for entry in manager.registry:
        entry.pin("test")  # so that nothing leaves the old device
    size = manager.report().unique_weight_bytes
    await manager.set_memory_limit(1.6 * size / MB)
    before = state(manager, model)
    with pytest.raises(MemoryBudgetError):
        await model.to("webnn")
    assert state(manager, model) == before and backend_of(manager, "webnn").nbytes == 0
    for entry in manager.registry:
        entry.unpin("test")
    np.testing.assert_array_equal(await answer(model), wanted)
    model.unload()
    empty(manager)


async def test_unloading_a_moving_model_leaves_nothing():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    moving = asyncio.create_task(model.to("cpu"))
    for _ in range(5):
        await asyncio.sleep(0)
    model.unload()
    with pytest.raises(TensorReleased, match="while it was moving"):
        await moving
    with pytest.raises(TensorReleased, match="unloaded"):
        await model.to("cpu")
    empty(manager)


async def test_runs_during_a_move_give_the_same_results():
    manager = manager_on("webgpu", "webnn")
    model = await load(manager)
    wanted = await answer(model)
    for kind in ("webnn", "webgpu", "webnn"):
        manager.activations.clear()

        async def late(turns: int) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await answer(model)

        *answers, _ = await asyncio.gather(*[late(turns) for turns in range(0, 60, 3)], model.to(kind))
        for each in answers:
            np.testing.assert_array_equal(each, wanted)
    model.unload()
    empty(manager)


async def test_a_move_to_an_impossible_device_is_an_error():
    manager, other = manager_on("webgpu", "cpu"), manager_on("cpu")
    model = await load(manager)
    with pytest.raises(DeviceUnavailable, match="not for this test"):
        await model.to("webnn")
    with pytest.raises(DeviceUnavailable, match="not one of the devices"):
        await model.to(other.devices.choose("cpu"))
    assert model.device.kind == "webgpu"
    await model.to("webgpu")
    assert "because it was asked for" in model.explain()
    model.unload()
    empty(manager)


async def test_models_on_different_devices_run_together():
    manager = manager_on("webgpu", "cpu")
    one, two, three = await load(manager), await load(manager, device="cpu"), await load(manager)
    wanted = await answer(one)
    manager.activations.clear()
    outs = await manager.run_together([(one, IDS), (two, IDS), (three, IDS)])
    await same(outs, wanted)
    run = manager.last_run
    assert run["device"] == "webgpu + cpu" and sorted(run["models"]) == sorted(m.name for m in (one, two, three))
    await manager.compile_together([(one, IDS), (two, IDS)])
    outs.clear()
    for model in (one, two, three):
        model.unload()
    empty(manager)


async def test_plans_begun_before_a_move_use_no_weights_of_the_other_device():
    manager = manager_on("webgpu", "cpu")
    files = RandomCheckpoint("deep-llama,layers=1").files()
    model = await tc.from_pretrained(files, manager=manager, device="webgpu", tokenizer=False)
    steps = model.batch().steps
    await model.to("cpu")
    bound, _ = await steps.compile_extend((1, 1), 4, 4, {}, Choice("likeliest"), is_stored=False)
    assert {leaf.device.kind for leaf in bound.leaves if leaf is not None} == {"webgpu"}


async def test_models_that_stream_on_different_devices_run_together():
    manager = manager_on("webgpu", "cpu")
    one = await load(manager)
    wanted, worth = await answer(one), manager.report().unique_weight_bytes
    two = await load(manager, device="cpu")
    manager.activations.clear()
    await manager.set_memory_limit(worth / MB)  # less the reserve for reads of a GPU
    outs = await manager.run_together([(one, IDS), (two, IDS)])
    await same(outs, wanted)
    assert manager.last_run["segments"] > 2 and manager.last_run["refused"] == {}


async def test_a_device_lost_in_a_forward_is_opened_again_and_reported():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    wanted = await answer(model)
    manager.activations.clear()
    backend_of(manager, "webgpu").lose()
    np.testing.assert_array_equal(await answer(model), wanted)
    assert model.device.kind == "webgpu" and "webgpu was lost" in manager.last_run["fallback"]
    await answer(model)
    assert manager.last_run["fallback"] == ""
    model.unload()
    empty(manager)


async def test_a_forward_moves_to_the_next_device_when_devices_are_lost_for_good():
    manager = manager_on("webgpu", "webnn", "cpu")
    one, two = await load(manager), await load(manager, "tiny-bert-mlm")
    wanted, head = await answer(one), await answer(two)
    for kind, following in (("webgpu", "webnn"), ("webnn", "cpu")):
        manager.activations.clear()
        for_good(backend_of(manager, kind))
        np.testing.assert_array_equal(await answer(one), wanted)
        assert one.device.kind == manager.last_run["device"] == following
        assert f"finished on {following}: {kind} was lost" in manager.last_run["fallback"]
        assert f"{kind} was lost" in one.why and "the test keeps it" in one.explain()
        assert manager.devices.choose().kind == following
        assert two.device.kind == kind, "a model must move at its next run"
        np.testing.assert_array_equal(await answer(two), head)
        assert two.device.kind == following
        assert manager.devices.choose(kind).total == 0
        assert {entry.storage.device.kind for entry in manager.registry} == {following}
        await answer(one)
        assert manager.last_run["fallback"] == ""
    one.unload()
    two.unload()
    empty(manager)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Disable the garbage collector, so that a reference cycle cannot free bytes late unnoticed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_bytes_are_freed_without_the_collector_after_a_loss():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    for_good(backend_of(manager, "webgpu"))
    await answer(model)
    assert model.device.kind == "cpu"
    with pytest.raises(DeviceUnavailable):
        await model.to("webgpu")
    await answer(model)
    model.unload()
    await asyncio.sleep(0)
    assert [device.total for device in manager.devices.opened] == [0, 0]


async def test_merged_runs_of_a_lost_device_are_merged_on_the_next():
    manager = manager_on("webgpu", "cpu")
    one, two = await load(manager), await load(manager)
    wanted = await answer(one)
    manager.activations.clear()
    for_good(backend_of(manager, "webgpu"))
    outs, again = await asyncio.gather(manager.run_together([(one, IDS), (two, IDS)]), answer(two))
    await same(outs, wanted)
    np.testing.assert_array_equal(again, wanted)
    assert one.device.kind == two.device.kind == "cpu"
    assert all(len(entry.names) == 2 for entry in manager.registry)
    outs.clear()
    one.unload()
    two.unload()
    empty(manager)


async def test_without_another_device_the_loss_is_raised():
    manager = manager_on("webgpu")
    model = await load(manager)
    for_good(backend_of(manager, "webgpu"))
    with pytest.raises(DeviceUnavailable, match="the test keeps it"):
        await answer(model)
    model.unload()
    empty(manager)


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_result_lost_before_it_is_read_is_computed_again(comes_back):
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    wanted = await answer(model)
    manager.activations.clear()
    ids = {"input_ids": IDS["input_ids"].copy()}
    out = next(iter((await model(**ids)).values()))
    ids["input_ids"][:] = 0  # the caller's own array is not kept
    backend = backend_of(manager, "webgpu")
    if not comes_back:
        for_good(backend, after=0)
    backend.lose()
    np.testing.assert_array_equal(await out.read(), wanted)
    assert model.device.kind == ("webgpu" if comes_back else "cpu")
    np.testing.assert_array_equal(await out.read(), wanted)
    model.unload()
    del model
    out = None
    empty(manager)


async def test_a_lost_result_of_an_unloaded_model_is_an_error():
    manager = manager_on("webgpu", "cpu")
    model = await load(manager)
    out = next(iter((await model(**IDS)).values()))
    model.unload()
    backend_of(manager, "webgpu").lose()
    with pytest.raises((DeviceLost, TensorReleased)):
        await out.read()
    out = None
    empty(manager)


async def test_tensors_in_host_memory_survive_the_loss_of_their_device():
    manager = manager_on("webgpu", "cpu")
    values = some((64,), seed=1)
    tensor = manager.register_shared_tensor("t", (64,), "webgpu", data=values)
    assert await tensor.entry.storage.evict()
    for_good(backend_of(manager, "webgpu"), after=0)
    backend_of(manager, "webgpu").lose()
    np.testing.assert_array_equal((await tensor.read()).view(np.uint32), values.view(np.uint32))
    copy = await tensor.copy_to("cpu")
    np.testing.assert_array_equal((await copy.read()).view(np.uint32), values.view(np.uint32))
    with pytest.raises(DeviceUnavailable, match="the test keeps it"):
        await copy.tensor.to(manager.devices.choose("webgpu"))
    empty(manager)


async def test_a_move_to_a_device_of_another_manager_is_refused():
    manager, other = manager_on("webgpu"), manager_on("cpu")
    model = await load(manager)
    before = state(manager, model)
    with pytest.raises(DeviceUnavailable, match="not one of the manager's devices"):
        await manager.move(model, Decision(other.devices.choose("cpu"), "the test asked for it"))
    assert state(manager, model) == before
    model.unload()
    empty(manager)
