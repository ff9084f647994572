"""Host memory of a load, without that of the device: a few chunks for tensors of any size."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.backends.cpu.backend import CpuBackend
from tensorcommons.bridge import byte_buffer
from tensorcommons.models.weight_loader import ROOM
from tests.cases.checkpoints import WEIGHTS, pack, tensors_of, with_config
from tests.models.server import TINY

ROWS = 600_000  # of the largest tensor: 86 MB in float32
MOST = ROOM + 2 * byte_buffer.CHUNK + (4 << 20)  # bytes: chunks in flight, one in conversion, and overhead


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "loaded"), [("F32", "float32"), ("F16", "float32"), ("BF16", "float32"), ("F32", "float16")]
)
async def test_a_load_takes_a_few_chunks_of_host_memory(tmp_path, stored, loaded):
    tiny = {path.name: path.read_bytes() for path in (TINY / "tiny-bert").iterdir()}
    tensors = tensors_of(tiny)
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = np.random.default_rng(0).standard_normal((ROWS, tensors[name].shape[1]), np.float32)
    largest = tensors[name].nbytes
    if stored == "F16":
        tensors = {key: array.astype(np.float16) for key, array in tensors.items()}
    elif stored == "BF16":
        tensors = {key: (array.view(np.uint32) >> 16).astype(np.uint16) for key, array in tensors.items()}
    files = {
        **with_config(tiny, vocab_size=ROWS),
        WEIGHTS: pack(tensors, **{key: {"dtype": stored} for key in tensors}),
    }
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    del files, data, tensors
    manager = tc.TensorSharingManager(max_memory_mb=256)
    tracemalloc.start()
    try:
        options = {"manager": manager, "dtype": loaded, "tokenizer": False}
        model = await tc.from_pretrained(str(tmp_path), **options)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manager.report().device_bytes > largest * (0.9 if loaded == "float32" else 0.45)
    assert peak <= manager.report().device_bytes + MOST, f"{peak:,} bytes, {kept:,} of them kept by the device"
    model.unload()


async def test_a_load_compiles_nothing_that_the_device_does_not_keep(monkeypatch):
    compiled = []

    async def compile_counted(backend, plan, inner=CpuBackend.compile):
        compiled.append(plan)
        return await inner(backend, plan)

    monkeypatch.setattr(CpuBackend, "compile", compile_counted)
    devices = await tc.open_devices(("cpu",))
    manager = tc.TensorSharingManager(64, devices)
    model = await tc.from_pretrained(str(TINY / "tiny-bert"), manager=manager)
    assert not compiled
    await model(input_ids=np.arange(6)[None])
    assert len(compiled) == 1
    manager.close()
