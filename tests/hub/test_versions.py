"""Validators that prove two responses to be of one version, and models whose files change while they are loaded."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest

import tensorcommons as tc
from tensorcommons.errors import InvalidWeights
from tensorcommons.hub.source import LIMIT, LIMITS
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.version import Version
from tests.hub.counting import counted
from tests.models.server import TINY

STRONG, OTHER, WEAK = '"a"', '"b"', 'W/"a"'
DATE, LATER = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:38 GMT"


def version(size=5, etag=None, modified=None, answered=LATER):
    headers = {"etag": etag, "last-modified": modified, "date": answered}
    return Version.of({name: value for name, value in headers.items() if value}, size)


@pytest.mark.parametrize(
    ("first", "later", "proves", "matches"),
    [
        (version(etag=STRONG), version(etag=STRONG), True, True),
        (version(etag=STRONG), version(etag=OTHER), False, False),
        (version(etag=STRONG), version(etag=STRONG, size=6), False, False),
        (version(etag=STRONG), version(etag=STRONG, size=None), True, True),
        (version(etag=WEAK), version(etag=WEAK), False, True),
        (version(etag=WEAK), version(etag=STRONG), False, True),
        (version(etag=WEAK, modified=DATE), version(etag=WEAK, modified=DATE), True, True),
        (version(etag='"a-gzip"'), version(etag=STRONG), False, True),
        (version(modified=DATE), version(modified=DATE), True, True),
        (version(modified=DATE), version(modified=LATER), False, False),
        (version(modified=DATE, answered=DATE), version(modified=DATE), False, False),
        (version(modified="yesterday"), version(modified="yesterday"), False, False),
        (version(etag=STRONG, modified=DATE), version(modified=DATE), True, True),
        (version(etag=STRONG), version(modified=DATE), False, False),
        (version(), version(), False, False),
        (version(modified=DATE, answered=None), version(modified=DATE), True, True),
    ],
)
def test_validators_that_prove_equality(first, later, proves, matches):
    assert (first.proves(later), first.matches(later)) == (proves, matches)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(TINY / "tiny-bert", tmp_path / "m")
    return tmp_path / "m"


def _overwrite(folder) -> None:
    """Overwrite a file with other numbers of the same size."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x40
    path.write_bytes(data)


def _manager() -> tc.TensorSharingManager:
    return tc.TensorSharingManager(64, activation_cache=False)


async def _different(first: tc.Model, second: tc.Model) -> list[str]:
    """Return the names of weights in which two models differ."""
    weights = [model._weights for model in (first, second)]  # noqa: SLF001 - a forward may hide a difference
    arrays = [{param.name: await weight.data.read() for param, weight in each.items()} for each in weights]
    return [name for name in arrays[0] if not np.array_equal(arrays[0][name], arrays[1][name])]


@pytest.mark.parametrize("age", [0, 3600])
async def test_an_overwritten_folder_is_read_again(folder, age):
    os.utime(folder / "model.safetensors", (time.time() - age,) * 2)
    manager = _manager()
    before = await tc.from_pretrained(folder, manager=manager)
    _overwrite(folder)
    after = await tc.from_pretrained(folder, manager=manager)
    assert len(await _different(before, after)) == 1
    assert not await _different(after, await tc.from_pretrained(folder, manager=_manager()))


@pytest.mark.parametrize("mode", ["", "bare"])
async def test_an_overwritten_served_file_is_read_again(folder, mode):
    with counted(folder.parent) as server:
        server.mode = mode
        manager = _manager()
        before = await tc.from_pretrained(server.url + "m", manager=manager)
        _overwrite(folder)
        after = await tc.from_pretrained(server.url + "m", manager=manager)
        assert len(await _different(before, after)) == 1


async def test_a_repository_that_changed_between_two_files_is_refused(server):
    for name, revision in (("config.json", "a" * 40), ("model.safetensors", "b" * 40)):
        server.files[name] = (TINY / "tiny-bert-mlm" / name).read_bytes()
        server.more[name] = {"X-Repo-Commit": revision}
    with pytest.raises(InvalidWeights, match="another revision"):
        await tc.from_pretrained(f"{server.address}/good", manager=_manager())


@pytest.mark.parametrize(("file", "most"), [("config.json", LIMIT), ("tokenizer.json", LIMITS["tokenizer.json"])])
async def test_an_endless_file_ends_at_its_limit(server, file, most):
    if most == LIMIT:
        server.files[file] = b" " * 100_000
        with pytest.raises(InvalidWeights, match=f"limit of {most:,} bytes"):
            await open_source(f"{server.address}/endless").read(file)
    with pytest.raises(InvalidWeights, match="limit of"):
        await open_source({file: bytes(most + 1)}).read(file)


async def test_credentials_in_a_url_are_sent_to_its_server_and_appear_in_no_message(server):
    server.files["config.json"] = b"{}"
    address = server.address.replace("://", "://me:hunter2@")
    source = open_source(f"{address}/good?secret=5")
    assert json.loads(await source.read("config.json")) == {}
    assert server.granted == ["Basic bWU6aHVudGVyMg=="]
    assert "hunter2" not in source.key("config.json")
    with pytest.raises(tc.errors.DownloadError) as caught:
        await source.read("none.json")
    assert "hunter2" not in repr(caught.value) and "secret" not in str(caught.value)
