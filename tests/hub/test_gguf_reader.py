"""The header of GGUF files: what is read, and every contradiction by name."""

from __future__ import annotations

import struct
import time
from base64 import b64decode
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorcommons.bridge.runtime import run_now
from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.formats import BLOCKS
from tensorcommons.hub.gguf import EVERY, MAX_PAIRS, parse_gguf_header, read_gguf_header
from tensorcommons.hub.safetensors import MAX_HEADER, MAX_TENSORS, as_array
from tensorcommons.hub.sources import open_source
from tests.cases.gguf_files import GOLDENS, TYPES, listed, quantized, string, value, write

FILE = "model.gguf"
METADATA: dict[str, Any] = {"general.architecture": "llama", "a.list": ["x", "", "é"], "a.flag": True}
TENSORS: dict[str, Any] = {
    "b": ("F32", (3,), np.arange(3, dtype=np.float32).tobytes()),
    "a": ("Q4_0", (2, 32), quantized("Q4_0", (2, 32), 0)),
}
GOOD = write(METADATA, TENSORS)


async def read(data: bytes, source: Any = None):
    async with await (source or open_source({FILE: data, "x": b""})).open(FILE) as stream:
        raw, header = await read_gguf_header(stream, FILE)
        assert stream.position == header.data_start == len(raw)
        rest = b""
        while piece := await stream.read_some(1000):
            rest += piece
        return raw, header, rest


async def test_reads_metadata_and_tensors_in_file_order():
    raw, header, rest = await read(GOOD)
    assert header.metadata == METADATA
    assert [(entry.name, entry.dtype, entry.shape) for entry in header.entries] == [
        ("b", "F32", (3,)),
        ("a", "Q4_0", (2, 32)),
    ]
    assert raw + rest == GOOD
    for entry in header.entries:
        assert GOOD[entry.start : entry.stop] == TENSORS[entry.name][2]
    assert (await parse_gguf_header(raw, len(GOOD), FILE)) == header
    assert await parse_gguf_header(raw[:-1], len(GOOD), FILE) is None
    assert await parse_gguf_header(raw + b"x", len(GOOD), FILE) is None


async def test_a_file_of_the_reference_writer():
    data = b64decode(GOLDENS["file"]["bytes"])
    _, header, _ = await read(data)
    about = header.metadata
    assert about["general.architecture"] == "llama" and about["a.string"] == "é☃" and about["a.long"] == 2**63
    assert about["a.negative"] == -3 and about["a.double"] == 0.1 and about["a.flag"] is True
    assert about["some.strings"] == ["x", "", "yz"] and about["some.numbers"].tolist() == [1, -2, 3]
    held = GOLDENS["file"]["tensors"]
    assert [entry.name for entry in header.entries] == list(held)
    for entry in header.entries:
        dtype, shape, raw = held[entry.name]
        assert list(entry.shape) == shape and data[entry.start : entry.stop] == b64decode(raw)
        assert entry.dtype == {"float32": "F32", "float16": "F16"}.get(dtype, dtype)


@pytest.mark.parametrize("mode", ["good", "plain", "chunked", "slow"])
async def test_reads_over_http(server, mode):
    server.files[f"m/{FILE}"] = GOOD
    raw, _, rest = await read(b"", open_source(f"{server.address}/{mode}/m"))
    assert raw + rest == GOOD


@pytest.mark.parametrize("kind", sorted(TYPES))
async def test_every_type(kind):
    form = BLOCKS.get(kind.lower())
    shape = (2, form.size if form else 5)
    data = quantized(kind, shape, 0) if form else bytes(10 * (4 if kind == "F32" else 2))
    _, header, _ = await read(write({"x": 1}, {"t": (kind, shape, data)}))
    (entry,) = header.entries
    assert (entry.dtype, entry.shape, entry.nbytes) == (kind, shape, len(data))
    assert (form.numbers(data) if form else as_array(entry, data)).size == np.prod(shape)


async def test_version_2_other_alignments_and_files_of_nothing():
    for version in (2, 3):
        for alignment in (1, 8, 256):
            data = write({"general.alignment": alignment, **METADATA}, TENSORS, version)
            _, header, _ = await read(data)
            assert all(entry.start % alignment == 0 for entry in header.entries)
            assert [data[entry.start : entry.stop] for entry in header.entries] == [
                each[2] for each in TENSORS.values()
            ]
    _, header, rest = await read(write(METADATA, {}))
    assert not header.entries and not rest
    empty = write({"x": 1}, {"none": ("F32", (0, 4), b""), "scalar": ("F32", (), bytes(4))})
    assert [entry.shape for entry in (await read(empty))[1].entries] == [(0, 4), ()]


def file(tensors: int = 0, pairs: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + body


def one(*fields: Any, data: bytes = bytes(64)) -> bytes:
    """A file with one tensor as ``listed`` packs it."""
    head = file(1, 0, listed(*fields))
    return head + bytes(-len(head) % 32) + data


def pair(kind: int, body: bytes, key: str = "k") -> bytes:
    return file(0, 1, string(key) + struct.pack("<I", kind) + body)


HUGE = 1 << 60
BAD = {
    "empty file": (b"", "an empty file"),
    "three bytes": (b"GGU", "not GGUF"),
    "a web page": (b"<!doctype html><html><body>Not found</body></html>", "not GGUF: a web page"),
    "safetensors": (b"\x02\0\0\0\0\0\0\0{}", "not GGUF: it begins with"),
    "only the magic": (b"GGUF", "truncated in the header"),
    "version 1": (file(version=1), "version 1 is not read"),
    "version 4": (file(version=4), "version 4 is not read"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "a big-endian file is not read"),
    "too many tensors": (file(MAX_TENSORS + 1), "tensors are over the limit"),
    "2**63 tensors": (file(1 << 63), "tensors are over the limit"),
    "too many pairs": (file(0, MAX_PAIRS + 1), "metadata pairs are over the limit"),
    "pairs that are not there": (file(0, 5), "truncated in the key of metadata pair 0"),
    "a key of 2**60 bytes": (file(0, 1, struct.pack("<Q", HUGE)), "key of metadata pair 0 has 1,152,921,504"),
    "a key that is not UTF-8": (file(0, 1, string(b"\xff")), "key of metadata pair 0 is not UTF-8"),
    "a key twice": (file(0, 2, 2 * (string("k") + value(1))), "holds 'k' more than once"),
    "an unknown type": (pair(13, b""), "metadata 'k' has the unknown type 13"),
    "a string of 2**60 bytes": (pair(8, struct.pack("<Q", HUGE)), "'k' has 1,152,921,504,606,846,976 bytes"),
    "a string over the end": (pair(8, struct.pack("<Q", 100)), "truncated in metadata 'k': 100 bytes at"),
    "a string that is not UTF-8": (pair(8, string(b"a\xff")), r"metadata 'k' is not UTF-8 \(byte 1"),
    "a boolean of 2": (pair(7, b"\2"), "'k' is a boolean with the value 2"),
    "an array of a boolean of 2": (pair(9, struct.pack("<IQ", 7, 2) + b"\0\2"), "boolean that is neither 0 nor 1"),
    "an array of arrays": (pair(9, struct.pack("<IQ", 9, 1)), "is an array of arrays"),
    "an array of an unknown type": (pair(9, struct.pack("<IQ", 77, 1)), "is an array of the unknown type 77"),
    "an array of 2**60 numbers": (pair(9, struct.pack("<IQ", 4, HUGE)), "truncated in metadata 'k'"),
    "an array of 2**60 strings": (pair(9, struct.pack("<IQ", 8, HUGE)), "strings; at most"),
    "strings that do not fit": (pair(9, struct.pack("<IQ", 8, 1000)), "1,000 strings, which do not fit"),
    "a string of an array over the end": (pair(9, struct.pack("<IQQ", 8, 1, 99)), "truncated in metadata 'k'"),
    "alignment 0": (write({"general.alignment": 0}, {}), "general.alignment must be a power of two, not 0"),
    "alignment 24": (write({"general.alignment": 24}, TENSORS), "general.alignment must be a power of two"),
    "alignment of text": (
        file(0, 1, string("general.alignment") + value("x")),
        "power of two, not 'x'",
    ),
    "alignment past the end": (
        file(1, 1, string("general.alignment") + value(1 << 30) + listed("t", 0, (1,), 0)) + bytes(8),
        "truncated in the padding before the tensors",
    ),
    "no name": (one("", 0, (1,), 0), "tensor 0 has no name"),
    "a name of 65 bytes": (one("t" * 65, 0, (1,), 0), "the name of tensor 0 has 65 bytes"),
    "a name of 2**60 bytes": (file(1, 0, struct.pack("<Q", HUGE)), "the name of tensor 0 has 1,152,921"),
    "a name that is not UTF-8": (one(b"\xff", 0, (1,), 0), "the name of tensor 0 is not UTF-8"),
    "five dimensions": (one("t", 0, (1,) * 5, 0), "tensor 't' has 5 dimensions; at most 4"),
    "2**32 dimensions": (file(1, 0, string("t") + b"\xff" * 4), "4,294,967,295 dimensions"),
    "an unknown tensor type": (one("t", 99, (1,), 0), "tensor 't' is of type 99, which is not read; known: F32"),
    "a known type that is not read": (one("t", 16, (256,), 0), "tensor 't' is of type IQ2_XXS.*another quantisation"),
    "sizes that wrap around": (one("t", 0, (1 << 32, 1 << 32), 0), "more elements than a file can hold"),
    "sizes that wrap around but for a zero": (one("t", 0, (0, 1 << 40, 1 << 40), 0), "more elements than a file"),
    "rows of no whole blocks": (
        one("t", TYPES["Q4_K"], (128, 2), 0),
        r"rows of shape \(2, 128\) are not whole blocks of 256",
    ),
    "a scalar in blocks": (one("t", TYPES["Q8_0"], (), 0), r"rows of shape \(\) are not whole blocks"),
    "a tensor twice": (file(2, 0, 2 * listed("t", 0, (8,), 0)) + bytes(200), "tensor 't' is listed more than once"),
    "an offset that is not aligned": (one("t", 0, (1,), 4), "tensor 't' begins at offset 4, not at 0"),
    "an offset of 2**64 - 32": (one("t", 0, (1,), 2**64 - 32), "tensor 't' begins at offset 18,446"),
    "overlap": (
        file(2, 0, listed("t", 0, (16,), 0) + listed("u", 0, (16,), 32)) + bytes(300),
        "tensor 'u' begins at offset 32, not at 64, the next multiple of 32 after tensor 't'",
    ),
    "the same bytes twice": (
        file(2, 0, listed("t", 0, (8,), 0) + listed("u", 0, (8,), 0)) + bytes(300),
        "'u' begins at offset 0",
    ),
    "a hole": (file(2, 0, listed("t", 0, (8,), 0) + listed("u", 0, (8,), 64)) + bytes(300), "offset 64, not at 32"),
    "out of range": (one("t", 0, (100,), 0), "tensor 't' ends at .* but the file has"),
    "truncated by one byte": (GOOD[:-1], "tensor 'a' ends at .* truncated, or still"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
async def test_bad_files_are_refused_by_name(data, reason):
    with pytest.raises(InvalidWeights, match=reason) as caught:
        await read(data)
    assert caught.value.file == FILE
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["truncated by one byte", "a hole", "a string over the end", "only the magic"])
async def test_bad_files_are_refused_over_http_also_without_a_content_length(server, name):
    server.files[f"m/{FILE}"] = BAD[name][0]
    with pytest.raises(InvalidWeights):
        await read(b"", open_source(f"{server.address}/good/m"))
    if name != "truncated by one byte":  # found when the tensor is read
        with pytest.raises(InvalidWeights, match="offset 64" if name == "a hole" else "truncated"):
            await read(b"", open_source(f"{server.address}/chunked/m"))


async def test_a_cut_connection_is_not_reported_as_a_bad_file(server):
    server.files[f"m/{FILE}"] = write({"k": ["x" * 1000] * 100}, TENSORS)
    with pytest.raises(DownloadError, match="cut after"):
        await read(b"", open_source(f"{server.address}/cut/m"))


async def test_a_header_that_grows_over_the_limit_is_refused_before_it_is_read():
    """A server that does not state the size could send bytes without end."""
    steps = Endless(string("k") + struct.pack("<IQ", 8, MAX_HEADER))
    with pytest.raises(InvalidWeights, match=r"metadata 'k': .* exceed the limit of 100,000,000 for a header"):
        await read_gguf_header(steps, FILE)  # type: ignore[arg-type]
    assert steps.sent < 2 << 20


class Endless:
    """A stream of one metadata pair, then zeros."""

    size = None

    def __init__(self, body: bytes) -> None:
        self.body = file(0, 1, body)
        self.sent = 0

    async def read_some(self, count: int) -> bytes:
        piece = self.body[self.sent : self.sent + count] or bytes(count)
        self.sent += len(piece)
        return piece


async def test_the_time_of_many_strings_is_that_of_their_bytes():
    words = [f"token {number}" for number in range(50 * EVERY)]
    data = write({"k": words}, TENSORS)
    began = time.process_time()
    _, header, _ = await read(data)
    assert header.metadata["k"] == words
    assert time.process_time() - began < 5


async def consume(data: bytes) -> None:
    """Read ``data`` as a file: only ``InvalidWeights`` may be raised, and tensors are inside the file."""
    async with await open_source({FILE: data, "x": b""}).open(FILE) as stream:
        try:
            raw, header = await read_gguf_header(stream, FILE)
        except InvalidWeights:
            return
        assert raw == data[: header.data_start]
        end = header.data_start
        for entry in header.entries:
            assert end <= entry.start <= entry.stop <= len(data)
            end = entry.stop
            form = BLOCKS.get(entry.dtype.lower())
            with np.errstate(all="ignore"):
                piece = data[entry.start : entry.stop]
                numbers = form.numbers(piece).reshape(entry.shape) if form else as_array(entry, piece)
            assert numbers.shape == entry.shape
        again = await parse_gguf_header(raw, len(data), FILE)
        assert again is not None and again.entries == header.entries


fuzz = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(work) -> None:
    """Run a coroutine that never waits, without an event loop for each example."""
    run_now(work, turns=True)


@fuzz
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(GOOD) + 3)
)
def test_damaged_bytes(changes, size):
    data = bytearray(GOOD + b"xyz")
    for place, byte in changes:
        data[place] = byte
    run(consume(bytes(data[:size])))


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(data):
    run(consume(data))
    run(consume(b"GGUF" + data))
    run(consume(b"GGUF\3\0\0\0" + data))


counts = st.integers(0, 3) | st.integers(0, 2**64 - 1)
numbers_ = st.integers(0, 40) | st.sampled_from([2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1])
names = st.binary(max_size=3).map(string) | numbers_.map(lambda length: struct.pack("<Q", length))
values = st.builds(
    lambda kind, body: struct.pack("<I", kind) + body, st.integers(0, 14), st.binary(max_size=12)
) | st.builds(
    lambda kind, count, body: struct.pack("<IIQ", 9, kind, count) + body,
    st.integers(0, 14),
    numbers_,
    st.binary(max_size=12),
)
entries = st.builds(
    lambda name, extents, kind, offset: (
        name + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset)
    ),
    names,
    st.lists(numbers_, max_size=5),
    st.sampled_from(sorted(TYPES.values())) | st.integers(0, 50),
    st.sampled_from([0, 32, 64]) | numbers_,
)


@pytest.mark.slow
@fuzz
@given(
    st.lists(st.tuples(names, values), max_size=3),
    st.lists(entries, max_size=3),
    counts,
    counts,
    st.binary(max_size=64),
)
def test_any_header(pairs, tensors, more_tensors, more_pairs, data):
    body = b"".join(key + each for key, each in pairs) + b"".join(tensors)
    for head in (file(len(tensors), len(pairs), body), file(more_tensors, more_pairs, body)):
        run(consume(head + bytes(-len(head) % 32) + data))
