"""Runs of models one after another: activations kept by a run for later ones, and their eviction."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tensorcommons.errors import TensorCommonsError
from tensorcommons.graph.bound import compile_fused
from tensorcommons.graph.fuse import fuse
from tensorcommons.graph.graph import Graph
from tensorcommons.graph.reuse import Remainder, ReusePoint, remainder_of
from tensorcommons.graph.views import owner_of
from tensorcommons.sharing.storage import Storage
from tests.cases import Place, only, slow
from tests.cases.harness import held, let_go
from tests.cases.pressure import _lose, with_reserve
from tests.cases.sharing import SPLADE, _ids, _load
from tests.cases.support import raises

MB = 2**20
BACKBONE = 60  # minimum of nodes of the tiny backbone, which all these runs share
Arrays = dict[str, np.ndarray[Any, Any]]


async def _read(outputs: dict[str, tc.Tensor]) -> Arrays:
    return {name: await tensor.read() for name, tensor in outputs.items()}


async def _pair(place: Place, manager: TensorSharingManager) -> tuple[Model, Model]:
    """Load a base and a head on it."""
    base, head = [await _load(place, manager, f"{place.tiny}/{name}") for name in ("tiny-bert", "tiny-head")]
    return base, head


def _run(manager: TensorSharingManager) -> dict[str, Any]:
    last: dict[str, Any] = manager.get_stats()["last_run"]
    return last


def _same(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


async def a_head_finds_what_the_base_computed(place: Place) -> None:
    plain, manager = place.manager(activation_cache=False), place.manager()
    inputs = _ids(2, 7)
    results = []
    for each in (plain, manager):
        base, head = await _pair(place, each)
        first = await _read(await base(**inputs))
        computed = _run(each)
        second = await _read(await head(**inputs))
        results.append((first, second, computed, _run(each)))
        if each is manager:
            assert each.report().reused_from_cache == _run(each)["reused_from_cache"]
            assert 0 < each.report().activation_cache_bytes <= each.report().by_category["activations"]
        base.unload()
        head.unload()
        await let_go()
        assert each.report().activation_cache_bytes == 0
    off, on = results
    assert _same(off[0], on[0]) and _same(off[1], on[1]), "the same bits with the cache on and off"
    assert off[3]["reused_from_cache"] == 0 == on[2]["reused_from_cache"] and off[3]["executed"] > 20
    assert on[3]["executed"] + on[3]["reused_from_cache"] == off[3]["executed"] and on[3]["executed"] < BACKBONE / 2
    assert on[3]["dispatches"] < off[3]["dispatches"] / 2


async def the_order_does_not_matter(place: Place) -> None:
    manager = place.manager()
    base, head = await _pair(place, manager)
    inputs = _ids(2, 7)
    await head(**inputs)
    alone = _run(manager)["executed"]
    wanted = await _read(await base(**inputs))
    assert 0 < _run(manager)["executed"] < BACKBONE / 2 < BACKBONE < alone, (
        "the run of the head must keep the activation of the backbone"
    )
    manager.activations.clear()
    assert _same(wanted, await _read(await base(**inputs)))
    assert _run(manager)["reused_from_cache"] == 0
    base.unload()
    head.unload()


async def a_call_again_computes_nothing(place: Place) -> None:
    device, manager = place.device, place.manager()
    base, head = await _pair(place, manager)
    inputs, others = _ids(2, 5), _ids(2, 5, seed=1)
    wanted = [await _read(await base(**each)) for each in (inputs, others)]
    calls = device.backend.calls
    again = await base(**inputs)
    assert device.backend.calls == calls and _run(manager)["executed"] == _run(manager)["dispatches"] == 0
    assert _same(await _read(again), wanted[0]) and _same(await _read(await base(**others)), wanted[1])
    masked = {**inputs, "attention_mask": np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])}
    assert not _same(await _read(await base(**masked)), wanted[0]) and _run(manager)["reused_from_cache"] == 0
    hidden = await base(**inputs, outputs=["last_hidden_state"])
    assert _run(manager)["executed"] == 0 and _same(
        await _read(hidden), {"last_hidden_state": wanted[0]["last_hidden_state"]}
    )
    again["pooler_output"].release()  # releasing one tensor does not free it
    assert _same(await _read(await base(**inputs)), wanted[0])
    together = await manager.run_together([(base, inputs), (head, inputs), (base, others)])
    assert _same(await _read(together[0]), wanted[0]) and _same(await _read(together[2]), wanted[1])
    assert 0 < _run(manager)["executed"] < BACKBONE / 2
    del again, hidden
    together.clear()
    await let_go()
    assert device.memory()["activations"] > 0
    manager.optimize_memory_usage()
    assert device.memory()["activations"] == 0, "kept activations must be freed"
    assert _same(await _read(await base(**inputs)), wanted[0]) and _run(manager)["reused_from_cache"] == 0
    base.unload()
    head.unload()


async def inputs_under_other_names_are_found(place: Place) -> None:
    """Merging with another model gives the same arrays other positions."""
    manager = place.manager()
    base, head = await _pair(place, manager)
    first, second = _ids(2, 7), _ids(2, 7, seed=1)
    await base(**second)
    wanted = await _read(await base(**first))
    answers = await manager.run_together([(head, second), (base, first)])
    assert _same(await _read(answers[1]), wanted)
    assert 0 < _run(manager)["executed"] < BACKBONE / 2, "both backbones must be reused"
    base.unload()
    head.unload()


async def kept_activations_go_with_the_weights(place: Place) -> None:
    device, manager = place.device, place.manager()
    base, head = await _pair(place, manager)
    await head(**_ids(2, 7))
    await let_go()
    both = manager.report().activation_cache_bytes
    head.unload()
    await let_go()
    left = manager.report().activation_cache_bytes
    assert 0 < left < both, "values of the head's weights must go, those of the backbone stay"
    await base(**_ids(2, 7))
    assert _run(manager)["reused_from_cache"] > 20
    base.unload()
    await let_go()
    assert manager.report().activation_cache_bytes == 0 == len(manager.activations)
    assert held(device)["bytes"] == 0 or device.memory()["activations"] == 0


async def outputs_outlive_what_kept_them(place: Place) -> None:
    manager = place.manager()
    base, head = await _pair(place, manager)
    inputs = _ids(2, 7)
    wanted = await _read(await base(**inputs))
    mine = await base(**inputs)
    base.unload()
    head.unload()
    assert len(manager.activations) == 0 and _same(await _read(mine), wanted)
    del mine
    await let_go()
    assert place.device.memory()["activations"] == 0


async def kept_activations_leave_first(place: Place) -> None:
    manager = place.manager(1)
    base, head = await _pair(place, manager)
    inputs = _ids(2, 7)
    wanted = await _read(await base(**inputs))
    await let_go()
    assert len(manager.activations) >= 2
    free, kept = manager.residency.usable - manager.residency.used, manager.report().activation_cache_bytes
    await manager.make_room(free + 1)
    assert len(manager.activations) > 0
    assert manager.get_stats()["evictions"] == 0 and all(e.storage.is_resident for e in manager.registry)
    await manager.make_room(free + kept)
    assert len(manager.activations) == 0 and manager.get_stats()["evictions"] == 0
    shown = await base(**inputs)
    room = manager.residency.usable - manager.residency.used + manager.residency.cached_bytes
    await manager.make_room(room + place.device.idle_scratch_bytes + 1)  # the value of a live tensor stays
    assert _same(await _read(shown), wanted)
    assert manager.get_stats()["evictions"] > 0
    del shown
    base.unload()
    head.unload()


async def the_cache_has_its_share_and_no_more(place: Place) -> None:
    manager = place.manager(1, activation_share=0.02)
    base, head = await _pair(place, manager)
    for seed in range(30):
        await base(**_ids(2, 7, seed=seed))
        await let_go()
        assert manager.report().activation_cache_bytes <= 0.02 * MB
    assert len(manager.activations) > 2
    await base(**_ids(2, 7, seed=29))
    assert _run(manager)["executed"] == 0, "the last one must be kept"
    await base(**_ids(2, 7, seed=0))
    assert _run(manager)["reused_from_cache"] == 0, "the first one must be evicted"
    base.unload()
    head.unload()
    for bad in (-1, 2, "half"):
        try:
            place.manager(activation_share=bad)
        except TensorCommonsError:
            continue
        raise AssertionError(f"{bad!r} was accepted as a share")


async def short_memory_keeps_less_and_computes_the_same(place: Place) -> None:
    wide, inputs = place.manager(activation_cache=False), _ids(8, 30)
    base, head = await _pair(place, wide)
    wanted = await _read(await head(**inputs))
    needed = wide.report().peak_bytes
    base.unload()
    head.unload()
    del base, head, wide
    await let_go()
    usable = needed * 21 // 20
    limit = with_reserve(usable) if place.device.kind == "webgpu" else usable / MB
    narrow = place.manager(limit, activation_share=1.0)
    base, head = await _pair(place, narrow)
    for _ in range(3):
        assert _same(await _read(await head(**inputs)), wanted)
        await let_go()
        assert narrow.report().peak_bytes <= narrow.limit_bytes
    assert narrow.get_stats()["evictions"] == 0, "a weight was evicted for an activation"
    base.unload()
    head.unload()


async def a_cancelled_run_leaves_nothing(place: Place) -> None:
    manager = place.manager()
    base, head = await _pair(place, manager)
    cancelled = 0
    for turns in (1, 2, 3, 5, 8, 13, 21, 34):
        await let_go()
        before = manager.report().activation_cache_bytes, place.device.memory()["activations"], len(manager.activations)
        task = asyncio.ensure_future(head(**_ids(2, 30, seed=turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await task
            continue
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            cancelled += 1
            await let_go()
            after = manager.report().activation_cache_bytes, place.device.memory()["activations"]
            assert after[0] == before[0] and len(manager.activations) == before[2]
            assert after[1] <= before[1] + 64, "only constants of a trace may be uploaded"
        del task
    assert cancelled
    base.unload()
    head.unload()


async def an_output_given_as_data_is_not_written_under_anybody(place: Place) -> None:
    manager = place.manager()
    (base, head), kind = await _pair(place, manager), place.device.kind
    inputs = _ids(2, 7)
    wanted = await _read(await base(**inputs))
    output = (await base(**inputs))["pooler_output"]
    shared = manager.register_shared_tensor("pooled", output.shape, kind, "m", data=output)
    del output
    await let_go()
    await shared.write(np.zeros(shared.shape, np.float32))
    assert _same(await _read(await base(**inputs)), wanted)
    manager.release_model_tensors("m")
    manager.optimize_memory_usage()
    base.unload()
    head.unload()


async def what_cannot_take_the_inputs_is_left_out(place: Place) -> None:
    """A pair head refuses odd batches, so it is not compared; the base still runs."""
    manager = place.manager()
    base = await _load(place, manager, f"{place.models}/{SPLADE[0]}")
    head = await _load(place, manager, f"{place.models}/{SPLADE[1]}")
    outputs = await base(**_ids(1, 5), outputs=["last_hidden_state"])
    assert np.isfinite(await outputs["last_hidden_state"].read()).all()
    await raises(TensorCommonsError, head(**_ids(1, 5)), "even")
    base.unload()
    head.unload()


async def a_model_that_comes_has_no_other_traced_again(place: Place) -> None:
    """Each model is traced once per shape, whatever models run with it or are loaded later."""
    manager = place.manager()
    inputs = _ids(2, 5)
    models = [await _load(place, manager, f"{place.tiny}/{name}") for name in ("tiny-bert", "tiny-head") * 3]
    wanted = [await _read(await model(**inputs)) for model in models]
    assert [model.traces.count for model in models] == [1] * 6
    models.append(await _load(place, manager, f"{place.tiny}/tiny-bert"))
    for model, was in zip(models[:6], wanted, strict=True):
        assert _same(await _read(await model(**inputs)), was)
    await manager.run_together([(model, inputs) for model in models])
    assert [model.traces.count for model in models] == [1] * 7
    await models[0](**_ids(2, 40))  # another shape: reuse by the others is computed once
    await models[1](**_ids(2, 40))
    assert [model.traces.count for model in models] == [2] * 7
    for model in models:
        model.unload()


@slow
async def five_heads_one_after_another(place: Place) -> None:
    off, manager = place.manager(activation_cache=False), place.manager()
    inputs = _ids(2, 11, words=30_000)
    found: list[tuple[list[Arrays], list[dict[str, Any]]]] = []
    for each in (off, manager):
        models = [await _load(place, each, f"{place.models}/{name}") for name in SPLADE]
        answers, runs = [], []
        for model in models:
            answers.append(await _read(await model(**inputs)))
            runs.append(_run(each))
        found.append((answers, runs))
        for model in models:
            model.unload()
        models.clear()
        await let_go()
    (plain, every), (cached, fewer) = found
    assert all(map(_same, plain, cached)), "the same bits with the cache on and off"
    executed = [[run["executed"] for run in runs] for runs in (every, fewer)]
    print(f"nodes executed, one model after another: {executed[0]} without the cache, {executed[1]} with it")
    backbone = max(executed[0][0] - executed[1][0], executed[0][1] - executed[1][1])
    assert executed[1][0] == executed[0][0] and backbone > 30
    assert all(after <= before - backbone for before, after in zip(executed[0][1:], executed[1][1:], strict=True))


@only("webgpu")
async def a_lost_device_takes_the_kept_activations_with_it(place: Place) -> None:
    manager = place.manager()
    base, head = await _pair(place, manager)
    inputs = _ids(2, 7)
    wanted = await _read(await base(**inputs))
    await _lose(place.device)
    assert _same(await _read(await base(**inputs)), wanted)
    assert _run(manager)["reused_from_cache"] == 0
    base.unload()
    head.unload()


@slow
async def a_cut_at_any_value_gives_the_same_bits(place: Place) -> None:
    """Every value of a model in turn is kept by one run and reused by another."""
    device, manager = place.device, place.manager(activation_cache=False)
    model = await _load(place, manager, f"{place.tiny}/tiny-bert")
    ids = np.random.default_rng(0).integers(2, 100, (2, 8)).astype(np.int32)
    request = model.request({"input_ids": ids}, model.architecture.outputs)
    whole = fuse(Graph(request.trace.nodes))

    async def run(rest: Remainder, given: dict[str, Storage]) -> tuple[list[bytes], list[Storage]]:
        found = await (await compile_fused(device, rest.graph)).run(request.arrays, given)
        read = [(await tc.Tensor.of_storage(*each).read()).tobytes() for each in found]
        return read, [storage for storage, _ in found]

    wanted, _ = await run(remainder_of(whole, [], [], keep=False), {})
    values = [node for node in whole.nodes if node.op is not None and owner_of(node)[0] is node]
    tried = values if device.kind == "cpu" else values[:: len(values) // 6]  # each takes a second to compile
    for number, node in enumerate(tried):
        cut = ReusePoint(node, str(number), (), ())
        first = remainder_of(whole, [cut], [], keep=True)
        read, storages = await run(first, {})
        assert read[: len(wanted)] == wanted, f"keeping {node.op} changes the outputs"
        kept = storages[-1] if first.kept else storages[[id(each) for each in whole.outputs].index(id(node))]
        rest = remainder_of(whole, [cut], [cut], keep=True)
        read, _ = await run(rest, dict.fromkeys(rest.taken, kept))
        assert read == [wanted[i] for i in rest.missing], f"reusing {node.op} changes the outputs"
    print(f"{len(tried)} of {len(values)} values")
    model.unload()
