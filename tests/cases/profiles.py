"""Profiles of models: as many rows as dispatches, whose the rows are, and the same answers."""

from __future__ import annotations

import numpy as np

import tensorcommons as tc
from tests.cases import Place
from tests.cases.seeded import checkpoint

IDS = np.arange(12).reshape(1, 12) % 50 + 1


async def a_model_has_a_row_for_each_dispatch(place: Place) -> None:
    manager = place.manager(activation_cache=False)
    model = await tc.from_pretrained(f"{place.tiny}/tiny-bert", manager=manager, device=place.device)
    expected = await (await model(input_ids=IDS))["last_hidden_state"].read()
    async with tc.profile() as profile:
        for _ in range(2):
            answer = await model(input_ids=IDS)
            np.testing.assert_array_equal(await answer["last_hidden_state"].read(), expected)
    dispatches = manager.get_stats()["last_run"]["dispatches"]
    assert len(profile.rows) == 2 * dispatches, (len(profile.rows), dispatches)
    assert [row.step for row in profile.rows] == [*range(dispatches)] * 2
    assert {row.models for row in profile.rows} == {(model.name,)}
    assert all(row.milliseconds for row in profile.rows), profile.notes
    assert profile.rows[0].milliseconds == profile.rows[dispatches].milliseconds  # timed once
    assert model.name in profile.table()
    model.unload()


async def generation_in_a_profile_writes_the_same_tokens(place: Place) -> None:
    manager = place.manager()
    files = checkpoint(place, "tiny-llama")
    model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
    expected = await model.generate(IDS, max_new_tokens=6, eos_token_id=())
    async with tc.profile() as profile:
        np.testing.assert_array_equal(await model.generate(IDS, max_new_tokens=6, eos_token_id=()), expected)
    assert (model.name,) in {row.models for row in profile.rows}
    assert any("kv_cache_append" in row.nodes for row in profile.rows)
    np.testing.assert_array_equal(await model.generate(IDS, max_new_tokens=6, eos_token_id=()), expected)
    model.unload()
