"""Random checkpoints: ranges are slices of the whole file, and served checkpoints load and compute."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import tensorcommons as tc
from scripts.paths import ROOT
from scripts.random_checkpoint import CHUNK, INDEX, PRESETS, RandomCheckpoint
from scripts.serve import serve
from scripts.serve_checkpoints import Stop, with_random
from tensorcommons.hub.safetensors import as_array, parse_header

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def stop():
    return Stop()


@pytest.fixture(scope="module")
def url(stop):
    with serve(ROOT / "tests" / "goldens", headers={}, wrap=lambda app: with_random(app, stop)) as address:
        yield f"{address}random/"


def ask(url: str, path: str, method: str = "GET", **headers: str):
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request(method, urlsplit(url).path + path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    try:
        return answer, answer.read()
    except http.client.IncompleteRead as error:
        return answer, error.partial
    finally:
        connection.close()


def tensors_of(checkpoint: RandomCheckpoint, file: str = WEIGHTS):
    raw = checkpoint.read(file)
    start = 8 + int.from_bytes(raw[:8], "little")
    entries = parse_header(bytes(raw[8:start]), len(raw) - start, file)
    return {entry.name: as_array(entry, bytearray(raw[entry.start : entry.stop])) for entry in entries}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_range_is_a_slice_of_the_whole(dtype):
    checkpoint = RandomCheckpoint(f"deep-llama,layers=3,vocab_size=300000,dtype={dtype}")
    whole = checkpoint.read(WEIGHTS)
    assert len(whole) == checkpoint.size(WEIGHTS) > 4 * CHUNK
    rng = np.random.default_rng(0)
    head = 8 + int.from_bytes(whole[:8], "little")
    for start in [0, 1, head - 1, head, head + 1, CHUNK, *rng.integers(0, len(whole), 20), len(whole) - 1]:
        for length in (1, 3, 777, CHUNK + 5, len(whole)):
            assert checkpoint.read(WEIGHTS, start, start + length) == whole[start : start + length]
    assert checkpoint.read(WEIGHTS, 5, 5) == b""


def test_a_tensor_longer_than_the_block_repeats_no_row():
    table = tensors_of(RandomCheckpoint("deep-llama,layers=1,vocab_size=600000,dtype=F16"))["embed_tokens.weight"]
    assert len(np.unique(table.view([("", table.dtype)] * 8))) == len(table)


def test_all_tensors_differ_and_seeds_share_common_tensors():
    first, second, other = (
        tensors_of(RandomCheckpoint(f"deep-bert,layers=30{more}")) for more in ("", ",seed=1,own=layer.29.", ",seed=1")
    )
    assert len({(array.shape, array.tobytes()) for array in first.values()}) == len(first)
    same = {name for name in first if np.array_equal(first[name], second[name])}
    assert same == {name for name in first if "layer.29." not in name}
    assert not [name for name in first if np.array_equal(first[name], other[name])]
    assert all(np.isfinite(array).all() and np.abs(array).max() < 4 for array in first.values())


def test_shards_hold_every_tensor_once():
    single, parts = RandomCheckpoint("deep-llama,layers=5"), RandomCheckpoint("deep-llama,layers=5,shards=3")
    table = json.loads(parts.read(INDEX))["weight_map"]
    files = sorted(set(table.values()))
    assert len(files) == 3
    found = {name: array for file in files for name, array in tensors_of(parts, file).items()}
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in tensors_of(single).items()
    }
    sizes = [parts.size(file) for file in files]
    assert max(sizes) < 2 * min(sizes)


@pytest.mark.parametrize("recipe", ["unknown", "deep-bert,what", "deep-bert,dtype=F64", "deep-bert,shards=0"])
def test_a_wrong_recipe_is_refused(recipe, url):
    with pytest.raises(ValueError, match=r"preset|option|dtype|shards"):
        RandomCheckpoint(recipe)
    assert ask(url, f"{recipe}/config.json")[0].status == 404


def test_responses_of_the_server(url):
    path, checkpoint = f"deep-bert,layers=2/{WEIGHTS}", RandomCheckpoint("deep-bert,layers=2")
    whole = checkpoint.read(WEIGHTS)
    answer, body = ask(url, path)
    etag = answer.headers["ETag"]
    assert (answer.status, body, answer.headers["Content-Length"]) == (200, whole, str(len(whole)))
    assert answer.headers["Last-Modified"] and etag != ask(url, f"deep-bert,layers=3/{WEIGHTS}")[0].headers["ETag"]
    answer, body = ask(url, path, "HEAD")
    assert (answer.headers["Content-Length"], body) == (str(len(whole)), b"")
    assert ask(url, path, If_None_Match=etag)[0].status == 304
    for wanted, piece in (
        ("bytes=10-19", slice(10, 20)),
        ("bytes=100-", slice(100, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-99999999", slice(5, None)),
    ):
        answer, body = ask(url, path, Range=wanted, If_Range=etag)
        start, end, _ = piece.indices(len(whole))
        assert (answer.status, body) == (206, whole[piece])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(whole)}"
    assert ask(url, path, Range="bytes=5-9", If_Range='"another"')[1] == whole
    assert ask(url, path, Range=f"bytes={len(whole)}-")[0].status == 416
    assert ask(url, "deep-bert/other.json")[0].status == 404


def test_a_cut_download_continues_after_the_cut(url, stop):
    path, whole = f"deep-bert,layers=2/{WEIGHTS}", RandomCheckpoint("deep-bert,layers=2").read(WEIGHTS)
    stop.cut = 2000
    try:
        assert ask(url, path)[1] == whole[:2000]
        assert ask(url, path, Range="bytes=2000-")[1] == whole[2000:]
    finally:
        stop.cut = None


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("deep-")])
async def test_a_served_checkpoint_loads_and_computes(name, url, stop):
    devices = await tc.open_devices(prefer=["cpu"])
    manager = tc.TensorSharingManager(64, devices=devices)
    model = await tc.from_pretrained(f"{url}{name},layers=2,dtype=BF16,shards=2", manager=manager, cache=None)
    inputs: dict[str, Any] = {"input_ids": np.arange(6).reshape(1, 6)}
    if name == "deep-t5":
        inputs["decoder_input_ids"] = inputs["input_ids"]
    elif name == "deep-vit":
        inputs = {"pixel_values": np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)}
    for output in (await model(**inputs)).values():
        values = await output.read()
        assert np.isfinite(values).all() and values.std() > 0.05
    model.unload()
    devices.close()


async def test_a_held_download_can_be_cancelled(url, stop):
    devices = await tc.open_devices(prefer=["cpu"])
    manager = tc.TensorSharingManager(64, devices=devices)
    stop.hold, arrived = 5000, asyncio.Event()
    loading = asyncio.ensure_future(
        tc.from_pretrained(
            f"{url}deep-bert,layers=2",
            manager=manager,
            cache=None,
            progress_callback=lambda event: arrived.set() if event["status"] == "progress" else None,
        )
    )
    try:
        await arrived.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    finally:
        stop.hold = None
    assert manager.report().unique_weight_bytes == 0
    devices.close()
