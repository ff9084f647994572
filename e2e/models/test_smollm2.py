"""A chat with SmolLM2's real weights beside an embedder, under a small limit; `make long` runs it."""

from __future__ import annotations

import pytest

CHAT = """
NOTES = ("The keys are under the blue flower pot.", "The meeting moved to Thursday at ten.")
manager = tc.TensorSharingManager(limit, devices=place.devices, activation_cache=False)
similar = await tc.pipeline("sentence-similarity", place.models + "/all-MiniLM-L6-v2", manager=manager)
chat = await tc.pipeline(
    "text-generation", place.models + "/SmolLM2-135M-Instruct", manager=manager, dtype="float16"
)
answers = []
for question in ("Where are the keys?", "When do we meet?"):
    note = NOTES[(await similar([question, *NOTES]))[0, 1:].argmax()]
    messages = [{"role": "system", "content": f"You know: {note}"}, {"role": "user", "content": question}]
    answers.append((await chat(messages, max_new_tokens=16))[0]["generated_text"][-1]["content"])
stats = manager.get_stats()
manager.close()
{"answers": answers, **{key: stats[key] for key in ("evictions", "restores", "peak_memory_bytes")}}
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["webnn", "webgpu"])
def test_a_chat_beside_an_embedder_is_equal_under_a_limit_below_both(lab, kind):
    free, tight = (lab.run(CHAT, kind=kind, limit=limit) for limit in (1024, 320))
    assert tight["answers"] == free["answers"] and all(free["answers"])
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
