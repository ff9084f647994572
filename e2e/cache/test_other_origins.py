"""Files of another origin in a real browser, which hides headers, decodes bodies, and sends preflight requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from e2e.cache.conftest import Visit
from tests.hub.server import serving
from tests.hub.test_varied_servers import FILES, RIGHT
from tests.hub.varied_server import Traits, VariedServer

READ = """
import hashlib
from tensorcommons.hub import weights as reading
from tensorcommons.hub.cached import CachedSource
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.weights import WeightsFile
reading.REOPEN = 1000
source = CachedSource(open_source("{}"), await tc.open_cache())
config = await source.read("config.json")
found = {{}}
async with await WeightsFile.open(source, "w.safetensors") as weights:
    for entry in weights.header.entries:
        if entry.name in {}:
            (chunk,) = weights.chunks(entry)
            found[entry.name] = hashlib.sha256(bytes((await weights.read([chunk]))[0][0])).hexdigest()
{{"config": config.decode(), "found": found}}
"""
SERVERS = {
    "gzip": Traits(encoding="gzip"),
    "gzip that is longer": Traits(encoding="gzip-stored", validators="date"),
    "no lengths": Traits(framing="chunked", validators="none"),
    "whole files as 206": Traits(whole=206),  # hidden, so it cannot be distinguished from a part
    "no ranges": Traits(ranges="ignored"),
    "other ranges": Traits(ranges="shifted"),
    "redirects": Traits(redirects=True, validators="both"),
}


@pytest.fixture
def varied() -> Iterator[VariedServer]:
    with serving(VariedServer()) as server:
        yield server


def test_files_of_every_server_are_read_or_refused(visit: Visit, varied: VariedServer) -> None:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in RIGHT[0].items()}
    for number, (kind, traits) in enumerate(SERVERS.items()):
        varied.reset(traits, FILES, 0)
        for wanted in (["a", "d", "f"], list(digests)):  # with gaps, then those that are missing in the cache
            code = READ.format(f"{varied.address}/{number}", wanted)
            if traits.whole == 206:
                code = f"import tensorcommons\ntry:\n{_indented(code)}\nexcept tc.errors.DownloadError as error:\n"
                code += "    told = str(error)\ntold"
                assert "a part of the file" in visit.run(code)
                continue
            read = visit.run(code)
            assert read["config"].encode() == FILES["config.json"][0], kind
            assert read["found"] == {name: digests[name] for name in wanted}, kind


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.strip().splitlines())
