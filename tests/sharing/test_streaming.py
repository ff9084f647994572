"""Models larger than the limit: their weights are streamed, with the same bits and without leaks."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.random_checkpoint import RandomCheckpoint
from scripts.serve import serve
from scripts.serve_checkpoints import with_random
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.backends.facts import Rates
from tensorcommons.errors import MemoryBudgetError, TensorReleased
from tensorcommons.hub import weights
from tensorcommons.hub.weights import WeightsFile
from tensorcommons.models import weight_loader
from tests.cases.support import warnings_of
from tests.graph.graph_device import graph_device
from tests.sharing.devices import Backend, backends

MB = 2**20
RECIPE = "bert-base,layers=8,hidden_size=64,num_attention_heads=4,intermediate_size=256,vocab_size=2000"
IDS = {"input_ids": np.arange(10, 26)[None]}
Bits = dict[str, bytes]
KNOWN: dict[str, tuple[Bits, int]] = {}


def manager_of(limit: float, *kinds: str, cache: bool = False) -> tc.TensorSharingManager:
    """Make a manager of test devices of these kinds with a limit of ``limit`` bytes."""
    devices = tc.Devices([tc.Device(Backend(kind)) for kind in kinds or ("webgpu",)], {})
    return tc.TensorSharingManager(limit / MB, devices, activation_cache=cache)


async def load(manager: tc.TensorSharingManager, recipe: str = RECIPE, **options: Any) -> Any:
    options = {"device": "webgpu", "tokenizer": False, **options}
    return await tc.from_pretrained(RandomCheckpoint(recipe).files(), manager=manager, **options)


async def bits(model: Any, **more: Any) -> Bits:
    return {name: (await tensor.read()).tobytes() for name, tensor in (await model(**IDS, **more)).items()}


async def alone(recipe: str = RECIPE) -> tuple[Bits, int]:
    """Return the bits of a run without a limit, and the bytes of the weights."""
    if recipe not in KNOWN:
        manager = manager_of(64 * MB)
        model = await load(manager, recipe)
        KNOWN[recipe] = await bits(model), manager.report().unique_weight_bytes
    return KNOWN[recipe]


def held(manager: tc.TensorSharingManager, model: Any) -> None:
    """Assert that the limit was kept, the run streamed, and none of its values is left on the device."""
    report = manager.report()
    assert report.peak_bytes <= report.limit_bytes
    assert manager.last_run["segments"] > 1 and report.moved_bytes[model.name] == manager.last_run["moved_bytes"]
    manager.activations.clear()
    assert model.device.memory()["activations"] == 0


async def test_the_moved_bytes_are_those_that_do_not_fit_and_are_reported() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 0.6)
    with warnings_of("tensorcommons") as heard:
        model = await load(manager)
    assert any(f"{worth:,} bytes of weights do not fit" in text and "local storage" in text for text in heard), heard
    for _ in range(3):
        assert await bits(model) == wanted
    run = manager.last_run
    held(manager, model)
    assert worth * 0.4 < run["moved_bytes"] < worth * 0.65
    assert manager.get_stats()["streamed"][model.name]["resident_bytes"] == run["resident_bytes"] > worth * 0.35
    plan = tc.explain_plan(model, IDS)
    (planned,) = re.findall(r"each run \(of a generation: each token\) moves ([\d,]+)", plan)
    assert run["moved_bytes"] <= int(planned.replace(",", "")) < 1.1 * run["moved_bytes"] and "linear + gelu" in plan
    await manager.set_memory_limit(4 * worth / MB)
    assert await bits(model) == wanted and manager.last_run["segments"] == 0 and not manager.report().moved_bytes
    await manager.set_memory_limit(worth * 0.4 / MB)
    assert await bits(model) == wanted and manager.last_run["moved_bytes"] > worth * 0.6
    assert manager.residency.used <= manager.limit_bytes


async def test_a_limit_below_the_largest_part_is_refused_before_a_weight_is_read() -> None:
    manager, events = manager_of(0.5 * MB), []
    with pytest.raises(MemoryBudgetError, match=r"embeddings\.word_embeddings\.weight alone 512,000"):
        await load(manager, progress_callback=lambda event: events.append(event["status"]))
    assert "progress" not in events and not manager.models and backends(manager)[0].live_buffers() == 0


async def test_without_a_local_origin_evicted_weights_stay_on_the_host_with_a_warning() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 0.6)
    model = await load(manager)
    for entry in manager.registry:
        if entry.storage.is_resident:
            entry.storage.origin = None
    assert await bits(model) == wanted and await bits(model) == wanted
    held(manager, model)
    model.unload()
    assert not list(manager.registry)


async def test_simultaneous_models_and_runs_keep_their_bits() -> None:
    recipes = RECIPE, f"{RECIPE},seed=1"
    wanted = [await alone(recipe) for recipe in recipes]
    manager = manager_of(wanted[0][1] * 0.7)
    models = [await load(manager, recipe) for recipe in recipes]
    found = await asyncio.gather(*[bits(model) for model in models * 3])
    assert found == [each for each, _ in wanted] * 3
    held(manager, models[-1])
    model = models.pop(0)
    running = asyncio.ensure_future(bits(model))
    await asyncio.sleep(0)
    model.unload()
    with pytest.raises(TensorReleased):
        await running
    assert await bits(models[0]) == wanted[1][0]
    held(manager, models[0])


async def test_heads_on_one_backbone_and_the_activation_cache() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 0.6, cache=True)
    models = [await load(manager), await load(manager)]
    together = await manager.run_together([(model, IDS) for model in models])
    assert [{name: (await t.read()).tobytes() for name, t in each.items()} for each in together] == [wanted] * 2
    assert manager.last_run["reused_in_run"] > 0 and manager.last_run["segments"] > 1
    assert await bits(models[1]) == wanted and manager.last_run["reused_from_cache"] > 0


async def test_a_run_waits_for_a_tensor_that_is_arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of several chunks is allocated at the first one, and can be evicted only when it is complete."""
    wanted, worth = await alone()
    for module in (weights, weight_loader):
        monkeypatch.setattr(module, "CHUNK", 1 << 18)
    manager = manager_of(worth * 1.1, "cpu")
    model = await load(manager, device="cpu")
    begun, goes_on, read = asyncio.Event(), asyncio.Event(), WeightsFile.read

    async def held_up(file: WeightsFile, run: Any) -> Any:
        if any(chunk.start > chunk.entry.start for chunk in run):
            begun.set()
            await goes_on.wait()
        return await read(file, run)

    monkeypatch.setattr(WeightsFile, "read", held_up)
    loading = asyncio.ensure_future(load(manager, f"{RECIPE},seed=1", device="cpu"))
    await begun.wait()
    for _ in range(20):  # until its first chunk is allocated
        await asyncio.sleep(0)
    assert not all(entry.storage.is_resident for entry in manager.registry)
    running = asyncio.ensure_future(bits(model))
    for _ in range(100):
        await asyncio.sleep(0)
    goes_on.set()
    assert await running == wanted
    await loading


@pytest.mark.parametrize("turns", [1, 20, 150])
async def test_a_cancelled_run_leaves_nothing(turns: int) -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 0.5)
    model = await load(manager)
    running = asyncio.ensure_future(bits(model))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert model.device.memory()["activations"] == 0 and not any(e.storage.in_use for e in manager.registry)
    assert await bits(model) == wanted
    held(manager, model)


async def test_a_lost_device_and_a_move() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 0.6, "webgpu", "cpu")
    model = await load(manager)
    assert await bits(model) == wanted
    backends(manager)[0].lost = True
    assert await bits(model) == wanted
    held(manager, model)
    await model.to("cpu")
    assert await bits(model) == wanted and manager.last_run["device"] == "cpu"
    held(manager, model)


async def test_pins_and_values_in_use_make_a_model_stream_that_fitted_before() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 1.4)
    model = await load(manager)
    assert await bits(model) == wanted and manager.last_run["segments"] == 0
    count = int(worth * 0.6) // 4
    await manager.make_room(count * 4)
    ones = np.ones(count, np.float32)
    pinned = manager.register_shared_tensor("pinned", ones.shape, "webgpu", "other", data=ones)
    pinned.pin()
    for _ in range(2):
        assert await bits(model) == wanted
        held(manager, model)
    pinned.unpin()
    assert await bits(model) == wanted and manager.last_run["segments"] == 0
    await manager.make_room(count * 4)
    value = await tc.ones(ones.shape, device=model.device).realize()
    for _ in range(2):
        assert await bits(model) == wanted and manager.last_run["segments"] > 1
        assert manager.report().peak_bytes <= manager.limit_bytes
    del value
    assert await bits(model) == wanted and manager.last_run["segments"] == 0


async def test_a_model_that_does_not_fit_beside_values_in_use_loads_and_streams() -> None:
    wanted, worth = await alone()
    manager = manager_of(worth * 2)
    value = await tc.ones((int(worth * 1.3) // 4,), device=manager.devices.opened[0]).realize()
    model = await load(manager)
    assert manager.report().peak_bytes <= manager.limit_bytes
    assert await bits(model) == wanted and manager.last_run["moved_bytes"] > 0.2 * worth
    del value
    assert await bits(model) == wanted and manager.last_run["segments"] == 0


async def test_a_tensor_that_cannot_fit_is_refused_at_its_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    _, worth = await alone()
    for module in (weights, weight_loader):
        monkeypatch.setattr(module, "CHUNK", 1 << 16)
    manager = manager_of(worth * 1.2)
    value = await tc.ones((int(worth * 1.1) // 4,), device=manager.devices.opened[0]).realize()
    positions: list[int] = []
    with pytest.raises(MemoryBudgetError):
        await load(manager, progress_callback=lambda event: positions.append(event["loaded"]))
    assert max(positions) < worth / 2 and not manager.models and value.nbytes > worth


@pytest.mark.parametrize("share", [1.3, 1.2, 1.1, 1.02, 0.8])
async def test_a_decoder_whose_cache_does_not_fit_beside_its_weights_streams(share: float) -> None:
    recipe = "smollm2-135m,dtype=F32,layers=2,hidden_size=64,intermediate_size=128,num_attention_heads=4"
    recipe += ",num_key_value_heads=2,vocab_size=600"
    ids = np.arange(10)[None]
    found = []
    for times in (8, share):
        manager = manager_of(RandomCheckpoint(recipe).nbytes * times)
        model = await load(manager, recipe)
        found.append(np.asarray(await model.generate(input_ids=ids, max_new_tokens=4)).tolist())
        assert manager.report().peak_bytes <= manager.limit_bytes
    assert found[0] == found[1]


async def test_a_compiled_function_of_shared_tensors() -> None:
    manager = manager_of(1.5 * MB)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((256, 256)).astype(np.float32) / 16 for _ in range(12)]
    weights = []
    for number, array in enumerate(arrays):
        await manager.make_room(array.nbytes)
        weights.append(manager.register_shared_tensor(f"w{number}", array.shape, "webgpu", "one", data=array).tensor)

    def stack(x: tc.Tensor) -> tc.Tensor:
        for weight in weights:
            x = tc.relu(tc.linear(x, weight))
        return x

    x = rng.standard_normal((2, 256)).astype(np.float32)
    wanted = x
    for array in arrays:
        wanted = np.maximum(wanted @ array.T, 0)
    call = tc.compile(stack, device=manager.devices.opened[0])
    np.testing.assert_allclose(await (await call(x)).read(), wanted, rtol=1e-4, atol=1e-6)
    assert manager.report().peak_bytes <= manager.limit_bytes


@pytest.mark.parametrize("kinds", [{"webnn", "cpu"}, {"cpu"}])
async def test_a_device_that_refuses_an_operation_streams_as_well(
    monkeypatch: pytest.MonkeyPatch, kinds: set[str]
) -> None:
    if "webnn" in kinds:  # moving the whole graph is too expensive
        monkeypatch.setattr(CpuBackend, "facts", replace(CpuBackend.facts, rates=Rates(0.0, 1e-6, 1e9, 1e9)))
    found = []
    for share in (4.0, 0.6):
        device = graph_device("layer_norm")
        manager = tc.TensorSharingManager(64, tc.Devices([device, *device.fallbacks], {}), activation_cache=False)
        model = await load(manager, device=device)
        await manager.set_memory_limit(share * manager.report().unique_weight_bytes / MB)
        found += [await bits(model), await bits(model)]
        assert {part["device"] for part in manager.last_run["parts"]} == kinds
        assert (manager.last_run["segments"] > 1) == (share < 1)
        assert manager.residency.used <= manager.limit_bytes
        if share < 1 and "webnn" in kinds:
            assert manager.last_run["transferred_bytes"] > 0
    assert found[0] == found[1] == found[2] == found[3]


async def test_a_model_that_nothing_stores_is_announced_before_it_is_downloaded(tmp_path: Path) -> None:
    wanted, worth = await alone()
    with serve(tmp_path, wrap=with_random) as url:
        for cache, said in ((None, True), (str(tmp_path), False)):
            manager, heard = manager_of(worth * 0.6), []
            with warnings_of("tensorcommons") as warnings:
                model = await tc.from_pretrained(
                    f"{url}random/{RECIPE}", manager=manager, device="webgpu", tokenizer=False, cache=cache,
                    progress_callback=lambda event: heard.append((event["status"], len(warnings))),  # noqa: B023
                )  # fmt: skip
            assert any("will be kept in the memory" in text for text in warnings) == said
            assert next(count for status, count in heard if status == "progress") == said
            assert await bits(model) == wanted
            copies = [e.storage.nbytes for e in manager.registry if e.storage.host_copy is not None]
            assert bool(copies) == said
