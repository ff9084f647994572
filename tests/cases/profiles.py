"""Profiles of models: one row per dispatch, the models of each row, and unchanged results."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

import tensorcommons as tc
from tensorcommons.errors import TensorCommonsError
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
    plan = tc.explain_plan(model, {"input_ids": IDS})
    assert f"{dispatches} dispatches:" in plan, plan
    listed = re.findall(rf"^  ([\d, ]+): .* on {place.device.kind}$", plan, re.MULTILINE)
    assert sorted(int(each) for line in listed for each in line.split(", ")) == list(range(dispatches)), plan
    for step in (0, dispatches - 1):
        if place.device.kind == "webgpu":
            source = tc.shader_source(model, {"input_ids": IDS}, step)
            assert source == profile.rows[step].source and "@compute" in source
        else:
            assert f"runs on {place.device.kind}, which has no shaders" in _complaint(model, step)
    for step in (dispatches, -1, True, "0"):
        assert f"has 0 to {dispatches - 1}" in _complaint(model, step)
    model.unload()


def _complaint(model: tc.Model, step: Any) -> str:
    try:
        tc.shader_source(model, {"input_ids": IDS}, step)
    except TensorCommonsError as error:
        return str(error)
    raise AssertionError(f"step {step!r} was not refused")


async def diagnostics_name_what_is_there_and_no_secrets(place: Place) -> None:
    manager = place.manager(123)
    address = f"{place.tiny}/tiny-bert"
    source = f"{address}?token=hf_secret" if "://" in address else address
    model = await tc.from_pretrained(source, manager=manager, device=place.device)
    text = tc.diagnostics()
    assert f"tensorcommons {tc.__version__}" in text and f"NumPy {np.__version__}" in text, text
    assert f"{place.device.kind}: {place.device.name}" in text and f"{place.device.total:,} bytes" in text, text
    assert f"of {123 * 2**20:,} bytes" in text and "tiny-bert" in text, text
    assert "hf_secret" not in text and "token" not in text, text
    if place.device.kind == "webgpu":
        assert "maxBufferSize" in text and "features: " in text, text
    model.unload()
    manager.close()
    assert f"of {123 * 2**20:,} bytes" not in tc.diagnostics()


async def generation_in_a_profile_writes_the_same_tokens(place: Place) -> None:
    manager = place.manager()
    files = checkpoint(place, "tiny-llama")
    model = await tc.from_pretrained(files, manager=manager, device=place.device, tokenizer=False)
    expected = await model.generate(IDS, max_new_tokens=6, eos_token_id=())
    async with tc.profile() as profile:
        np.testing.assert_array_equal(await model.generate(IDS, max_new_tokens=6, eos_token_id=()), expected)
    assert (model.name,) in {row.models for row in profile.rows}
    assert any("paged_append" in row.nodes for row in profile.rows)
    np.testing.assert_array_equal(await model.generate(IDS, max_new_tokens=6, eos_token_id=()), expected)
    model.unload()
