"""Quantised checkpoints from every source: parts that are far from each other, in several files, damaged at random."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorcommons as tc
from scripts import paths
from tensorcommons.bridge.byte_buffer import pool
from tensorcommons.errors import InvalidWeights, TensorCommonsError
from tensorcommons.hub import weights
from tests.cases import Place
from tests.cases.checkpoints import INDEX, WEIGHTS
from tests.cases.published_files import AWQ, BLOCKS, CHANNELS, GPTQ, PACKED, PLAIN, both, header_of
from tests.cases.seeded import checkpoint
from tests.hub.server import FileServer, serving

GOLDENS = str(paths.ROOT / "tests/goldens")
PLACE: Any = Place(None, "", "", "", GOLDENS)  # type: ignore[arg-type]
SIZE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256}
ORDERED = {**GPTQ, "group": 32, "ordered": True}
LAYOUTS: tuple[dict[str, Any], ...] = (ORDERED, {**AWQ, "group": 64}, {**PACKED, "group": 64}, {**PLAIN, "group": 64})
LAYOUTS += ({**CHANNELS, "scale": "F32"}, {**BLOCKS, "block": (64, 64)})
MOST_BYTES, MOST_SECONDS = 64 << 20, 20.0


@pytest.fixture
def server():
    with serving(FileServer()) as running:
        yield running


@pytest.fixture(scope="module")
def files():
    return both(checkpoint(PLACE, "tiny-llama", **SIZE), ORDERED)[0]


async def load(source: Any, **options: Any) -> Any:
    manager = tc.TensorSharingManager(256, devices=await tc.open_devices(prefer=["cpu"]))
    return await tc.from_pretrained(source, manager=manager, tokenizer=False, **options)


async def logits(model: Any) -> Any:
    return await (await model(input_ids=np.array([[2, 17, 31]])))["logits"].read()


@pytest.mark.parametrize("mode", ["good", "plain", "chunked", "patchy"])
@pytest.mark.parametrize("bare", [False, True])
async def test_servers_send_each_byte_a_few_times(files, server, tmp_path, mode, bare):
    """The parts of 14 matrices are in four places of the file, which no server sends 14 times."""
    for name, data in files.items():
        server.files[f"m/{name}"] = data
        server.bare |= {f"m/{name}"} if bare else set()
    golden, taken = await logits(await load(files)), pool.taken
    for cache in (None, tmp_path):
        server.requests.clear()
        assert np.array_equal(await logits(await load(f"{server.address}/{mode}/m", cache=cache)), golden)
        asked = sum(path.endswith(WEIGHTS) for path, _ in server.requests)
        assert asked <= 8, asked
    assert pool.taken == taken


async def test_an_estimate_counts_each_byte_once(files, server):
    for name, data in files.items():
        server.files[f"m/{name}"] = data
    manager = tc.TensorSharingManager(256, devices=await tc.open_devices(prefer=["cpu"]))
    estimate = await tc.estimate_load(f"{server.address}/good/m", manager=manager)
    header, _ = header_of(files[WEIGHTS])
    held = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values())
    assert sum(estimate.stored_formats.values()) == estimate.download_bytes == held
    model = await tc.from_pretrained(f"{server.address}/good/m", manager=manager, tokenizer=False)
    orders = model.weight_formats["int32"]  # four and two of each layer are equal, which is known after they are read
    assert orders == 2 * 4 * (128 + 128 + 256) and estimate.weight_bytes - model.weight_bytes == 2 * 4 * (3 + 1) * 128


async def test_early_parts_are_kept_up_to_a_limit(files, server, monkeypatch):
    for name, data in files.items():
        server.files[f"m/{name}"] = data
    golden = await logits(await load(files))
    monkeypatch.setattr(weights, "EARLY", 1000)
    for mode in ("good", "plain"):
        assert np.array_equal(await logits(await load(f"{server.address}/{mode}/m")), golden)


async def test_a_stored_file_is_read_without_the_network(files, server, tmp_path):
    for name, data in files.items():
        server.files[f"m/{name}"] = data
    golden = await logits(await load(f"{server.address}/good/m", cache=tmp_path))
    server.requests.clear()
    again = await load(f"{server.address}/good/m", cache=tmp_path)
    assert np.array_equal(await logits(again), golden)
    assert not any(path.endswith(WEIGHTS) and place for path, place in server.requests)


def _split(raw: bytes, first: Any) -> dict[str, bytes]:
    """Divide a file into two; ``first`` tells whether a tensor is in the first."""
    header, data = header_of(raw)
    made: dict[str, bytes] = {}
    places = {}
    for file in ("model-1.safetensors", "model-2.safetensors"):
        at, table, held = 0, {}, b""
        for name, entry in header.items():
            if first(name) == (file == "model-1.safetensors"):
                some = data[slice(*entry["data_offsets"])]
                table[name] = {**entry, "data_offsets": [at, at + len(some)]}
                at, held, places[name] = at + len(some), held + some, file
        text = json.dumps(table).encode()
        made[file] = len(text).to_bytes(8, "little") + text + held
    return {**made, INDEX: json.dumps({"weight_map": places}).encode()}


async def test_parts_of_a_matrix_are_in_one_of_several_files(files):
    golden = await logits(await load(files))
    rest = {name: data for name, data in files.items() if name != WEIGHTS}
    model = await load({**rest, **_split(files[WEIGHTS], lambda name: ".layers.0." in name)})
    assert np.array_equal(await logits(model), golden)
    with pytest.raises(InvalidWeights, match="is not in the same file"):
        await load({**rest, **_split(files[WEIGHTS], lambda name: not name.endswith("scales"))})


changes = st.one_of(
    st.tuples(st.just("shape"), st.lists(st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 2**40]), max_size=3)),
    st.tuples(
        st.just("dtype"), st.sampled_from(["F32", "F16", "BF16", "I32", "I8", "F8_E4M3", "I64", "U8", "BOOL", "F64"])
    ),
    st.tuples(st.just("gone"), st.none()),
    st.tuples(st.just("bytes"), st.binary(min_size=4, max_size=64)),
)
settings_of = st.dictionaries(
    st.sampled_from(
        ["bits", "group_size", "desc_act", "sym", "quant_method", "checkpoint_format", "weight_block_size"]
    ),
    st.one_of(
        st.sampled_from(
            [0, 1, 4, 8, 16, 32, 64, 128, 256, 2**31, -1, None, True, False, "gptq", "awq", "fp8", "gptq_v2"]
        ),
        st.lists(st.integers(-1, 300), max_size=3),
    ),
    max_size=2,
)


async def _attempt(files: dict[str, bytes]) -> None:
    devices = await tc.open_devices(prefer=["cpu"])
    manager, message = tc.TensorSharingManager(64, devices=devices), ""
    try:
        model = await tc.from_pretrained(files, manager=manager, tokenizer=False)
        await model(**model.architecture.inputs.example())
        model.unload()
    except TensorCommonsError as error:
        message = str(error)
    kept = devices.opened[0].memory()["weights"]
    devices.close()
    assert kept == 0 and len(message) < 2_000, message


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(LAYOUTS),
    st.lists(st.tuples(st.integers(0, 200), changes), max_size=3),
    settings_of,
)
def test_damaged_files_load_or_raise_a_typed_error(how, damage, config):
    files, _ = both(checkpoint(PLACE, "tiny-llama", **SIZE, num_hidden_layers=1), how)
    header, data = header_of(files[WEIGHTS])
    parts = {name: (dict(entry), data[slice(*entry["data_offsets"])]) for name, entry in header.items()}
    mine = [name for name in parts if "_proj" in name]
    for number, (what, value) in damage:
        name = mine[number % len(mine)]
        if name not in parts:
            continue
        entry, raw = parts[name]
        if what == "gone":
            del parts[name]
        elif what == "bytes":
            parts[name] = entry, (value + raw[len(value) :])[: len(raw)]
        else:
            parts[name] = {**entry, what: value}, raw
    at, table = 0, {}
    for name, (entry, raw) in parts.items():
        table[name] = {**entry, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(table).encode()
    whole = len(text).to_bytes(8, "little") + text + b"".join(raw for _, raw in parts.values())
    settings_now = json.loads(files["config.json"])
    settings_now["quantization_config"].update(config)
    begun = time.process_time()
    tracemalloc.start()
    try:
        asyncio.run(_attempt({**files, "config.json": json.dumps(settings_now).encode(), WEIGHTS: whole}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES, f"{peak >> 20} MB"
    assert time.process_time() - begun < MOST_SECONDS
