"""The cache of downloads: files are not downloaded twice, whatever faults the storage or the server has."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorcommons as tc
from scripts.paths import ROOT
from tensorcommons import dtypes
from tensorcommons.bridge.byte_buffer import CHUNK
from tensorcommons.bridge.digest import identity_of
from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.cache import ABSENT_AGE, LIMIT, SMALL, TOUCH, Cache
from tensorcommons.hub.cached import CachedSource
from tensorcommons.hub.config import read_optional_json
from tensorcommons.hub.eviction import ORPHAN_AGE
from tensorcommons.hub.open_cache import open_cache
from tensorcommons.hub.records import Piece, Record
from tensorcommons.hub.safetensors import as_array, read_header
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.stores import FolderStore, MemoryStore
from tensorcommons.hub.streams import FileMissingError, UnreachableError
from tensorcommons.hub.version import is_immutable
from tensorcommons.hub.weights import WeightsFile, label_of
from tensorcommons.sharing.provenance import content_identity
from tests.hub.counting import Counting, counted
from tests.hub.reading import read_tensor

TINY = ROOT / "tests" / "goldens"
WEIGHTS = "model.safetensors"
MODEL, TWIN = "tiny-bert", "tiny-bert-mlm"  # the same encoder to the byte


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, alone and below a pinned revision."""
    root = tmp_path_factory.mktemp("served")
    for place in (root, root / "org" / "name" / "resolve" / ("a" * 40)):
        for model in (MODEL, TWIN):
            shutil.copytree(TINY / model, place / model)
    return root


@pytest.fixture(scope="module")
def running(folder):
    with counted(folder) as counting:
        yield counting


@pytest.fixture
def server(running: Counting):
    running.since()
    yield running
    running.mode = ""


async def visit(url: str, cache: Cache, model: str = MODEL) -> dict[str, bytes]:
    """Load the files of a model as in a newly opened page: only the store of the cache persists."""
    source = CachedSource(open_source(url + model), cache)
    await source.read("config.json")
    await read_optional_json(source, "sentence_bert_config.json")
    async with await WeightsFile.open(source, WEIGHTS) as weights:
        return {entry.name: await read_tensor(weights, entry) for entry in weights.header.entries}


async def visit_at_once(url: str, store: MemoryStore, every: int = 1) -> dict[str, bytes]:
    """Read the tensors of a model, or every second one, as a load does: small ones at once."""
    async with await WeightsFile.open(CachedSource(open_source(url + MODEL), Cache(store)), WEIGHTS) as weights:
        chunks = [chunk for entry in weights.header.entries[::every] for chunk in weights.chunks(entry)]
        reads = [read for run in weights.runs(chunks) for read in await weights.read(run)]
        return {chunk.entry.name: bytes(block) for chunk, (block, _) in zip(chunks, reads, strict=True)}


async def expected(model: str = MODEL, root: Path = TINY) -> dict[str, bytes]:
    async with await WeightsFile.open(open_source(root / model), WEIGHTS) as weights:
        return {entry.name: await read_tensor(weights, entry) for entry in weights.header.entries}


def blobs(store: MemoryStore) -> list[str]:
    return sorted(name for name in store.entries if name.startswith("blob-"))


class TestVisits:
    @pytest.mark.parametrize("kind", ["memory", "folder"])
    async def test_the_second_visit_downloads_nothing(self, server, tmp_path, kind):
        store = MemoryStore() if kind == "memory" else FolderStore(tmp_path / "cache")
        first = await visit(server.url, Cache(store))
        sent = server.body_bytes()
        assert sent > (TINY / MODEL / WEIGHTS).stat().st_size
        second = await visit(server.url, Cache(store))
        assert server.body_bytes() == 0
        assert first == second == await expected()

    async def test_an_equal_tensor_is_stored_once(self, server):
        store = MemoryStore()
        cache = Cache(store)
        await visit(server.url, cache)
        alone = await cache.usage()
        twin = await visit(server.url, cache, TWIN)
        assert twin == await expected(TWIN)
        common = set((await expected()).values()) & set(twin.values())
        assert len(common) > 10
        grown = await cache.usage() - alone
        in_record = sum(len(data) for data in common if len(data) <= SMALL) * 4 / 3
        assert sum(len(data) > SMALL for data in common) > 10
        assert grown < (TINY / TWIN / WEIGHTS).stat().st_size - sum(map(len, common)) + in_record + 20_000

    async def test_small_tensors_are_stored_in_the_record_of_their_file(self, server):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        right = await expected()
        assert min(map(len, right.values())) <= SMALL < max(map(len, right.values()))
        assert {len(data) for data in right.values() if len(data) > SMALL} <= {
            len(store.entries[name]) for name in blobs(store)
        }
        for name in blobs(store):
            assert len(store.entries.pop(name)) > SMALL
        server.since()
        assert await visit(server.url, Cache(store)) == right
        assert all(answer.nbytes > SMALL for answer in server.since() if answer.status in (200, 206))

    async def test_tensors_that_are_read_at_once_are_one_entry(self, server):
        store, right = MemoryStore(), await expected()
        assert await visit_at_once(server.url, store) == right
        (name,) = blobs(store)
        assert len(store.entries[name]) == sum(map(len, right.values()))
        server.since()
        assert await visit(server.url, Cache(store)) == right, "tensor by tensor"
        assert await visit_at_once(server.url, store, every=2) == dict(list(right.items())[::2])
        assert not [answer for answer in server.since() if answer.file == WEIGHTS and answer.nbytes]
        data = bytearray(store.entries[name])
        data[len(data) // 2] ^= 1
        store.entries[name] = bytes(data)
        assert await visit_at_once(server.url, store) == right
        assert [(answer.status, answer.nbytes) for answer in server.since() if answer.file == WEIGHTS] == [
            (304, 0),
            (206, len(data)),
        ]
        assert await visit_at_once(server.url, store) == right
        assert server.body_bytes() == 0

    async def test_tensors_that_were_stored_one_by_one_are_read_at_once(self, server):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        server.since()
        assert await visit_at_once(server.url, store) == await expected()
        assert server.body_bytes() == 0

    async def test_the_identity_of_a_tensor_is_that_of_sharing(self):
        async with await open_source(TINY / MODEL).open(WEIGHTS) as stream:
            entry = (await read_header(stream, WEIGHTS)).entries[0]
            data = await stream.read_exact(entry.nbytes)
        assert identity_of(data, label_of(entry)) == content_identity(
            memoryview(as_array(entry, data)).cast("B"), entry.shape, dtypes.float32
        )

    async def test_two_simultaneous_visits_work_and_store_one_copy(self, server):
        store = MemoryStore()
        cache = Cache(store)
        found = await asyncio.gather(*(visit(server.url, cache) for _ in range(3)))
        assert found == [await expected()] * 3
        server.since()
        assert await visit(server.url, Cache(store)) == found[0]
        assert server.body_bytes() == 0

    async def test_an_interrupted_visit_is_continued(self, server):
        store = MemoryStore()
        source = CachedSource(open_source(server.url + MODEL), Cache(store))
        async with await WeightsFile.open(source, WEIGHTS) as weights:
            entries = weights.header.entries
            half = len(entries) // 2
            for entry in entries[:half]:
                await read_tensor(weights, entry)
        server.since()
        assert await visit(server.url, Cache(store)) == await expected()
        answers = [answer for answer in server.since() if answer.file == WEIGHTS]
        rest = entries[-1].stop - entries[half].start
        assert [(answer.status, answer.nbytes) for answer in answers] == [(304, 0), (206, rest)]

    async def test_no_bytes_count_as_stored_and_take_no_entry(self):
        store = MemoryStore()
        assert await Cache(store).put(identity_of(b""), b"")
        assert blobs(store) == []

    async def test_common_tensors_are_stored_once(self, tmp_path):
        data = bytearray(np.random.default_rng(0).bytes(8 << 20))
        cache = Cache(FolderStore(tmp_path))
        identity = identity_of(data)
        tracemalloc.start()
        assert await cache.put(identity, data)
        out = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        found = await cache.read([Piece(0, len(data), identity)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found is not None and bytes(found[0][0]) == data
        assert out < 1 << 20
        assert peak < len(data) + (3 << 20), "and one partial chunk"


class TestDamage:
    @pytest.mark.parametrize("damage", ["flipped", "short", "long", "empty", "gone"])
    async def test_only_damaged_entries_are_fetched_again(self, server, damage):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        whole = dict(store.entries)
        name = max(blobs(store), key=lambda name: len(store.entries[name]))
        data = bytearray(whole[name])
        if damage == "flipped":
            data[len(data) // 2] ^= 4
        changed = {"short": data[:-1], "long": data, "empty": b"", "flipped": data}
        if damage == "gone":
            del store.entries[name]
        else:
            store.entries[name] = bytes(changed[damage])
        server.since()
        assert await visit(server.url, Cache(store)) == await expected()
        sent = [answer for answer in server.since() if answer.nbytes and answer.status < 400]
        assert [answer.nbytes for answer in sent] == ([] if damage == "long" else [len(whole[name])])
        assert all(answer.range for answer in sent)
        assert store.entries[name] == whole[name]
        await visit(server.url, Cache(store))
        assert server.body_bytes() == 0

    async def test_damage_of_any_byte_of_any_entry_is_repaired(self, server):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        whole = dict(store.entries)
        right = await expected()
        rng = np.random.default_rng(1)
        for name in whole:
            store.entries = dict(whole)
            data = bytearray(whole[name])
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
            store.entries[name] = bytes(data)
            assert await visit(server.url, Cache(store)) == right, name
            assert store.entries.keys() == whole.keys()

    async def test_a_record_of_another_version_is_ignored(self, server):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        for name in list(store.entries):
            if name.startswith("file-"):
                text = b'{"address": "x", "pieces": [], "later": 1}'
                store.entries[name] = identity_of(text).encode() + text
        assert await visit(server.url, Cache(store)) == await expected()

    async def test_a_changed_file_at_a_pinned_address_is_an_error(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "served")
        place = f"org/name/resolve/{'a' * 40}/"
        with counted(tmp_path / "served") as server:
            store = MemoryStore()
            await visit(server.url + place, Cache(store))
            path = tmp_path / "served" / place / MODEL / WEIGHTS
            async with await WeightsFile.open(open_source(tmp_path / "served" / place / MODEL), WEIGHTS) as weights:
                last = next(entry for entry in weights.header.entries if entry.nbytes > SMALL)
            data = bytearray(path.read_bytes())
            data[last.stop - 5] ^= 1
            path.write_bytes(data)
            record = await Cache(store).record(f"{server.url}{place}{MODEL}/{WEIGHTS}")
            assert record is not None
            del store.entries[f"blob-{record.pieces[last.start, last.stop].identity}"]
            with pytest.raises(InvalidWeights, match="load it again"):
                await visit(server.url + place, Cache(store))
            assert await visit(server.url + place, Cache(store)) == await expected(root=tmp_path / "served" / place)


class CrashError(BaseException):
    """End of the tab."""


class FaultyStore(MemoryStore):
    """Store that counts calls; ``fault(call number, method, name, data)`` may raise."""

    def __init__(self, entries, fault):
        super().__init__()
        self.entries = dict(entries)
        self.calls = 0
        self.fault = fault

    def _call(self, method, name="", data=b""):
        self.calls += 1
        self.fault(self, self.calls, method, name, data)

    async def list(self):
        self._call("list")
        return await super().list()

    async def size(self, name):
        self._call("size", name)
        return await super().size(name)

    async def read(self, name, start, sizes):
        self._call("read", name)
        return await super().read(name, start, sizes)

    async def text(self, name):
        self._call("read", name)
        return await super().text(name)

    async def write(self, name, data):
        self._call("write", name, bytes(data))
        await super().write(name, data)

    async def append(self, name, data):
        whole = await MemoryStore.text(self, name)
        self._call("write", name, whole + bytes(data))
        await MemoryStore.write(self, name, memoryview(whole + bytes(data)))

    async def remove(self, name):
        self._call("remove", name)
        await super().remove(name)


def no_fault(store, call, method, name, data):
    pass


class TestFaults:
    @pytest.mark.slow
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_crash_at_any_call_leaves_a_usable_cache(self, running, data):
        """Includes crashes that leave an entry half written under its own name, as in a browser without renaming."""
        at = data.draw(st.integers(1, 300), "call")
        torn = data.draw(st.booleans(), "torn")
        started = data.draw(st.booleans(), "second model")
        chunk = data.draw(st.sampled_from([CHUNK, 5_000]), "bytes of a chunk")

        def crash(store, call, method, name, content):
            if call == at:
                if method == "write" and torn:
                    store.entries[name] = content[: len(content) // 2]
                elif method == "write":
                    store.entries["new-0123456789abcdef"] = content[: len(content) // 2]
                raise CrashError

        async def story():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tensorcommons.hub.weights.CHUNK", chunk)
                await crashes()

        async def crashes():
            store = FaultyStore({}, crash)
            try:
                await visit(running.url, Cache(store))
                if started:
                    await visit(running.url, Cache(store), TWIN)
            except CrashError:
                pass
            after = FaultyStore(store.entries, no_fault)
            assert await visit(running.url, Cache(after)) == await expected()
            assert await visit(running.url, Cache(after), TWIN) == await expected(TWIN)
            running.since()
            await visit(running.url, Cache(after))
            await visit(running.url, Cache(after), TWIN)
            assert running.body_bytes() == 0

        asyncio.run(story())

    @pytest.mark.slow
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        calls=st.sets(st.integers(1, 150), max_size=30),
        forever=st.booleans(),
        kind=st.sampled_from([errno.EIO, errno.EACCES, errno.ENOSPC, errno.EBUSY, errno.ENOENT]),
        warm=st.booleans(),
    )
    def test_loading_succeeds_whichever_call_the_store_refuses(self, running, calls, forever, kind, warm):
        def refuse(store, call, method, name, content):
            if call in calls or (forever and calls and call > max(calls)):
                raise OSError(kind, "refused")

        async def story():
            entries = {}
            if warm:
                await visit(running.url, Cache(full := MemoryStore()))
                entries = full.entries
            cache = Cache(store := FaultyStore(entries, refuse))
            assert await visit(running.url, cache) == await expected()
            assert await visit(running.url, cache, TWIN) == await expected(TWIN)
            assert cache.status.startswith(("on: ", "reading only: "))
            if cache.status == "on: files are kept in memory":  # then they are
                later = Cache(FaultyStore(store.entries, lambda *call: None))
                running.since()
                await visit(running.url, later)
                await visit(running.url, later, TWIN)
                assert running.body_bytes() == 0

        asyncio.run(story())

    async def test_missing_storage_is_reported_with_the_reason(self, server):
        cache = Cache(None, reason="this browser keeps no files for this page (SecurityError)")
        assert await visit(server.url, cache) == await expected()
        assert cache.status == "off: this browser keeps no files for this page (SecurityError)"
        await cache.clear()
        assert (await cache.usage(), await cache.remove_unused(0)) == (0, 0)

    async def test_outside_a_browser_the_cache_is_off_without_a_folder(self, tmp_path):
        assert "not in a browser" in (await open_cache()).status
        assert (await open_cache(None)).status == "off: cache=None"
        named = await open_cache(tmp_path)
        assert named.status == f"on: files are kept in the folder {tmp_path}"
        assert named.limit == LIMIT
        assert await open_cache(named) is named


def quota(limit):
    def full(store, call, method, name, content):
        if method == "write" and sum(map(len, store.entries.values())) + len(content) > limit:
            raise OSError(errno.ENOSPC, "QuotaExceededError: no space")

    return full


class TestSpace:
    async def test_a_full_store_is_reported_and_used_as_far_as_it_goes(self, server):
        store = FaultyStore({}, quota(50_000))
        cache = Cache(store)
        assert await visit(server.url, cache) == await expected()
        assert cache.status == "reading only: memory is full (QuotaExceededError: no space)"
        first = server.body_bytes()
        assert await visit(server.url, Cache(store)) == await expected()
        assert server.body_bytes() < first

    async def test_unused_entries_are_evicted(self, server):
        old = Cache(store := FaultyStore({}, no_fault))
        await visit(server.url + f"org/name/resolve/{'a' * 40}/", old, TWIN)
        store.fault = quota(sum(map(len, store.entries.values())) + 10_000)
        cache = Cache(store)
        assert await visit(server.url, cache) == await expected()
        assert cache.status.startswith("on: ")
        server.since()
        await visit(server.url, Cache(store))
        assert server.body_bytes() == 0

    async def test_the_least_recently_used_file_is_evicted_but_not_shared_chunks(self, server):
        now = [1e9]
        store = MemoryStore()

        def cache(limit=LIMIT):
            return Cache(store, limit, clock=lambda: now[0])

        alone = {}
        for model in (MODEL, TWIN):
            await visit(server.url, cache(), model)
            alone[model] = await cache().usage()
            await cache().clear()
        await visit(server.url, cache(), TWIN)
        now[0] += 2 * TOUCH
        await visit(server.url, cache())
        both = await cache().usage()
        assert both < sum(alone.values())
        now[0] += 2 * TOUCH
        assert await cache().remove_unused(alone[MODEL]) == both - alone[MODEL]
        assert await cache().usage() == alone[MODEL]
        server.since()
        assert await visit(server.url, cache()) == await expected()
        assert server.body_bytes() == 0
        assert await visit(server.url, cache(), TWIN) == await expected(TWIN)
        now[0] += 2 * TOUCH
        await visit(server.url, cache(), TWIN)  # used again, so the other one is now the least recently used
        await cache().remove_unused(alone[TWIN])
        server.since()
        await visit(server.url, cache(), TWIN)
        assert server.body_bytes() == 0

    async def test_files_in_use_stay_above_the_limit(self, server):
        cache = Cache(MemoryStore(), limit=1)
        await visit(server.url, cache)
        assert await cache.remove_unused() == 0
        assert await cache.usage() > 50_000

    async def test_leftovers_are_removed_after_a_day_and_foreign_files_never(self, server, tmp_path):
        now = [0.0]
        (tmp_path / "holiday.jpg").write_bytes(b"!")
        cache = Cache(FolderStore(tmp_path), clock=lambda: now[0])
        await visit(server.url, cache)
        before = await cache.usage()
        await Cache(FolderStore(tmp_path)).put(identity_of(b"left"), b"left")
        (tmp_path / "new-0123456789abcdef").write_bytes(b"half")
        now[0] = (tmp_path / "new-0123456789abcdef").stat().st_mtime + 60
        assert await cache.remove_unused() == 0
        now[0] += ORPHAN_AGE
        assert await cache.remove_unused() == 8
        assert await cache.usage() == before
        await cache.clear()
        assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]

    async def test_clear_can_be_repeated_after_a_failure(self, server):
        store = FaultyStore({}, quota(1_000))
        cache = Cache(store)
        await visit(server.url, cache)
        assert cache.status.startswith("reading only")
        store.fault = no_fault
        await cache.clear()
        assert store.entries == {}
        assert cache.status == "on: files are kept in memory"
        await visit(server.url, cache)
        server.since()
        await visit(server.url, cache)
        assert server.body_bytes() == 0


class TestFreshness:
    @pytest.mark.parametrize(
        ("address", "answer"),
        [
            (f"https://hub/org/name/resolve/{'0a' * 20}/model.safetensors", True),
            ("https://hub/org/name/resolve/main/model.safetensors", False),
            (f"https://hub/org/name/resolve/{'0a' * 20}", False),
            ("https://host/m/model.safetensors?v=3", True),
            ("https://host/m/model.safetensors?v=", False),
            ("https://host/m/model.safetensors?token=3", False),
            ("https://host/m/model.safetensors", False),
        ],
    )
    def test_immutable_addresses(self, address, answer):
        assert is_immutable(address) is answer

    @pytest.mark.parametrize("place", [f"org/name/resolve/{'a' * 40}/", ""])
    async def test_a_pinned_address_is_not_revalidated(self, server, place):
        store = MemoryStore()
        await visit(server.url + place, Cache(store))
        server.since()
        await visit(server.url + place, Cache(store))
        statuses = Counter(answer.status for answer in server.since())
        assert statuses == ({} if place else {304: 2, 404: 1})

    async def test_a_version_in_the_query_pins_an_address(self, server):
        store = MemoryStore()
        for _ in range(2):
            source = CachedSource(open_source(f"{server.url}{MODEL}?v=1"), Cache(store))
            await source.read("config.json")
        assert len(server.since()) == 1

    async def test_a_changed_file_is_downloaded_again(self, folder, tmp_path):
        shutil.copytree(folder / MODEL, tmp_path / MODEL)
        with counted(tmp_path) as server:
            store = MemoryStore()
            await visit(server.url, Cache(store))
            path = tmp_path / MODEL / WEIGHTS
            data = bytearray(path.read_bytes())
            data[-3] ^= 1
            path.write_bytes(data)
            changed = await visit(server.url, Cache(store))
            assert changed == await expected(root=tmp_path) != await expected()
            server.since()
            assert await visit(server.url, Cache(store)) == changed
            assert server.body_bytes() == 0
            path.unlink()
            with pytest.raises(FileMissingError):
                await visit(server.url, Cache(store))

    @pytest.mark.parametrize("how", ["down", "gone"])
    async def test_without_a_network_the_stored_copy_is_used_with_a_warning(self, folder, how):
        store = MemoryStore()
        with counted(folder) as server:
            await visit(server.url, Cache(store))
            server.mode = "down"
            cache = Cache(store)
            if how == "down":
                assert await visit(server.url, cache) == await expected()
        if how == "gone":
            assert await visit(server.url, cache) == await expected()
        assert "could not be compared with the server's" in cache.status
        with pytest.raises(UnreachableError):
            await visit(server.url, cache, TWIN)

    async def test_a_server_without_conditional_requests_is_revalidated_by_head(self, server):
        store = MemoryStore()
        await visit(server.url, Cache(store))
        server.mode = "picky"
        server.since()
        assert await visit(server.url, Cache(store)) == await expected()
        answers = server.since()
        assert sum(answer.nbytes for answer in answers if answer.status == 200) == 0
        assert Counter(answer.method for answer in answers if answer.status == 200) == {"HEAD": 2}

    async def test_files_without_validators_are_downloaded_again(self, server):
        server.mode = "bare"
        store = MemoryStore()
        await visit(server.url, Cache(store))
        first = server.body_bytes()
        assert await visit(server.url, Cache(store)) == await expected()
        assert server.body_bytes() == first

    async def test_a_missing_file_is_remembered_for_some_time(self, server):
        now = [1e9]
        store = MemoryStore()
        address = f"{server.url}org/name/resolve/{'a' * 40}/{MODEL}"

        async def ask():
            source = CachedSource(open_source(address), Cache(store, clock=lambda: now[0]))
            assert not await source.exists("none.json")
            with pytest.raises(FileMissingError):
                await source.read("none.json")
            return len(server.since())

        assert await ask() == 1
        assert await ask() == 0
        now[0] += ABSENT_AGE + 1
        assert await ask() == 1

    async def test_a_sibling_is_cached_too(self, server):
        store = MemoryStore()
        for _ in range(2):
            source = CachedSource(open_source(server.url + MODEL), Cache(store)).sibling(TWIN)
            assert await source.exists("config.json")
            await source.read("config.json")
        # The first exists() opens and closes, possibly before a byte is sent; the first read() downloads.
        assert [answer.status for answer in server.since() if answer.nbytes] in ([200], [200, 200])

    def test_a_record_round_trip(self):
        record = Record("https://host/ü", 5, '"tag"', used=3.5)
        record.add(Piece(0, 5, "ab" * 32, "float32(1,)", b"12345"))
        record.name((0, 5), "cd" * 32, "float32(1,)")
        first = record.first_line()
        (line,) = record.lines(record.unsaved)
        again = Record.from_first_line(first)
        assert again is not None and again.is_kept
        again.learn(line)
        assert again == record
        assert Record.from_first_line(first[:-1]) is None
        assert Record.from_first_line(b"") is None
        again.learn(line[:-1])
        other = Record("https://host/ü", 5, '"another"')
        other.first_line()
        other.learn(line)
        assert again == record and not other.pieces


class TestFromPretrained:
    async def load(self, server, cache, manager=None, model=MODEL):
        events: list[dict] = []
        manager = manager or tc.TensorSharingManager(64, activation_cache=False)
        loaded = await tc.from_pretrained(
            server.url + model, manager=manager, cache=cache, progress_callback=events.append
        )
        return manager, loaded, events

    async def result(self, model):
        out = await model(input_ids=np.array([[2, 5, 6, 3]]), attention_mask=np.ones((1, 4), np.int64))
        return await out["last_hidden_state"].read()

    async def test_the_events_of_a_second_visit_name_the_cache(self, server, tmp_path):
        _, first, events = await self.load(server, tmp_path)
        assert {event["from_cache"] for event in events} == {0}
        want = await self.result(first)
        server.since()
        _, second, events = await self.load(server, tmp_path)
        assert server.body_bytes() == 0
        assert events[-1]["status"] == "ready"
        assert events[-1]["from_cache"] > 0.9 * events[-1]["total"] > 0
        progress = [event["loaded"] for event in events if event["status"] == "progress_total"]
        assert progress == sorted(progress)
        assert not events[-1]["offline"]
        assert np.array_equal(await self.result(second), want)
        server.mode = "down"
        _, third, events = await self.load(server, tmp_path)
        assert events[-1]["offline"]
        assert np.array_equal(await self.result(third), want)

    async def test_without_a_cache_the_tensors_of_a_file_are_read_once(self, server, monkeypatch):
        read, chunks = WeightsFile.read, []

        async def counted(weights, run):
            chunks.extend(run)
            return await read(weights, run)

        monkeypatch.setattr(WeightsFile, "read", counted)
        manager, first, _ = await self.load(server, None)
        assert chunks
        chunks.clear()
        _, second, _ = await self.load(server, None, manager)
        assert not chunks
        assert np.array_equal(await self.result(first), await self.result(second))

    async def test_tensors_on_the_device_are_not_read_again(self, server):
        store = FaultyStore({}, no_fault)
        manager, first, _ = await self.load(server, Cache(store))
        reads = []
        store.fault = lambda store, call, method, name, data: reads.append(name) if method == "read" else None
        await visit(server.url, Cache(store), TWIN)
        reads.clear()
        server.since()
        _, _, events = await self.load(server, Cache(store), manager, TWIN)
        assert server.body_bytes() == 0
        shared = {
            entry.storage.identity
            for entry in manager.registry
            if {first.name} < set(entry.names) or len(entry.names) > 1
        }
        assert len(shared) > 10
        assert not shared & {name.removeprefix("blob-") for name in reads}
        assert events[-1]["shared_bytes"] > events[-1]["from_cache"] > 0

    async def test_an_evicted_weight_is_restored_from_the_cache(self, server):
        store = MemoryStore()
        manager, model, _ = await self.load(server, Cache(store))
        want = await self.result(model)
        server.since()
        for gone in (False, True):
            for entry in manager.registry:
                assert await entry.storage.evict()
                assert entry.storage.state == "dropped"
            if gone:
                store.entries.clear()
            assert np.array_equal(await self.result(model), want)
            assert bool(server.body_bytes()) is gone
        for entry in manager.registry:  # the download was stored again
            await entry.storage.evict()
        assert np.array_equal(await self.result(model), want)
        assert server.body_bytes() == 0

    async def test_restoring_a_weight_whose_file_changed_is_an_error(self, folder, tmp_path):
        shutil.copytree(folder / MODEL, tmp_path / MODEL)
        with counted(tmp_path) as server:
            store = MemoryStore()
            manager, model, _ = await self.load(server, Cache(store))
            path = tmp_path / MODEL / WEIGHTS
            path.write_bytes(path.read_bytes()[:-90_000] + bytes(90_000))
            store.entries.clear()
            for entry in manager.registry:
                await entry.storage.evict()
            with pytest.raises(InvalidWeights, match="changed since"):
                await self.result(model)

    async def test_a_weight_that_could_not_be_stored_is_copied_to_the_host_on_eviction(self, server):
        manager, model, _ = await self.load(server, Cache(FaultyStore({}, quota(0))))
        want = await self.result(model)
        for entry in manager.registry:
            assert await entry.storage.evict()
            assert entry.storage.state == "offloaded"
        server.mode = "down"
        assert np.array_equal(await self.result(model), want)

    async def test_a_cancelled_load_keeps_its_downloads_and_holds_nothing(self, server, monkeypatch):
        monkeypatch.setattr("tensorcommons.hub.streams.READ", 8_000)
        store = MemoryStore()
        manager = tc.TensorSharingManager(64)
        task: asyncio.Task
        seen: list[dict] = []

        def stop(event):
            if event["status"] == "progress":
                seen.append(event)
                if len(seen) == 10:
                    task.cancel()

        task = asyncio.ensure_future(
            tc.from_pretrained(server.url + MODEL, manager=manager, cache=Cache(store), progress_callback=stop)
        )
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not list(manager.registry)
        first = server.body_bytes()
        await self.load(server, Cache(store))
        assert server.body_bytes() < first

    async def test_local_files_are_not_copied(self, tmp_path):
        manager = tc.TensorSharingManager(64)
        await tc.from_pretrained(str(TINY / MODEL), manager=manager, cache=tmp_path / "cache")
        assert not (tmp_path / "cache").exists()

    async def test_a_damaged_download_is_not_stored(self, folder, tmp_path):
        (tmp_path / MODEL).mkdir()
        shutil.copy(folder / MODEL / "config.json", tmp_path / MODEL)
        (tmp_path / MODEL / WEIGHTS).write_bytes((folder / MODEL / WEIGHTS).read_bytes()[:-10])
        with counted(tmp_path) as server:
            store = MemoryStore()
            for _ in range(2):
                with pytest.raises((InvalidWeights, DownloadError)):
                    await self.load(server, Cache(store))
            shutil.copy(folder / MODEL / WEIGHTS, tmp_path / MODEL / WEIGHTS)
            await self.load(server, Cache(store))
