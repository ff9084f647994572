"""Servers with random traits: every read gives the bytes of one version of the file or a typed error."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from tensorcommons.bridge.byte_buffer import Data
from tensorcommons.errors import TensorCommonsError
from tensorcommons.hub import http
from tensorcommons.hub.cache import Cache
from tensorcommons.hub.cached import CachedSource
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.stores import MemoryStore
from tensorcommons.hub.weights import WeightsFile
from tests.cases.checkpoints import pack
from tests.hub.reading import read_tensor
from tests.hub.server import serving
from tests.hub.varied_server import AsAPageSees, Traits, VariedServer

SIZES = {"a": 9, "b": 9_000, "c": 700, "d": 4_000, "e": 0, "f": 3}
VERSIONS = [
    {
        name: np.random.default_rng(size).integers(0, 1 << 30, size).astype(np.float32) + v
        for name, size in SIZES.items()
    }
    for v in (0, 1)
]
FILES = {
    "w.safetensors": [pack(tensors) for tensors in VERSIONS],
    "config.json": [b'{"version": 0, "fill": "%s"}' % (b"x" * 5000), b'{"version": 1, "fill": "%s"}' % (b"y" * 5000)],
}
RIGHT = [{name: array.tobytes() for name, array in tensors.items()} for tensors in VERSIONS]


@pytest.fixture(scope="module")
def server():
    with serving(VariedServer()) as server:
        yield server


class TabDiedError(Exception):
    """End of the tab, after which nothing is written."""


class MortalStore(MemoryStore):
    """Store of a tab that may end at one of its calls."""

    calls_left = 1_000_000

    async def write(self, name: str, data: Data) -> None:
        self._call()
        await super().write(name, data)

    async def append(self, name: str, data: Data) -> None:
        self._call()
        await MemoryStore.write(self, name, memoryview(self.entries[name] + bytes(data)))

    def _call(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise TabDiedError


async def _visit(address: str, cache: Cache | None, wanted: set[str], upto: int) -> tuple[bytes, dict[str, bytes]]:
    source = open_source(address)
    if cache is not None:
        source = CachedSource(source, cache)
    config = await source.read("config.json")
    found = {}
    async with await WeightsFile.open(source, "w.safetensors") as weights:
        for entry in weights.header.entries[:upto]:
            if entry.name in wanted:
                found[entry.name] = await read_tensor(weights, entry)
    return config, found


async def _one(server: VariedServer, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Visit one server three times; the first visit may stop early, alone or with the whole tab. Gives the result of
    each visit."""
    rng = random.Random(seed)
    traits = Traits.drawn(rng)
    server.reset(traits, FILES, seed)
    monkeypatch.setattr("tensorcommons.hub.weights.REOPEN", rng.choice([100, 1 << 20]))
    hidden = rng.choice([None, frozenset[str](), frozenset({"etag"}), frozenset({"content-range"})])
    if hidden is not None:
        monkeypatch.setattr(http, "_send", AsAPageSees(http._send, hidden))  # noqa: SLF001 - hides headers as a browser
    store = MortalStore()
    caches = rng.random() < 0.8
    cache = Cache(store) if caches else None
    monkeypatch.setattr("tensorcommons.hub.weights.CHUNK", rng.choice([4_096, 1 << 23]))
    ends = []
    for number in range(3):
        store.calls_left = rng.randrange(20) if number == 0 and rng.random() < 0.5 else 1_000_000
        wanted = {name for name in SIZES if rng.random() < 0.7}
        upto = rng.randrange(len(SIZES)) if number == 0 else len(SIZES)
        try:
            config, found = await _visit(server.address, cache, wanted, upto)
        except TensorCommonsError as error:
            ends.append(type(error).__name__)
            continue
        except TabDiedError:
            cache = Cache(store)
            continue
        assert config in FILES["config.json"], (seed, traits)
        versions = [all(right[name] == data for name, data in found.items()) for right in RIGHT]
        assert any(versions), f"seed {seed}: a mixture from {traits}, hidden {hidden}, visit {number}"
        ends.append("read")
    return ends


async def _many(server: VariedServer, seeds: range) -> None:
    warnings.simplefilter("error", ResourceWarning)
    ends: list[str] = []
    for seed in seeds:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tensorcommons.hub.weights.WAITS", (0.0, 0.0, 0.0))
            ends += await _one(server, seed, patch)
    assert ends.count("read") > len(ends) / 2, "most servers must be readable"


async def test_reads_give_one_version_or_a_typed_error(server):
    await _many(server, range(60))


@pytest.mark.long
async def test_reads_from_many_servers_give_one_version_or_a_typed_error(server):
    await _many(server, range(1_000, 3_500))


@pytest.mark.parametrize("encoding", ["gzip", "gzip-stored"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_responses_with_hidden_compression_are_read(server, encoding, framing, monkeypatch):
    server.reset(Traits(encoding=encoding, framing=framing), FILES, 0)
    monkeypatch.setattr(http, "_send", AsAPageSees(http._send))  # noqa: SLF001
    config, found = await _visit(server.address, None, set(SIZES), len(SIZES))
    assert config == FILES["config.json"][0] and found == RIGHT[0]
