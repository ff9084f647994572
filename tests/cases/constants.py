"""Weights of decoders as constants of WebNN's graphs: the same tokens, within the limit, first to leave."""

from __future__ import annotations

from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons import Model, TensorSharingManager
from tests.cases import Place, only
from tests.cases.checkpoints import WEIGHTS
from tests.cases.decoders import DECODERS, ENCODER_DECODERS
from tests.cases.seeded import checkpoint

PROMPT = np.arange(3, 8)[None]
LONG: dict[str, Any] = {"max_new_tokens": 40, "pad_token_id": 0, "eos_token_id": ()}


async def _load(place: Place, name: str, manager: TensorSharingManager) -> Model:
    return await tc.from_pretrained(checkpoint(place, name), manager=manager, device=place.device, tokenizer=False)


async def _written(place: Place, model: Model) -> list[int]:
    """Generate 40 tokens, and wait for the constants that this began to make."""
    tokens = await model.generate(PROMPT, **LONG)
    await place.device.backend.wait()
    return [int(token) for token in tokens[0]]


@only("webnn")
async def steps_with_constants_give_the_same_tokens(place: Place) -> None:
    for name in (*DECODERS, *ENCODER_DECODERS):
        manager = place.manager(activation_cache=False)
        model = await _load(place, name, manager)
        weights = manager.report().by_category["weights"]
        without = await _written(place, model)
        made = manager.report().by_category["constants"]
        assert 0 < made <= 2 * weights, (name, made, weights)
        assert await _written(place, model) == without, name
        assert manager.report().by_category["constants"] == made, f"{name}: a cache of the same size made them again"
        model.unload()
        assert place.device.memory()["constants"] == 0, name


@only("webnn")
async def a_longer_cache_uses_the_same_constants(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await _load(place, "tiny-llama", manager)
    await _written(place, model)
    made = manager.report().by_category["constants"]
    await model.generate(PROMPT, max_new_tokens=120, pad_token_id=0, eos_token_id=())
    await place.device.backend.wait()
    assert manager.report().by_category["constants"] == made
    model.unload()


@only("webnn")
async def constants_leave_before_anything_else(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await _load(place, "tiny-llama", manager)
    without = await _written(place, model)
    report = manager.report()
    made, others = report.by_category["constants"], report.device_bytes - report.by_category["constants"]
    assert made > 0
    tokens = [int(token) for token in (await model.generate(PROMPT, **LONG))[0]]
    await manager.set_memory_limit((others + made // 2) / 2**20)
    kept = manager.report()
    assert kept.by_category["constants"] <= made // 2 and kept.by_category["weights"] == report.by_category["weights"]
    assert kept.device_bytes <= kept.limit_bytes and kept.evicted_bytes == 0
    assert tokens == without == await _written(place, model), "some graphs with constants and some without"
    model.unload()


@only("webnn")
async def other_weights_and_weights_that_come_back_have_constants_of_their_own(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await _load(place, "tiny-llama", manager)
    without = await _written(place, model)
    files = checkpoint(place, "tiny-llama")
    head, numbers = files[WEIGHTS][:-4096], np.frombuffer(files[WEIGHTS][-4096:], np.float32)
    files[WEIGHTS] = head + numbers[::-1].tobytes()
    other = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
    theirs = await _written(place, other)  # by the same program
    assert theirs != without
    assert await _written(place, model) == without and await _written(place, other) == theirs
    for entry in list(manager.registry):
        await entry.storage.evict()
    assert place.device.memory()["constants"] == 0, "the weights of constants left"
    assert await _written(place, model) == without and await _written(place, other) == theirs
    for each in (model, other):
        each.unload()
