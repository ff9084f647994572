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
