"""Connections that break within a tensor: the read continues at the break if the file is unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.weights import WeightsFile
from tests.cases.checkpoints import pack
from tests.hub.reading import read_tensor

TENSORS = {
    name: np.random.default_rng(size).random(size, np.float32) for name, size in (("a", 9), ("b", 50_000), ("c", 7))
}
OTHERS = {name: array + 1 for name, array in TENSORS.items()}
FILE = "w.safetensors"


async def _read(address: str) -> dict[str, bytes]:
    source = open_source(address)
    async with await WeightsFile.open(source, FILE) as weights:
        return {entry.name: await read_tensor(weights, entry) for entry in weights.header.entries}


@pytest.fixture
def packed(server):
    server.files[FILE] = data = pack(TENSORS)
    return data


async def test_only_the_rest_is_requested(server, packed):
    assert await _read(f"{server.address}/hiccup") == {name: array.tobytes() for name, array in TENSORS.items()}
    first, second = server.requests
    assert first == (f"/hiccup/{FILE}", None)
    assert second == (f"/hiccup/{FILE}", f"bytes={len(packed) // 2}-")


async def test_a_server_that_never_sends_the_end_is_an_error(server, packed, monkeypatch):
    monkeypatch.setattr("tensorcommons.hub.weights.WAITS", (0.0, 0.0, 0.0))
    with pytest.raises(DownloadError, match="cut"):
        await _read(f"{server.address}/cut")
    ranges = [wanted for _, wanted in server.requests]
    assert len(set(ranges)) >= 10, "the read must continue while data arrives"
    assert ranges[-3:] == [ranges[-1]] * 3 and ranges[-4] != ranges[-1]


async def test_a_file_that_changed_is_refused(server, packed):
    async with await WeightsFile.open(open_source(f"{server.address}/hiccup"), FILE) as weights:
        await read_tensor(weights, weights.header.entries[0])
        server.files[FILE] = pack(OTHERS)
        with pytest.raises(InvalidWeights, match="changed while it was read"):
            await read_tensor(weights, weights.header.entries[1])


@pytest.mark.parametrize("becomes", ["another", "shorter"])
async def test_without_validators_the_received_bytes_are_compared(server, packed, becomes, monkeypatch):
    monkeypatch.setattr("tensorcommons.hub.weights.WAITS", (0.0, 0.0, 0.0))
    server.bare.add(FILE)
    async with await WeightsFile.open(open_source(f"{server.address}/patchy"), FILE) as weights:
        await read_tensor(weights, weights.header.entries[0])
        server.files[FILE] = pack(OTHERS) if becomes == "another" else packed[:-4]
        with pytest.raises(InvalidWeights, match="changed while it was read"):
            await read_tensor(weights, weights.header.entries[1])
    server.files[FILE] = packed
    server.requests.clear()
    async with await WeightsFile.open(open_source(f"{server.address}/patchy"), FILE) as weights:
        for entry in weights.header.entries:
            assert await read_tensor(weights, entry) == TENSORS[entry.name].tobytes()
    assert [wanted for _, wanted in server.requests] == [None] * 4, "the whole file must be requested until it arrives"
