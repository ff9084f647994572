"""Interrupted downloads continue where they stopped if the file is provably the same."""

from __future__ import annotations

import asyncio
import errno
import os

import numpy as np
import pytest

from tensorcommons.hub import cache as caching
from tensorcommons.hub import weights as reading
from tensorcommons.hub.cache import Cache
from tensorcommons.hub.cached import CachedSource
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.stores import FolderStore, MemoryStore
from tensorcommons.hub.weights import WeightsFile
from tests.cases.checkpoints import pack
from tests.hub.counting import Counting, counted
from tests.hub.reading import read_tensor

CHUNK = 1 << 16
FILE = "model.safetensors"
PINNED = f"org/name/resolve/{'a' * 40}"
TENSORS = {
    name: np.random.default_rng(size).random(size, np.float32)
    for name, size in (("a", 9), ("b", 60_000), ("c", 7), ("d", 40_000), ("e", 3_000))
}
OTHERS = {name: array + 1 for name, array in TENSORS.items()}
RIGHT, OTHER = ({name: array.tobytes() for name, array in tensors.items()} for tensors in (TENSORS, OTHERS))
SIZE = len(pack(TENSORS))


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", CHUNK)
    monkeypatch.setattr(caching, "CHUNK", CHUNK)
    for place in ("served/plain", f"served/{PINNED}"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / FILE).write_bytes(pack(TENSORS))
        os.utime(tmp_path / place / FILE, (1_600_000_000, 1_600_000_000))
    with counted(tmp_path / "served") as counting:
        yield counting


def replace(server: Counting) -> None:
    """Replace the file at an address; responses under way still send the old one."""
    draft = server.folder / "draft"
    draft.write_bytes(pack(OTHERS))
    draft.rename(server.folder / "plain" / FILE)


async def dies(address: str, store: MemoryStore, count: int) -> None:
    """Read ``count`` chunks, then end the tab, which loses everything that is not written."""
    async with await WeightsFile.open(CachedSource(open_source(address), Cache(store)), FILE) as weights:
        chunks = [chunk for entry in weights.header.entries for chunk in weights.chunks(entry)]
        for chunk in chunks[:count]:
            await weights.read([chunk])
        left = dict(store.entries)
    store.entries = left


async def visit(address: str, cache: Cache) -> dict[str, bytes]:
    async with await WeightsFile.open(CachedSource(open_source(address), cache), FILE) as weights:
        return {entry.name: await read_tensor(weights, entry) for entry in weights.header.entries}


@pytest.mark.parametrize("mode", ["", "date", "pinned"])
async def test_only_the_rest_is_fetched(server, mode):
    address = server.url + (PINNED if mode == "pinned" else "plain")
    server.mode = mode if mode == "date" else ""
    store = MemoryStore()
    for count in (3, 2, 4):  # a small tensor, then chunks of the large ones
        await dies(address, store, count)
    server.since()
    cache = Cache(store)
    assert await visit(address, cache) == RIGHT
    ranges = [answer for answer in server.since() if answer.nbytes]
    assert [answer.status for answer in ranges] == [206], "the rest took more than one request"
    header = SIZE - sum(map(len, RIGHT.values()))
    assert ranges[0].nbytes == SIZE - header - len(RIGHT["a"]) - 3 * CHUNK, "a and three chunks of b must be stored"
    assert await visit(address, Cache(store)) == RIGHT
    assert server.body_bytes() == 0
    usage = await cache.usage()
    whole = Cache(MemoryStore())
    await visit(address, whole)
    assert usage < await whole.usage() + 2_000, "entries without a record are left"


@pytest.mark.parametrize("mode", ["bare", "weak"])
async def test_without_proof_of_equality_the_download_restarts(server, mode):
    server.mode, store = mode, MemoryStore()
    await dies(server.url + "plain", store, 4)
    first = server.body_bytes()
    replace(server)
    assert await visit(server.url + "plain", Cache(store)) == OTHER
    assert server.body_bytes() >= SIZE > first // 2


@pytest.mark.parametrize("mode", ["", "date"])
async def test_a_replaced_file_is_read_from_its_beginning(server, mode):
    server.mode, store = mode, MemoryStore()
    await dies(server.url + "plain", store, 4)
    server.since()
    replace(server)
    os.utime(server.folder / "plain" / FILE, (1_600_000_100, 1_600_000_100))
    assert await visit(server.url + "plain", Cache(store)) == OTHER
    assert server.body_bytes() >= SIZE
    assert await visit(server.url + "plain", Cache(store)) == OTHER
    assert server.body_bytes() == 0


@pytest.mark.parametrize("mode", ["", "weak", "bare"])
async def test_two_tabs_never_mix_two_versions(server, mode):
    """One tab begins before the file changes, and continues while the other reads the new file."""
    server.mode, store = mode, MemoryStore()
    address = server.url + "plain"
    async with await WeightsFile.open(CachedSource(open_source(address), Cache(store)), FILE) as weights:
        entries = weights.header.entries
        assert await read_tensor(weights, entries[0]) == RIGHT[entries[0].name]
        first, *rest = weights.chunks(entries[1])
        await weights.read([first])
        replace(server)
        assert await visit(address, Cache(store)) == OTHER
        for chunk in rest[:1]:
            assert bytes((await weights.read([chunk]))[0][0]) == RIGHT[entries[1].name][CHUNK : 2 * CHUNK]
    for _ in range(2):
        assert await visit(address, Cache(store)) == OTHER


async def test_two_simultaneous_tabs_write_one_complete_record(server):
    store = MemoryStore()
    found = await asyncio.gather(*(visit(server.url + "plain", Cache(store)) for _ in range(3)))
    assert found == [RIGHT] * 3
    server.since()
    assert await visit(server.url + "plain", Cache(store)) == RIGHT
    assert server.body_bytes() == 0


async def test_a_record_that_another_tab_removed_is_written_again_in_full(server, tmp_path):
    address, store = server.url + "plain", FolderStore(tmp_path / "kept")
    cache = Cache(store)
    async with await WeightsFile.open(CachedSource(open_source(address), cache), FILE) as weights:
        chunks = [chunk for entry in weights.header.entries for chunk in weights.chunks(entry)]
        for number, chunk in enumerate(chunks):
            if number == 3:
                await Cache(store).forget(f"{address}/{FILE}")
            await weights.read([chunk])
    server.since()
    assert await visit(address, Cache(store)) == RIGHT
    assert server.body_bytes() == 0


async def test_chunks_stored_before_the_store_was_full_are_used(server):
    class Full(MemoryStore):
        async def write(self, name, data):
            if name.startswith("blob-") and sum(map(len, self.entries.values())) + data.nbytes > 3 * CHUNK:
                raise OSError(errno.ENOSPC, "no space")
            await super().write(name, data)

    store = Full()
    cache = Cache(store)
    assert await visit(server.url + "plain", cache) == RIGHT
    assert cache.status.startswith("reading only: memory is full")
    server.since()
    assert await visit(server.url + "plain", Cache(store)) == RIGHT
    assert server.body_bytes() < SIZE - 2 * CHUNK


async def test_a_small_part_is_recorded_soon(server, monkeypatch):
    """Includes a server that stops sending, as on a failed network."""
    monkeypatch.setattr(reading, "SAVE_AFTER", 0.01)
    store = MemoryStore()
    written = asyncio.Event()
    append, write = store.append, store.write

    async def noted(name, data, call):
        await call(name, data)
        if name.startswith("file-"):
            written.set()

    monkeypatch.setattr(store, "append", lambda name, data: noted(name, data, append))
    monkeypatch.setattr(store, "write", lambda name, data: noted(name, data, write))
    source = CachedSource(open_source(server.url + "plain"), Cache(store))
    async with await WeightsFile.open(source, FILE) as weights:
        entry = weights.header.entries[0]
        await read_tensor(weights, entry)
        await asyncio.wait_for(written.wait(), 30)
        record = await Cache(store).record(f"{server.url}plain/{FILE}")
        assert record is not None and (entry.start, entry.stop) in record.pieces


async def test_the_limit_holds_while_a_file_arrives(server, monkeypatch):
    """The oldest files are evicted, not the arriving one, and entries are not listed repeatedly."""
    monkeypatch.setattr(caching, "CHECK_EVERY", CHUNK)
    listed = []

    class Listing(MemoryStore):
        async def list(self):
            listed.append(len(self.entries))
            return await super().list()

    store = Listing()
    await visit(server.url + PINNED, Cache(store))
    replace(server)
    assert await visit(server.url + "plain", Cache(store, limit=SIZE + CHUNK)) == OTHER
    assert await Cache(store).usage() < SIZE + CHUNK
    assert 0 < len(listed) < 10
    server.since()
    assert await visit(server.url + "plain", Cache(store)) == OTHER
    assert server.body_bytes() == 0
