"""A chat with SmolLM2's real weights beside an embedder, under a small limit; `make long` runs it."""

from __future__ import annotations

import pytest

CHAT = """
from examples import chat_beside_embedder
found = await chat_beside_embedder.main(
    place.models + "/SmolLM2-135M-Instruct", place.models + "/all-MiniLM-L6-v2",
    max_memory_mb=limit, max_new_tokens=16, devices=place.devices,
)
found
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["webnn", "webgpu"])
def test_a_chat_beside_an_embedder_is_equal_under_a_limit_below_both(lab, kind):
    free, tight = (lab.run(CHAT, kind=kind, limit=limit) for limit in (1024, 320))
    assert tight["answers"] == free["answers"] and all(answer["answer"] for answer in free["answers"])
    assert not free["evictions"] and free["peak_memory_bytes"] > 320 * 2**20
    assert tight["evictions"] and tight["restores"] and tight["peak_memory_bytes"] <= 320 * 2**20
    print(tight)


AUTO = """
devices = await tc.open_devices()
m = tc.TensorSharingManager(1024, devices=devices)
model = await tc.from_pretrained(place.models + "/SmolLM2-135M-Instruct", manager=m, tokenizer=False)
await model.generate(np.array([[1, 2, 3]]), max_new_tokens=4)
found = [model.device.kind, m.last_run["device"], model.explain()]
devices.close()
found
"""


@pytest.mark.long
def test_without_a_hardware_gpu_it_runs_on_the_cpu_device(lab):
    kind, ran_on, why = lab.run(AUTO, kind="cpu")
    assert kind == ran_on == "cpu" and "it is the fastest: " in why and " ms for a product of one row, " in why
