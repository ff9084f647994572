"""Sharing between models, measured by the bytes and buffers on the device."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import numpy as np

import tensorcommons as tc
from tensorcommons import Device, Model, TensorSharingManager
from tensorcommons.backends.base import Spec
from tensorcommons.errors import MemoryBudgetError, TensorReleased
from tensorcommons.hub.safetensors import iterate, read_header
from tensorcommons.hub.sources import open_source
from tensorcommons.models.text import TextInputs
from tests.cases import Place, only, slow
from tests.cases.checkpoints import WEIGHTS, files_of, pack, tensors_of
from tests.cases.harness import held, let_go, real_bytes
from tests.cases.support import near, numbers, raises

MB = 2**20
SPLADE = ("splade-tiny", *(f"splade-tiny-{head}" for head in ("nli", "relevance", "polarity", "relation-type")))
MINILM = ("all-MiniLM-L6-v2", "skill-head")
UNUSED = ("pooler.", "cls.predictions.decoder.", "position_ids")


async def _load(place: Place, manager: TensorSharingManager, source: Any, **options: Any) -> Model:
    return await tc.from_pretrained(source, manager=manager, device=place.device, tokenizer=False, **options)


async def _contents(address: str) -> dict[str, int]:
    """Return the bytes of each distinct tensor of a model and its base, read without the loader of the package."""
    source = open_source(address)
    config = json.loads(await source.read("config.json"))
    base = config.get("base_model_name_or_path")
    found = await _contents(f"{address.rpartition('/')[0]}/{base}") if base else {}
    async with await source.open(WEIGHTS) as stream:
        header = await read_header(stream, WEIGHTS)
        async for entry, data in iterate(stream, header):
            of_head = base is None and "Masked" in "".join(config["architectures"])
            if not any(word in entry.name for word in (UNUSED if of_head else UNUSED[1:])):
                found[hashlib.sha256(f"{entry.dtype}{entry.shape}".encode() + data).hexdigest()] = entry.nbytes
    return found


def _ids(rows: int, columns: int, seed: int = 0, words: int = 100) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(0, words, (rows, columns))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


async def _unique_bytes_and_unloading(place: Place, names: tuple[str, ...]) -> None:
    device, manager = place.device, place.manager()
    empty = held(device)
    contents = {name: await _contents(f"{place.models}/{name}") for name in names}
    models = {name: await _load(place, manager, f"{place.models}/{name}") for name in names}
    report = manager.report()
    unique = sum({digest: size for name in names for digest, size in contents[name].items()}.values())
    separate = sum(sum(contents[name].values()) for name in names)
    # The files of a head have the whole base; unused tensors (such as a vocabulary head) are not on the device.
    weights, buffers = device.memory()["weights"], device.backend.live_buffers()
    print(f"{len(names)} models: {weights:,} weight bytes on the device, {real_bytes(device):,} in {buffers} buffers")
    print(f"  separate copies: {report.separate_weight_bytes:,}; saved {report.saved_bytes:,}")
    assert separate >= report.separate_weight_bytes > 1.3 * unique
    assert abs(device.memory()["weights"] - unique) <= 0.01 * unique
    assert abs(real_bytes(device) - unique) <= 0.01 * unique
    assert (report.unique_weight_bytes, report.by_category["weights"]) == (device.memory()["weights"],) * 2
    assert report.saved_bytes == report.separate_weight_bytes - report.unique_weight_bytes
    assert round(sum(model.attributed_bytes for model in report.models)) == report.unique_weight_bytes
    for model in report.models:
        assert model.total_bytes == model.exclusive_bytes + model.shared_bytes
    for name in list(models):
        exclusive = next(model.exclusive_bytes for model in manager.report().models if model.name == name)
        before, real = device.memory()["weights"], real_bytes(device)
        models.pop(name).unload()
        assert before - device.memory()["weights"] == exclusive
        assert 0 <= real - real_bytes(device) - exclusive < 16 * buffers  # a buffer is a multiple of 16 bytes
        assert {model.name for model in manager.report().models} == set(models)
    assert held(device) == empty and manager.report().tensors == ()


async def five_models_on_one_backbone(place: Place) -> None:
    await _unique_bytes_and_unloading(place, SPLADE)


@slow
async def minilm_and_the_skill_head(place: Place) -> None:
    await _unique_bytes_and_unloading(place, MINILM)


async def the_base_may_be_unloaded_first(place: Place) -> None:
    manager = place.manager()
    base = await _load(place, manager, f"{place.tiny}/tiny-bert")
    head = await _load(place, manager, f"{place.tiny}/tiny-head")
    inputs = _ids(2, 7)
    await base(**inputs)
    wanted = await (await head(**inputs))["logits"].read()
    base.unload()
    assert np.array_equal(await (await head(**inputs))["logits"].read(), wanted)
    head.unload()


@slow
async def a_hundred_rounds_of_a_head(place: Place) -> None:
    device, manager = place.device, place.manager()
    base = await _load(place, manager, f"{place.tiny}/tiny-bert")
    counts = []
    for number in range(100):
        head = await _load(place, manager, f"{place.tiny}/tiny-head")
        if number % 10 == 0:
            await head(**_ids(2, 7))
        head.unload()
        del head
        await let_go()
        counts.append(held(device))
    counts = counts[20:]  # the second run reuses what it has in common with the first, and then runs twice
    assert all(count == counts[0] for count in counts), {str(count) for count in counts}
    base.unload()


@slow
async def ten_rounds_of_splade(place: Place) -> None:
    device, counts = place.device, []
    manager = place.manager()
    for _ in range(10):
        model = await _load(place, manager, f"{place.models}/splade-tiny")
        await model(**_ids(1, 8, words=30_000))
        model.unload()
        del model
        await let_go()
        counts.append(held(device))
    assert all(count == counts[0] for count in counts), {str(count) for count in counts}


async def copies_under_other_names_share(place: Place) -> None:
    device, manager = place.device, place.manager()
    original = await _load(place, manager, f"{place.tiny}/tiny-bert")
    before = device.memory()["weights"]
    files = files_of(place, "tiny-bert")
    spelled = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in reversed(tensors_of(files).items())
    }
    copy = await _load(place, manager, {**files, WEIGHTS: pack(spelled)})
    masked = await _load(place, manager, f"{place.tiny}/tiny-bert-mlm")
    assert copy.name != original.name
    report = manager.report()
    shared = [tensor for tensor in report.tensors if copy.name in tensor.holders]
    assert len(shared) == len(spelled) and all(original.name in tensor.holders for tensor in shared)
    own = sum(tensor.nbytes for tensor in report.tensors if tensor.holders == (masked.name,))
    assert device.memory()["weights"] == before + own
    inputs = _ids(1, 5)
    ours, theirs = await manager.run_together([(original, inputs), (copy, inputs)])
    assert np.array_equal(await ours["last_hidden_state"].read(), await theirs["last_hidden_state"].read())
    last = manager.get_stats()["last_run"]
    assert last["executed"] * 2 == last["nodes"] + last["executed"] - last["reused_in_run"]
    assert last["reused_in_run"] >= last["executed"]
    for model in (original, copy, masked):
        model.unload()


async def calls_that_are_no_pairs(place: Place) -> None:
    manager = place.manager()
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    inputs, before = _ids(1, 5), held(place.device)
    for wrong in (("tiny-bert", inputs), (None, inputs), model, (model, inputs, None), 1):
        calls: list[Any] = [(model, inputs), wrong]
        await raises(tc.errors.TensorCommonsError, manager.run_together(calls), "(model, inputs) pairs")
        await raises(tc.errors.TensorCommonsError, manager.compile_together(calls), "(model, inputs) pairs")
    await raises(tc.errors.TensorCommonsError, manager.run_together([(model, inputs)], []), "1 calls", "not 0")
    assert held(place.device) == before
    model.unload()


async def one_model_loaded_twice_at_once(place: Place) -> None:
    device, manager = place.device, place.manager()
    alone = await _load(place, manager, f"{place.tiny}/tiny-bert")
    size, buffers = device.memory()["weights"], device.backend.live_buffers()
    alone.unload()
    allocated: list[int] = []
    with _allocations(device, allocated.append):
        first, second = await asyncio.gather(*(_load(place, manager, f"{place.tiny}/tiny-bert") for _ in range(2)))
    assert first.name != second.name
    assert (device.memory()["weights"], device.backend.live_buffers()) == (size, buffers)
    assert sum(allocated) == size, "a weight was uploaded twice"
    first.unload()
    near(await (await second(**_ids(1, 3)))["pooler_output"].read(), await _alone(place, _ids(1, 3)))
    second.unload()


@contextmanager
def _allocations(device: Device, watch: Callable[[int], object]) -> Iterator[None]:
    """Call ``watch`` with the bytes of each allocation on ``device``."""
    allocate = device.backend.allocate

    def watched(handle: int, nbytes: int, spec: Spec | None) -> None:
        allocate(handle, nbytes, spec)
        watch(nbytes)

    device.backend.allocate = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        del device.backend.allocate


async def _alone(place: Place, inputs: dict[str, Any]) -> Any:
    """Compute the pooler output of tiny-bert in a separate manager."""
    model = await _load(place, place.manager(), f"{place.tiny}/tiny-bert")
    result = await (await model(**inputs))["pooler_output"].read()
    model.unload()
    return result


# --- cancelling ---


async def cancelled_in_the_middle_of_a_load(place: Place) -> None:
    device, manager = place.device, place.manager()
    before = held(device)
    arrived = asyncio.Event()
    address = f"{place.faulty}/held/tiny-bert"  # half of the weights arrive, then nothing

    def on_progress(event: dict[str, Any]) -> None:
        if event["status"] == "download":
            arrived.set()

    task = asyncio.ensure_future(_load(place, manager, address, progress_callback=on_progress))
    await arrived.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert held(device) == before and manager.report().models == () and manager.report().tensors == ()
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    await model(**_ids(1, 3))
    model.unload()


async def cancelled_at_any_point_of_a_load(place: Place) -> None:
    device, manager = place.device, place.manager()
    before = held(device)
    finished = False
    turns = 0
    while not finished:
        task = asyncio.ensure_future(_load(place, manager, f"{place.tiny}/tiny-head"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, Model):
            result.unload()
        await let_go()
        assert held(device) == before and manager.report().models == (), f"after {turns} turns: {held(device)}"
        finished = isinstance(result, Model) or turns > 200
        turns = turns * 2 + 1


async def cancelled_at_any_point_of_a_run(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    inputs = _ids(2, 30)
    wanted = await _alone(place, inputs)
    for turns in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55):
        model = await _load(place, manager, f"{place.tiny}/tiny-bert")
        before = held(place.device)
        for _ in range(2):  # while it compiles, or while it runs
            task = asyncio.ensure_future(model(**inputs))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            del task
            await let_go()
            assert place.device.memory()["activations"] <= 64, place.device.memory()  # constants of the trace
        near(await (await model(**inputs))["pooler_output"].read(), wanted, 1e-6)
        model.unload()
        assert before["bytes"] > held(place.device)["bytes"]


async def unloaded_during_a_run(place: Place) -> None:
    manager = place.manager()
    inputs = _ids(2, 30)
    wanted = await _alone(place, inputs)
    for turns in (0, 1, 3, 8, 21, 55):
        model = await _load(place, manager, f"{place.tiny}/tiny-bert")
        task = asyncio.ensure_future(model(**inputs))
        for _ in range(turns):
            await asyncio.sleep(0)
        model.unload()
        with suppress(TensorReleased):
            near(await (await task)["pooler_output"].read(), wanted, 1e-6)
        del task
        assert manager.report().models == ()
        assert place.device.memory()["weights"] == 0


# --- running together ---


async def five_models_in_one_run(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    models = [await _load(place, manager, f"{place.models}/{name}") for name in SPLADE]
    inputs = _ids(2, 11, words=30_000)

    async def run(*calls: Any, outputs: Any = None) -> tuple[list[Any], dict[str, Any]]:
        results = await manager.run_together([(model, inputs) for model in calls], outputs)
        arrays = [{name: await tensor.read() for name, tensor in result.items()} for result in results]
        return arrays, manager.get_stats()["last_run"]

    _, backbone = await run(models[0], outputs=[["last_hidden_state"]])
    alone = [await run(model) for model in models]
    together, last = await run(*models)
    for (single,), result in zip((arrays for arrays, _ in alone), together, strict=True):
        assert all(np.array_equal(single[name], result[name]) for name in single), "the bits differ"
    own = sum(stats["executed"] - backbone["executed"] for _, stats in alone)
    each = [stats["executed"] for _, stats in alone]
    print(f"nodes: backbone {backbone['executed']}, models alone {each}, together {last['executed']}")
    assert backbone["executed"] < last["executed"] <= backbone["executed"] + own
    assert last["dispatches"] < 2 * backbone["dispatches"] + sum(
        s["dispatches"] - backbone["dispatches"] for _, s in alone
    )
    assert last["reused_in_run"] >= 4 * backbone["executed"]
    for model in models:
        model.unload()


async def inputs_are_prepared_once_a_run(place: Place) -> None:
    """Models with equal input handling prepare inputs once; an unloaded model is still refused."""
    manager = place.manager(activation_cache=False)
    models = [await _load(place, manager, f"{place.tiny}/tiny-head") for _ in range(3)]
    inputs, others = _ids(2, 7), _ids(2, 7)
    prepare = TextInputs.prepare
    with patch.object(TextInputs, "prepare", autospec=True, side_effect=prepare) as counted:
        results = await manager.run_together([(model, inputs) for model in models])
        assert counted.call_count == 1
        await manager.run_together([(models[0], inputs), (models[1], dict(inputs)), (models[2], others)])
        assert counted.call_count == 3  # the same arrays in another mapping
    wanted = await (await models[0](**inputs))["logits"].read()
    for result in results:
        assert np.array_equal(await result["logits"].read(), wanted)
    models[1].unload()
    await raises(TensorReleased, manager.run_together([(model, inputs) for model in models]), models[1].name)
    for model in models:
        model.unload()


async def different_inputs_are_not_mixed_up(place: Place) -> None:
    manager = place.manager()
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    first, second = _ids(1, 7), _ids(1, 7, seed=1)
    apart = [await (await model(**inputs))["pooler_output"].read() for inputs in (first, second)]
    for order in ((first, second), (second, first), (first, first)):
        results = await manager.run_together([(model, inputs) for inputs in order])
        for inputs, result in zip(order, results, strict=True):
            near(await result["pooler_output"].read(), apart[inputs is second], 1e-6)
    both = await asyncio.gather(*(model(**inputs) for inputs in (first, second)))
    for result, wanted in zip(both, apart, strict=True):
        assert np.array_equal(await result["pooler_output"].read(), wanted)
    model.unload()


@only("webgpu")
async def one_call_into_javascript_a_run(place: Place) -> None:
    device, manager = place.device, place.manager()
    for address in (f"{place.tiny}/tiny-bert", f"{place.models}/all-MiniLM-L6-v2"):  # 2 layers and 6
        model = await _load(place, manager, address)
        layers = model.config.num_hidden_layers
        for seed in range(3):
            await let_go()
            before = device.backend.calls
            out = await model(**_ids(1, 5, seed=seed), outputs=["sentence_embedding"])
            run = device.backend.calls - before
            await out["sentence_embedding"].read()
            read = device.backend.calls - before - run
            if seed:
                print(f"{layers} layers: {run} call for {manager.get_stats()['last_run']['dispatches']} dispatches")
                assert (run, read, manager.get_stats()["last_run"]["js_calls"]) == (1, 1, 1)
            del out
        model.unload()


# --- the budget ---


async def a_model_over_the_budget_changes_nothing(place: Place) -> None:
    device, limit = (
        place.device,
        0.12 if place.device.kind == "cpu" else 0.15,
    )  # a part of other devices is reserved for reads
    manager = place.manager(max_memory_mb=limit)
    small = await _load(place, manager, f"{place.tiny}/tiny-bert")
    for entry in manager.registry:
        entry.pin("test")  # otherwise the loaded model would be evicted
    before = held(device), manager.report()
    files = files_of(place, "tiny-bert")
    changed = {name: array + np.float32(1) for name, array in tensors_of(files).items()}
    error = await raises(MemoryBudgetError, _load(place, manager, {**files, WEIGHTS: pack(changed)}), "tiny-bert")
    assert error.limit == int(limit * MB) and error.needed > 0
    assert "tiny-bert" in dict(error.holders)
    after = manager.report()
    assert held(device) == before[0] and (after.models, after.tensors) == (before[1].models, before[1].tensors)
    assert device.total <= after.limit_bytes
    head = await _load(place, manager, f"{place.tiny}/tiny-head")  # 6 KB more: the base is loaded
    head.unload()
    small.unload()


async def a_run_over_the_budget_changes_nothing(place: Place) -> None:
    device, manager = place.device, place.manager(max_memory_mb=0.2)
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    await raises(MemoryBudgetError, model(**_ids(20, 40)), "tiny-bert")
    await let_go()
    assert device.memory()["activations"] <= 64 and device.total <= manager.limit_bytes
    await model(**_ids(1, 3))
    model.unload()


async def tensors_count_against_the_budget(place: Place) -> None:
    device = place.device
    manager = place.manager(max_memory_mb=1)
    x = tc.asarray(numbers(100_000), device=device)
    error = await raises(MemoryBudgetError, (x + 1 + tc.concat([x, x])[:100_000]).read())
    assert error.limit == MB and device.memory()["activations"] == x.nbytes
    y = await (x + 1).realize()
    assert manager.report().device_bytes == x.nbytes + y.nbytes + device.memory()["scratch"]


async def subscribers_see_every_change(place: Place) -> None:
    manager = place.manager()
    reports: list[Any] = []
    end = manager.subscribe(reports.append)
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    assert reports[-1] == manager.report() and reports[-1].models[0].name == "tiny-bert"
    json.dumps(reports[-1].to_dict())
    model.unload()
    assert reports[-1].models == ()
    end()
    count = len(reports)
    (await _load(place, manager, f"{place.tiny}/tiny-bert")).unload()
    assert len(reports) == count
