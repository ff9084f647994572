"""Cases of sharing and of bad input on the browser's WebGPU, with its buffers counted."""

from __future__ import annotations

import pytest

from tests.cases.marked import params


@pytest.mark.parametrize(
    "case", params("sharing", "activations", "pressure", "moving", "bad_input", "concurrent_tasks", kind="webgpu")
)
def test_on_webgpu(lab, case):
    for line in lab.case(case):
        print(line)


def test_shared_tensors_on_webnn_are_exact_in_every_dtype(lab):
    lab.run(
        """
rng = np.random.default_rng(0)
devices = await tc.open_devices()
m = tc.TensorSharingManager(64, devices=devices)
for dtype in ("float32", "float16", "int32", "uint32", "int64", "int8", "uint8", "bool"):
    values, other = (rng.integers(0, 256, 24 * np.dtype(dtype).itemsize, np.uint8) for _ in "ab")
    if dtype == "bool":
        values, other = values & 1, other & 1
    values, other = (each.view(dtype).reshape(4, 6) for each in (values, other))
    t = m.register_shared_tensor(dtype, (4, 6), "webnn", "a", ["b"], dtype=dtype, data=values)
    assert (t.storage_type, (await t.read()).tobytes()) == ("webnn", values.tobytes()), dtype
    await t.write(other)
    assert (await t.read()).tobytes() == other.tobytes(), dtype
    assert (await t.create_view(dtype + " view", (1, 0), (2, 6)).read()).tobytes() == other[1:3].tobytes(), dtype
    for kind in ("webgpu", "cpu"):
        there = await t.copy_to(kind, name=f"{dtype} on {kind}")
        back = await there.copy_to("webnn", name=f"{dtype} back from {kind}")
        assert (there.storage_type, back.storage_type) == (kind, "webnn")
        assert (await there.read()).tobytes() == (await back.read()).tobytes() == other.tobytes(), (dtype, kind)
devices.close()
""",
        kind="webnn",
    )


AUTO = """
from tensorcommons.backends.select import MATRICES, ROW
from tests.cases.seeded import checkpoint
devices = await tc.open_devices()
m = tc.TensorSharingManager(64, devices=devices)
encoder = await tc.from_pretrained(f"{place.tiny}/tiny-bert", manager=m)
decoder = await tc.from_pretrained(checkpoint(place, "tiny-llama"), manager=m, tokenizer=False)
models = (encoder, decoder)
fastest = [devices.decide(product=product).device.kind for product in (MATRICES, ROW)]
assert [model.device.kind for model in models] == fastest and decoder.why == devices.decide(product=ROW).why
ids, prompt = np.array([[2, 17, 31, 5, 3]]), np.array([[3, 1, 4, 1, 5]])
calls = [(encoder, {"input_ids": ids}), (decoder, {"input_ids": prompt})]
read = lambda outs: asyncio.gather(*(next(iter(out.values())).read() for out in outs))
wanted, text = await read(await m.run_together(calls)), await decoder.generate(prompt, max_new_tokens=8)
for kinds in (("cpu", "webnn"), ("webnn", "cpu"), ("auto", "auto")):
    for model, kind in zip(models, kinds):
        await model.to(kind)
    found = await read(await m.run_together(calls))
    assert all(np.allclose(a, b, rtol=0, atol=1e-4) for a, b in zip(found, wanted))
    assert (await decoder.generate(prompt, max_new_tokens=8) == text).all()
    on = {model.name: model.device for model in m.report().models}
    assert on == {model.name: model.device.kind for model in models}
assert [model.device.kind for model in models] == fastest
del found, wanted
encoder.unload()
decoder.unload()
m.optimize_memory_usage()
left = {device.kind: device.memory()["weights"] for device in devices.opened}
devices.close()
left
"""


def test_auto_gives_an_encoder_and_a_decoder_the_device_that_is_fastest_for_each(lab):
    assert lab.run(AUTO, kind="webnn") == {"webgpu": 0, "webnn": 0, "cpu": 0}
