"""A connection that breaks in the middle of a tensor is taken up where it broke."""

from __future__ import annotations

import numpy as np
import pytest

from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.weights import WeightsFile
from tests.cases.checkpoints import pack

TENSORS = {
    name: np.random.default_rng(size).random(size, np.float32) for name, size in (("a", 9), ("b", 50_000), ("c", 7))
}


async def _read(address: str) -> dict[str, bytes]:
    source = open_source(address)
    async with await WeightsFile.open(source, "w.safetensors") as weights:
        return {entry.name: bytes((await weights.read(entry))[0]) for entry in weights.header.entries}


@pytest.fixture
def packed(server):
    server.files["w.safetensors"] = data = pack(TENSORS)
    return data


async def test_the_rest_is_asked_for_and_nothing_twice(server, packed):
    assert await _read(f"{server.address}/hiccup") == {name: array.tobytes() for name, array in TENSORS.items()}
    first, second = server.requests
    assert first == ("/hiccup/w.safetensors", None)
    assert second == ("/hiccup/w.safetensors", f"bytes={len(packed) // 2}-")


async def test_a_server_that_never_sends_the_end_is_given_up(server, packed, monkeypatch):
    monkeypatch.setattr("tensorcommons.hub.weights.WAITS", (0.0, 0.0, 0.0))
    with pytest.raises(DownloadError, match="cut"):
        await _read(f"{server.address}/cut")
    ranges = [wanted for _, wanted in server.requests]
    assert len(set(ranges)) >= 10, "it goes on while more comes"
    assert ranges[-3:] == [ranges[-1]] * 3 and ranges[-4] != ranges[-1]


async def test_a_file_that_became_another_is_refused(server, packed, monkeypatch):
    weights = await WeightsFile.open(open_source(f"{server.address}/hiccup"), "w.safetensors")
    weights._record.etag = '"old"'
    original = weights.source.open

    async def changed(*arguments, **options):
        stream = await original(*arguments, **options)
        stream.etag = '"new"'
        return stream

    monkeypatch.setattr(weights.source, "open", changed)
    with pytest.raises(InvalidWeights, match="changed while it was read"):
        await weights.read(weights.header.entries[1])
    await weights.close()
