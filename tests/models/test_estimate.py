"""estimate_load: figures before a load, compared with what the load then downloads and adds to the device."""

from __future__ import annotations

import pytest

import tensorcommons as tc
from scripts import paths
from tensorcommons.errors import DeviceUnavailable, InvalidWeights, UnsupportedDtype, UnsupportedModel
from tests.hub.counting import Counting, counted

TINY = paths.ROOT / "tests" / "goldens"
MODEL, TWIN, HEAD = "tiny-bert", "tiny-bert-mlm", "tiny-head"  # the same encoder to the byte


@pytest.fixture(scope="module")
def running():
    with counted(TINY) as counting:
        yield counting


@pytest.fixture
def server(running: Counting):
    running.since()
    return running


@pytest.fixture
def manager():
    with tc.TensorSharingManager() as manager:
        yield manager


@pytest.mark.parametrize("dtype", [None, "float16", "int8"])
async def test_a_first_load_costs_what_was_estimated(server, manager, tmp_path, dtype):
    estimate = await tc.estimate_load(server.url + MODEL, manager=manager, cache=tmp_path, dtype=dtype)
    server.since()
    assert (estimate.name, estimate.model_type, estimate.device) == (MODEL, "bert", "cpu")
    assert "feature-extraction" in estimate.tasks
    assert estimate.shared_bytes == estimate.shareable_bytes == 0
    assert estimate.new_bytes == estimate.weight_bytes
    assert sum(estimate.stored_formats.values()) == estimate.download_bytes == 4 * estimate.parameters
    assert manager.report().device_bytes == 0 and not manager.models

    model = await tc.from_pretrained(server.url + MODEL, manager=manager, cache=tmp_path, dtype=dtype)
    assert manager.report().unique_weight_bytes == model.weight_bytes == estimate.weight_bytes
    assert server.body_bytes() - estimate.download_bytes < 10_000, "the headers must be in the cache"

    again = await tc.estimate_load(server.url + MODEL, manager=manager, cache=tmp_path, dtype=dtype)
    assert (again.new_bytes, again.download_bytes) == (0, 0)
    assert again.shared_bytes == again.shareable_bytes == estimate.weight_bytes


async def test_only_the_header_of_a_large_file_is_read(manager, tmp_path):
    with counted(paths.MODELS) as server:
        estimate = await tc.estimate_load(f"{server.url}all-MiniLM-L6-v2", manager=manager, cache=tmp_path)
        assert server.body_bytes() < estimate.download_bytes / 4, "only what the connection buffers may have been sent"


async def test_a_head_shares_the_backbone_that_is_loaded(server, manager):
    backbone = await tc.from_pretrained(server.url + MODEL, manager=manager)
    estimate = await tc.estimate_load(server.url + HEAD, manager=manager)
    assert 0 < estimate.new_bytes < backbone.weight_bytes / 10
    assert estimate.download_bytes == estimate.new_bytes
    await tc.from_pretrained(server.url + HEAD, manager=manager)
    assert manager.report().unique_weight_bytes == backbone.weight_bytes + estimate.new_bytes


async def test_content_that_was_never_read_may_be_shared_and_is_counted_apart(server, manager, tmp_path):
    await tc.from_pretrained(server.url + MODEL, manager=manager, cache=tmp_path)
    first = await tc.estimate_load(server.url + TWIN, manager=manager, cache=tmp_path)
    assert first.shared_bytes == 0 < first.shareable_bytes <= first.weight_bytes
    before = manager.report().unique_weight_bytes
    twin = await tc.from_pretrained(server.url + TWIN, manager=manager, cache=tmp_path)
    added = manager.report().unique_weight_bytes - before
    assert first.weight_bytes - first.shareable_bytes <= added < first.new_bytes
    twin.unload()
    second = await tc.estimate_load(server.url + TWIN, manager=manager, cache=tmp_path)
    assert (second.new_bytes, second.download_bytes) == (added, 0), "the cache records what each tensor is"


async def test_local_files_download_nothing(manager):
    files = {path.name: path.read_bytes() for path in (TINY / MODEL).iterdir()}
    for source in (str(TINY / MODEL), files):
        estimate = await tc.estimate_load(source, manager=manager)
        assert estimate.download_bytes == 0 < estimate.new_bytes


async def test_refusals(manager):
    files = {path.name: path.read_bytes() for path in (TINY / MODEL).iterdir()}
    with pytest.raises(UnsupportedModel, match="whale"):
        await tc.estimate_load({**files, "config.json": b'{"model_type": "whale"}'}, manager=manager)
    with pytest.raises(InvalidWeights):
        await tc.estimate_load({**files, "model.safetensors": b"\x08" + bytes(15)}, manager=manager)
    with pytest.raises(UnsupportedDtype, match="float8"):
        await tc.estimate_load(files, manager=manager, dtype="float8")
    with pytest.raises(DeviceUnavailable):
        await tc.estimate_load(files, manager=manager, device="webgpu")
