"""SmolLM2's real weights in the browser: token for token what transformers writes, and a chat under a small limit.

What takes a software adapter over half a minute is marked ``long``, for `make long`.
"""

from __future__ import annotations

import json

import pytest

from scripts.paths import ROOT

GOLDEN = json.loads((ROOT / "tests" / "goldens" / "smollm2.json").read_text())["written"][0]

WRITE = """
model = await tc.from_pretrained(
    place.models + "/SmolLM2-135M-Instruct", manager=place.manager(), device=place.device, tokenizer=False
)
written = await model.generate([ids], max_new_tokens=count, eos_token_id=())
run = model.manager.last_run
model.unload()
[written[0, len(ids):].tolist(), run["device"], run["models"], run["js_calls"]]
"""

CHAT = """
from examples import chat_beside_embedder
found = await chat_beside_embedder.main(
    place.models + "/SmolLM2-135M-Instruct", place.models + "/all-MiniLM-L6-v2",
    max_memory_mb=limit, max_new_tokens=16, devices=place.devices,
)
found
"""


def _writes(lab, kind, count):
    new, device, models, calls = lab.run(WRITE, kind=kind, ids=GOLDEN["ids"], count=count)
    assert new == GOLDEN["new"][:count]
    assert (device, models) == (kind, ["SmolLM2-135M-Instruct"]) and calls <= 2


@pytest.mark.parametrize(("kind", "count"), [("webnn", 64), ("webgpu", 8)])
def test_tokens_are_those_of_the_reference(lab, kind, count):
    _writes(lab, kind, count)


@pytest.mark.long
def test_64_tokens_on_webgpu_are_those_of_the_reference(lab):
    _writes(lab, "webgpu", 64)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["webnn", "webgpu"])
def test_a_chat_beside_an_embedder_says_the_same_under_a_limit_below_both(lab, kind):
    free, tight = (lab.run(CHAT, kind=kind, limit=limit) for limit in (1024, 320))
    assert tight["answers"] == free["answers"] and all(answer["answer"] for answer in free["answers"])
    assert not free["evictions"] and free["peak_memory_bytes"] > 320 * 2**20
    assert tight["evictions"] and tight["restores"] and tight["peak_memory_bytes"] <= 320 * 2**20
    print(tight)
