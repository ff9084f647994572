"""GGUF files as sources of models: addresses, the cache, interruptions, memory, and a real file."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorcommons as tc
from scripts.paths import CONVERTED, DOWNLOADS, ROOT
from tensorcommons.bridge.byte_buffer import CHUNK, PIECE
from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.gguf_source import GgufSource
from tensorcommons.hub.sources import open_source
from tensorcommons.models.gguf import open_gguf
from tensorcommons.models.weight_loader import Units, halves_of_pairs
from tests.cases import Place
from tests.cases.gguf_files import in_pairs, metadata_for, quantized, stored, tensors_for, write
from tests.cases.seeded import checkpoint
from tests.hub.server import FileServer, serving

GOLDENS = str(ROOT / "tests" / "goldens")
REAL = DOWNLOADS / "sources" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = json.loads(Path(GOLDENS, "smollm2.json").read_text("utf-8"))
IDS = np.array([[2, 17, 31]])


@pytest.fixture(scope="module")
def llama():
    """A small file, and one whose table takes several chunks."""
    place: Any = Place(None, "", "", "", GOLDENS)  # type: ignore[arg-type]
    files = checkpoint(place, "tiny-llama", hidden_size=256, intermediate_size=256)
    tensors = {name: stored("F16", array) for name, array in tensors_for("llama", files).items()}
    large = {**tensors, "token_embd.weight": ("Q4_0", (100_000, 256), quantized("Q4_0", (100_000, 256), 0))}
    return write(metadata_for("llama", files), tensors), write(metadata_for("llama", files), large)


@pytest.fixture
def server():
    with serving(FileServer()) as running:
        yield running


async def load(source: Any, manager: Any = None, **options: Any) -> Any:
    manager = manager or tc.TensorSharingManager(1024, devices=await tc.open_devices(prefer=["cpu"]))
    return await tc.from_pretrained(source, manager=manager, tokenizer=False, **options)


async def logits(model: Any) -> Any:
    return await (await model(input_ids=IDS))["logits"].read()


def test_the_form_of_an_address_selects_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hub = "https://huggingface.co"
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "m.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    cases: dict[Any, str] = {
        "org/name/m.gguf": f"{hub}/org/name/resolve/main/m.gguf",
        "org/name/sub/m.GGUF": f"{hub}/org/name/resolve/main/sub/m.GGUF",
        "org/name@v2/m.gguf": f"{hub}/org/name/resolve/v2/m.gguf",
        "org/name@refs/pr/3/m.gguf": f"{hub}/org/name/resolve/refs%2Fpr%2F3/m.gguf",
        "https://host/a%20b/m%20n.gguf": "https://host/a%20b/m%20n.gguf",
        "https://host/m.gguf?token=1": "https://host/m.gguf?token=1",
        "m.gguf": (tmp_path / "m.gguf").as_uri(),
        "./m.gguf": (tmp_path / "m.gguf").as_uri(),
        str(tmp_path / "m.gguf"): (tmp_path / "m.gguf").as_uri(),
        tmp_path / "m.gguf": (tmp_path / "m.gguf").as_uri(),
        (tmp_path / "m.gguf").as_uri(): (tmp_path / "m.gguf").as_uri(),
    }
    for spec, address in cases.items():
        source = open_source(spec)
        assert isinstance(source, GgufSource), spec
        assert source.folder.key(source.file).partition("#")[0] == address, spec
        assert source.key("config.json").startswith(address)
    others: tuple[Any, ...] = (
        "org/name",
        tmp_path / "folder.gguf",
        "./folder.gguf",
        {"config.json": b"", "m.gguf": b""},
    )
    assert not any(isinstance(open_source(spec), GgufSource) for spec in others)
    for source in (open_source({"m.gguf": b""}), open_source(b"GGUF")):
        assert isinstance(source, GgufSource) and source.is_local
    with pytest.raises(DownloadError, match="not a model source"):
        open_source(b"other")


async def test_every_source_gives_the_same_model(llama, server, tmp_path):
    (tmp_path / "m.gguf").write_bytes(llama[0])
    server.files["org/m.gguf"] = llama[0]
    manager = tc.TensorSharingManager(1024, devices=await tc.open_devices(prefer=["cpu"]))
    golden = await logits(await load({"m.gguf": llama[0]}, manager))
    once = manager.report().unique_weight_bytes
    addresses = [f"{server.address}/{mode}/org/m.gguf" for mode in ("good", "plain", "chunked", "redirect")]
    for source in (llama[0], tmp_path / "m.gguf", str(tmp_path / "m.gguf"), *addresses):
        assert np.array_equal(await logits(await load(source, manager)), golden)
    assert manager.report().unique_weight_bytes == once


async def test_a_stored_file_is_not_downloaded_again(llama, server, tmp_path):
    server.files["org/m.gguf"] = llama[1]
    address = f"{server.address}/good/org/m.gguf"
    events: list[dict[str, Any]] = []
    first = await logits(await load(address, cache=tmp_path))
    asked = len(server.requests)
    model = await load(address, cache=tmp_path, progress_callback=events.append)
    assert np.array_equal(await logits(model), first)
    assert len(server.requests) == asked + 1  # the comparison of the file's version
    done = next(event for event in events if event["status"] == "done")
    assert done["from_cache"] > 0.99 * done["total"] > 0
    assert events[-1]["status"] == "ready" and events[-1]["loaded"] == events[-1]["total"]
    assert any(event["status"] == "progress" and 0 < event["loaded"] < event["total"] for event in events)
    server.files["org/m.gguf"] = llama[0]
    assert not np.array_equal(await logits(await load(address, cache=tmp_path)), first)


async def test_an_interrupted_download_continues(llama, server, tmp_path):
    server.files["org/m.gguf"] = llama[1]
    address = f"{server.address}/good/org/m.gguf"
    manager = tc.TensorSharingManager(1024, devices=await tc.open_devices(prefer=["cpu"]))
    loading: Any = None

    def stop(event: dict[str, Any]) -> None:
        if event["status"] == "progress" and event["loaded"] > CHUNK + (CHUNK >> 1):
            loading.cancel()

    loading = asyncio.ensure_future(load(address, manager, cache=tmp_path, progress_callback=stop))
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert not manager.models and not manager.report().unique_weight_bytes
    asked = len(server.requests)
    model = await load(address, manager, cache=tmp_path)
    again = [int(wanted.removeprefix("bytes=").partition("-")[0]) for _, wanted in server.requests[asked:] if wanted]
    assert again and min(again) >= CHUNK  # the header and the first chunk are not requested again
    assert np.array_equal(await logits(model), await logits(await load({"m.gguf": llama[1]})))


@pytest.mark.parametrize(("dtype", "least"), [("float32", 100_000_000), ("int8", 27_000_000), (None, 14_000_000)])
async def test_a_tensor_is_never_whole_on_the_host(llama, dtype, least):
    devices = await tc.open_devices(prefer=["cpu"])
    manager = tc.TensorSharingManager(1024, devices=devices)
    tracemalloc.start()
    try:
        await load({"m.gguf": llama[1]}, manager, dtype=dtype)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = devices.opened[0].memory()["weights"]
    assert held > least
    assert peak - held < 6 * CHUNK + 40 * PIECE, f"{(peak - held) >> 20} MB beside the weights, {now >> 20} MB after"


async def test_the_memory_limit_holds(llama):
    manager = tc.TensorSharingManager(64, devices=await tc.open_devices(prefer=["cpu"]))
    with pytest.raises(tc.errors.MemoryBudgetError):
        await load({"m.gguf": llama[1]}, manager, dtype="float32")
    assert not manager.models and not manager.report().unique_weight_bytes


async def test_the_costs_are_known_before(llama):
    manager = tc.TensorSharingManager(1024, devices=await tc.open_devices(prefer=["cpu"]))
    files: Any = {"m.gguf": llama[1]}
    before = await tc.estimate_load(files, manager=manager)
    model = await load(files, manager)
    assert before.weight_bytes == model.weight_bytes and before.stored_formats["Q4_0"] == 100_000 * 256 // 32 * 18
    assert (await tc.estimate_load(llama[1], manager=manager)).model_type == "llama"


def test_units_are_whole_whatever_the_pieces():
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 7 * 34, np.uint8).tobytes()
    for size in (1, 2, 34, 34 * 7):
        for step in (1, 5, 34, 100, 1000):
            units = Units(size)
            parts = [bytes(units.add(memoryview(data[at : at + step]))) for at in range(0, len(data), step)]
            assert b"".join(parts) == data and all(len(part) % size == 0 for part in parts)


def test_pairs_become_halves():
    for shape, heads in (((12, 5), 2), ((8,), 1), ((24, 3), 4)):
        halves = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        pairs = np.ascontiguousarray(in_pairs(halves, heads))
        row = pairs.nbytes // shape[0]
        found = np.frombuffer(halves_of_pairs(memoryview(pairs.tobytes()), shape[0] // heads, row), np.float32)
        assert np.array_equal(found.reshape(shape), halves) and not np.array_equal(pairs, halves)


async def test_a_real_file_has_the_config_and_the_tokenizer_of_its_folder():
    """SmolLM2's folder was made by ``scripts.gguf_llama``, with the package `gguf`."""
    folder = CONVERTED / "SmolLM2-135M-Instruct"
    source: Any = open_source(REAL)
    async with AsyncExitStack() as stack:
        opened, _ = await open_gguf(source, stack)
        made = {name: json.loads(await source.read(name)) for name in ("config.json", "tokenizer.json")}
        options = json.loads(await source.read("tokenizer_config.json"))
        generation = json.loads(await source.read("generation_config.json"))
    wanted = {name: json.loads((folder / name).read_text("utf-8")) for name in made}
    config = wanted["config.json"]
    assert {key: made["config.json"][key] for key in config.keys() - {"torch_dtype"}} == {
        key: value for key, value in config.items() if key != "torch_dtype"
    }
    mine, theirs = made["tokenizer.json"], wanted["tokenizer.json"]
    for key in ("vocab", "merges"):
        assert mine["model"][key] == theirs["model"][key]
    for key in ("added_tokens", "pre_tokenizer", "decoder", "post_processor", "normalizer"):
        assert mine[key] == theirs[key]
    stated = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    for key in ("bos_token", "eos_token", "pad_token", "chat_template"):
        assert options[key] == stated[key]
    ends = json.loads((folder / "generation_config.json").read_text("utf-8"))
    assert generation == {**ends, "eos_token_id": [ends["eos_token_id"]]}
    assert {"Q4_1", "F32"} <= {entry.dtype for entry in opened.header.entries}


@pytest.mark.slow
async def test_a_real_file_writes_as_the_reference():
    """The reference is `transformers` on the folder in float16 that was made from the file."""
    cases = SMOLLM2["written"]
    manager = tc.TensorSharingManager(1024, devices=await tc.open_devices(prefer=["cpu"]))
    model = await load(REAL, manager, dtype="float16")
    once = manager.report().unique_weight_bytes
    folder = await load(CONVERTED / "SmolLM2-135M-Instruct", manager, dtype="float16")
    assert manager.report().unique_weight_bytes == once, "the weights of both forms are equal"
    folder.unload()
    for case in cases[:2]:
        prompt = np.array([case["ids"]])
        text = (await model.generate(prompt, max_new_tokens=16))[0, prompt.shape[1] :].tolist()
        assert text == case["new"][: len(text)] and len(text) >= 8


async def test_files_beside_a_folder_are_named(tmp_path):
    (tmp_path / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidWeights, match=r"model\.Q4_K_M\.gguf.* pass its own address"):
        await load(tmp_path)
