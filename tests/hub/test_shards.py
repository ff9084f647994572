"""Checkpoints of several files: nothing is fetched twice, however an earlier load ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.hub.cache import Cache
from tensorcommons.hub.stores import MemoryStore
from tests.cases.checkpoints import WEIGHTS, sharded
from tests.hub.counting import counted
from tests.models.server import TINY

WHOLE = {path.name: path.read_bytes() for path in (TINY / "tiny-bert").iterdir()}
FILES = sharded(WHOLE)
SHARDS = [name for name in FILES if name.endswith(".safetensors")]


def manager() -> tc.TensorSharingManager:
    return tc.TensorSharingManager(64, activation_cache=False)


async def hidden(model: tc.Model) -> np.ndarray:
    out = await model(input_ids=np.array([[2, 5, 6, 3]]), attention_mask=np.ones((1, 4), np.int64))
    return await out["last_hidden_state"].read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("served") / "sharded"
    place.mkdir()
    for name, data in FILES.items():
        (place / name).write_bytes(data)
    return place


async def test_a_folder_and_dropped_files_equal_the_single_file(folder: Path):
    wanted = await hidden(await tc.from_pretrained(WHOLE, manager=manager()))
    for source in (str(folder), FILES):
        assert np.array_equal(await hidden(await tc.from_pretrained(source, manager=manager())), wanted)


async def test_stored_files_are_not_fetched_again(folder: Path):
    store = MemoryStore()
    with counted(folder.parent) as server:
        shared = manager()
        first = await tc.from_pretrained(server.url + folder.name, manager=shared, cache=Cache(store))
        assert server.body_bytes() >= sum(len(FILES[name]) for name in SHARDS)
        events: list[dict] = []
        again = await tc.from_pretrained(
            server.url + folder.name, manager=shared, cache=Cache(store), progress_callback=events.append
        )
        assert server.body_bytes() == 0
        assert events[-1]["shared_bytes"] == events[-1]["total"] > 0
        assert events[-1]["from_cache"] == 0, "tensors on the device were read from the storage"
        apart = await tc.from_pretrained(server.url + folder.name, manager=manager(), cache=Cache(store))
        assert server.body_bytes() == 0
        results = [await hidden(model) for model in (first, again, apart)]
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_load_cancelled_in_any_file_keeps_its_downloads(folder: Path, number: int):
    store, shared = MemoryStore(), manager()
    task: asyncio.Task[tc.Model]

    def stop(event: dict) -> None:
        if (
            not task.cancelling()
            and event["status"] == "progress"
            and event["file"].endswith(SHARDS[number])
            and event["loaded"] > 0
        ):
            task.cancel()

    with counted(folder.parent) as server:
        address = server.url + folder.name
        task = asyncio.ensure_future(
            tc.from_pretrained(address, manager=shared, cache=Cache(store), progress_callback=stop)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not list(shared.registry) and not shared.models
        assert len(asyncio.all_tasks()) == 1
        server.since()
        model = await tc.from_pretrained(address, manager=shared, cache=Cache(store))
        sent = dict.fromkeys(SHARDS, 0)
        for answer in server.since():
            if answer.file in sent and answer.status < 400:
                sent[answer.file] += answer.nbytes
    assert [sent[name] for name in SHARDS[:number]] == [0] * number, "a complete file was requested again"
    wanted = await tc.from_pretrained(WHOLE, manager=manager())
    assert np.array_equal(await hidden(model), await hidden(wanted))


async def test_a_connection_that_breaks_in_each_file_is_resumed(server):
    server.files.update(FILES)
    model = await tc.from_pretrained(f"{server.address}/patchy", manager=manager())
    for name in SHARDS:
        ranges = [wanted for path, wanted in server.requests if path.endswith(name)]
        starts = [int(wanted.removeprefix("bytes=").partition("-")[0]) for wanted in ranges if wanted]
        assert ranges[0] is None and len(starts) == 3, ranges
        assert starts == sorted(set(starts)), "each request must continue at the last break"
    wanted = await tc.from_pretrained(WHOLE, manager=manager())
    assert np.array_equal(await hidden(model), await hidden(wanted))


async def test_a_missing_file_is_an_error_that_leaves_nothing(server):
    server.files.update({name: data for name, data in FILES.items() if name != SHARDS[1]})
    shared = manager()
    with pytest.raises(tc.errors.DownloadError, match=SHARDS[1]):
        await tc.from_pretrained(f"{server.address}/good", manager=shared)
    assert not list(shared.registry) and not shared.models
    assert WEIGHTS not in FILES
