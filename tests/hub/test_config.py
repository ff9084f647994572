from __future__ import annotations

import pytest

from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.config import parse_json, read_json, read_optional_json
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.streams import FileMissingError


async def test_reads_an_object():
    source = open_source({"config.json": '{"hidden_size": 36, "name": "ü"}'.encode()})
    assert await read_json(source, "config.json") == {"hidden_size": 36, "name": "ü"}
    assert parse_json(b"\xef\xbb\xbf{}", "x") == {}


async def test_a_missing_file_is_an_error_unless_optional():
    source = open_source({})
    with pytest.raises(FileMissingError):
        await read_json(source, "config.json")
    assert await read_optional_json(source, "config.json") is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "an empty file"),
        (b'{"a": 1,\n "b": }', "at line 2, column 7"),
        (b"<!doctype html><title>Not found</title>", "a web page"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b"null", "not an object"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"a": 1} trailing', "Extra data"),
    ],
)
async def test_an_invalid_config_is_named(raw, reason):
    for read in (read_json, read_optional_json):
        with pytest.raises(InvalidWeights, match=reason) as caught:
            await read(open_source({"config.json": raw}), "config.json")
        assert caught.value.file.endswith("/config.json")


async def test_reads_over_http(server):
    server.files["m/config.json"] = b"not json"
    with pytest.raises(InvalidWeights, match=r"m/config.json: not JSON"):
        await read_json(open_source(f"{server.address}/good/m"), "config.json")
    with pytest.raises(DownloadError, match="500"):
        await read_optional_json(open_source(f"{server.address}/error/m"), "config.json")
