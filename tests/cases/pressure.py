"""Memory pressure: models of several times the limit, used in turn, with unchanged results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.backends.budget import STAGING_RESERVE
from tensorcommons.errors import DeviceLost, MemoryBudgetError
from tests.cases import Place, only, rules, slow
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of
from tests.cases.harness import let_go
from tests.cases.support import raises, refused

MB = 2**20
SEQUENCES, STEPS = 3, 400
IDS = {
    "input_ids": np.array([[2, 17, 31, 5, 3], [2, 9, 9, 3, 0]]),
    "attention_mask": np.array([[1] * 5, [1] * 4 + [0]]),
}


def _variants(files: dict[str, bytes], count: int) -> list[dict[str, bytes]]:
    """Make checkpoints of one architecture without common tensors."""
    tensors = tensors_of(files)
    return [
        {
            **files,
            WEIGHTS: pack(
                {name: array * np.float32(1 + n / 64) + np.float32(n / 512) for name, array in tensors.items()}
            ),
        }
        for n in range(count)
    ]


async def _load_all(
    manager: tc.TensorSharingManager, place: Place, sources: Sequence[dict[str, bytes]]
) -> list[tc.Model]:
    return [
        await tc.from_pretrained(source, manager=manager, device=place.device, tokenizer=False) for source in sources
    ]


async def _answers(models: Sequence[tc.Model], inputs: dict[str, Any], rounds: int) -> list[np.ndarray[Any, Any]]:
    """Run every model in turn, several times; gives the hidden states."""
    found = []
    for _ in range(rounds):
        for model in models:
            outputs = await model(**inputs, outputs=("last_hidden_state",))
            found.append(await outputs["last_hidden_state"].read())
    return found


async def _under_pressure(
    place: Place, sources: Sequence[dict[str, bytes]], inputs: dict[str, Any], share: float
) -> None:
    free = place.manager(4096)
    models = await _load_all(free, place, sources)
    started = time.perf_counter()
    wanted = await _answers(models, inputs, 2)
    unlimited = time.perf_counter() - started
    worth = free.report().unique_weight_bytes
    for model in models:
        model.unload()
    limit = worth * share / MB
    manager = place.manager(limit)
    models = await _load_all(manager, place, sources)
    for entry in list(manager.registry)[::2]:
        if entry.storage.is_resident:
            entry.storage.origin = None  # these have to be read back before their eviction; the others are dropped
    started = time.perf_counter()
    found = await _answers(models, inputs, 2)
    seconds = time.perf_counter() - started
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    stats = manager.get_stats()
    assert stats["evictions"] and stats["restores"]
    assert manager.report().peak_bytes <= manager.limit_bytes
    print(
        f"{len(models)} models worth {worth:,} bytes under a limit of {manager.limit_bytes:,}: peak "
        f"{manager.report().peak_bytes:,}, {stats['evictions']} evictions, {stats['restores']} restores, "
        f"{seconds * 1000:,.0f} ms against {unlimited * 1000:,.0f} without a limit"
    )
    for model in models:
        model.unload()


@slow
async def nine_models_under_a_third_of_what_they_are_worth(place: Place) -> None:
    await _under_pressure(place, _variants(files_of(place, "tiny-bert"), 9), IDS, 0.35)


@only("webgpu")
async def four_real_models_under_a_third_of_what_they_are_worth(place: Place) -> None:
    from tensorcommons.hub.sources import open_source

    source = open_source(f"{place.models}/splade-tiny")
    async with await source.open(WEIGHTS) as stream:  # weights are never read whole
        weights = bytes(await stream.read_exact(stream.size or 0))
    files = {"config.json": await source.read("config.json"), WEIGHTS: weights}
    inputs = {"input_ids": np.array([[101, 7592, 2088, 102]])}
    await _under_pressure(place, _variants(files, 4), inputs, 0.34)


async def what_cannot_fit_says_who_holds_it_and_changes_nothing(place: Place) -> None:
    sources = _variants(files_of(place, "tiny-bert"), 2)
    manager = place.manager(0.3)
    (model,) = await _load_all(manager, place, sources[:1])
    for entry in manager.registry:
        entry.pin("test")
    before = (manager.report(), place.device.backend.live_buffers())
    for entry in manager.registry:
        entry.storage.touch()
    error = refused(
        place.device,
        MemoryBudgetError,
        lambda: manager.register_shared_tensor("large", (300, 300), place.device.kind),
    )
    assert isinstance(error, MemoryBudgetError)
    assert error.holders[0][0] == model.name and error.limit == manager.limit_bytes
    assert "raise max_memory_mb" in str(error)
    small = refused(
        place.device,
        MemoryBudgetError,
        lambda: manager.register_shared_tensor("small", (235, 235), place.device.kind),
    )
    assert "unpin " in str(small)
    assert (manager.report(), place.device.backend.live_buffers()) == before
    assert manager.get_shared_tensor("large") is None
    for entry in manager.registry:
        entry.unpin("test")
    model.unload()


async def tensors_come_back_bit_for_bit_in_every_dtype(place: Place) -> None:
    manager = place.manager(1)
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (37, 11)).astype(name) for name in tc.dtypes.ALL}
    arrays["float32"] = np.frombuffer(rng.bytes(37 * 11 * 4), np.float32).reshape(37, 11)  # including NaN payloads
    for name, array in arrays.items():
        manager.register_shared_tensor(name, array.shape, place.device.kind, "m", dtype=name, data=array)
    for entry in manager.registry:
        assert await entry.storage.evict()
    assert manager.report().by_category["weights"] == 0
    for name, array in arrays.items():
        tensor = manager.get_shared_tensor(name)
        assert tensor is not None
        assert (await tensor.read()).tobytes() == array.tobytes(), name
    manager.release_model_tensors("m")
    manager.optimize_memory_usage()


async def views_at_any_offset_read_and_write_their_parents_bytes(place: Place) -> None:
    manager = place.manager(1)
    for dtype in ("int8", "uint8", "bool", "float16", "float32", "int64"):
        array = (np.arange(7 * 13).reshape(7, 13) % 2).astype(dtype)
        tensor = manager.register_shared_tensor(dtype, array.shape, place.device.kind, dtype=dtype, data=array)
        for start, size in (
            ((0, 0), (7, 13)),
            ((1, 1), (3, 5)),
            ((6, 12), (1, 1)),
            ((2, 0), (4, 13)),
            ((0, 3), (7, 2)),
        ):
            view = tensor.create_view(f"{dtype} {start} {size}", start, size)
            window = tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))
            assert np.array_equal(await view.read(), array[window])
            fresh = (1 - array[window].astype(np.int64)).astype(dtype)
            await view.write(fresh)
            array[window] = fresh
            assert np.array_equal(await tensor.read(), array), (dtype, start, size)
    manager.optimize_memory_usage()


@only("webgpu")
async def a_lost_device_comes_back_with_what_has_an_origin(place: Place) -> None:
    manager = place.manager()
    (model,) = await _load_all(manager, place, _variants(files_of(place, "tiny-bert"), 1))
    wanted = await _answers([model], IDS, 1)
    kept = manager.register_shared_tensor("kept", (4,), place.device.kind, data=np.arange(4.0))
    await _lose(place.device)
    assert np.array_equal((await _answers([model], IDS, 1))[0], wanted[0])
    await raises(DeviceLost, kept.read())
    await asyncio.gather(place.device.recover(), place.device.recover())
    assert np.array_equal((await _answers([model], IDS, 1))[0], wanted[0])
    model.unload()
    manager.optimize_memory_usage()


@only("webgpu")
async def any_order_of_everything(place: Place) -> None:
    """Run the rules of the state machine on the real device, chosen by a seeded generator."""
    lost = 0
    for seed in range(SEQUENCES):
        rng = np.random.default_rng(seed)
        limit = rules.LIMITS[seed % len(rules.LIMITS)]
        manager = place.manager(with_reserve(limit))
        world = rules.World(manager, with_reserve, lambda: _lose(place.device))
        for step in range(STEPS):
            rule = str(rng.choice([*rules.RULES, *rules.USUAL]))
            chosen = {name: choices[int(rng.integers(len(choices)))] for name, choices in rules.RULES[rule].items()}
            try:
                await world.step(rule, **chosen)
            except Exception as error:
                error.add_note(f"at step {step} of seed {seed}: {rule} with {chosen}")
                raise
            lost += rule == "lose_the_device"
        world.close()
        del manager, world  # otherwise its limit would apply to the next one
        await let_go()
    print(f"{SEQUENCES * STEPS} steps, {lost} lost devices")
    assert lost


def with_reserve(usable: int) -> float:
    """Return the limit in MB that leaves ``usable`` bytes beside the reserve for reads."""
    return (usable + min(STAGING_RESERVE, usable // 12 * 4)) / MB


async def _lose(device: tc.Device) -> None:
    backend: Any = device.backend
    gpu = backend.bridge.proxy
    gpu.device.destroy()
    await gpu.gone
