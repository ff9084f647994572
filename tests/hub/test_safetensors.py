from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcommons.bridge.runtime import run_now
from tensorcommons.errors import DownloadError, InvalidWeights
from tensorcommons.hub.safetensors import (
    ITEMSIZE,
    MAX_HEADER,
    as_array,
    bfloat16_to_float32,
    iterate,
    parse_header,
    read_header,
)
from tensorcommons.hub.sources import open_source
from tests.hub.checkpoints import entry, pack

FILE = "model.safetensors"
GOOD = pack(
    {"__metadata__": {"format": "pt"}, "b": entry(8, 20, "F32", [3]), "a": entry(0, 8, "F16", [2, 2])}, bytes(range(20))
)


async def load(data: bytes, **options):
    return await load_from(open_source({FILE: data}), **options)


async def load_from(source, skip=None):
    async with await source.open(FILE) as stream:
        header = await read_header(stream, FILE)
        async with aclosing(iterate(stream, header, skip)) as tensors:
            return header, {found.name: (found, bytes(data)) async for found, data in tensors}


async def test_reads_tensors_in_file_order():
    header, tensors = await load(GOOD)
    assert list(tensors) == ["a", "b"]
    assert tensors["a"][0].shape == (2, 2)
    assert tensors["a"][1] == bytes(range(8))
    assert tensors["b"][1] == bytes(range(8, 20))
    assert header.metadata == {"format": "pt"}
    assert header.size == len(GOOD)
    assert GOOD[tensors["b"][0].start : tensors["b"][0].stop] == bytes(range(8, 20))


async def test_skips():
    _, tensors = await load(GOOD, skip=lambda found: found.name == "a")
    assert {name: data for name, (_, data) in tensors.items()} == {"b": bytes(range(8, 20))}


@pytest.mark.parametrize("mode", ["good", "plain", "chunked", "slow"])
async def test_reads_over_http(server, mode):
    server.files[f"m/{FILE}"] = GOOD
    _, tensors = await load_from(open_source(f"{server.address}/{mode}/m"))
    assert tensors["b"][1] == bytes(range(8, 20))


async def test_empty_and_scalar_tensors():
    header = {"none": entry(0, 0, "F32", [0, 5]), "scalar": entry(0, 8, "I64", []), "end": entry(8, 8, "F32", [0])}
    _, tensors = await load(pack(header, bytes(8)))
    assert list(tensors) == ["none", "scalar", "end"]
    assert as_array(*tensors["scalar"]).shape == ()
    assert as_array(*tensors["none"]).shape == (0, 5)
    assert (await load(pack({})))[1] == {}


@pytest.mark.parametrize("dtype", sorted(ITEMSIZE))
async def test_every_dtype_becomes_an_array(dtype):
    nbytes = 6 * ITEMSIZE[dtype]
    data = bytes([1]) * nbytes
    _, tensors = await load(pack({"x": entry(0, nbytes, dtype, [2, 3])}, data))
    array = as_array(*tensors["x"])
    assert array.shape == (2, 3)
    assert array.itemsize == (4 if dtype == "BF16" else ITEMSIZE[dtype])


def test_bfloat16_is_the_upper_half_of_a_float32():
    values = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-40, np.inf, -np.inf], np.float32)
    wide = bfloat16_to_float32((values.view(np.uint32) >> 16).astype(np.uint16))
    np.testing.assert_allclose(wide, values, rtol=2**-7, atol=1e-40)
    assert np.isnan(bfloat16_to_float32(np.array([0x7FC0], np.uint16)))[0]


BAD = {
    "empty file": (b"", "the file is empty"),
    "seven bytes": (b"1234567", "truncated in the header"),
    "header longer than the file": (pack({}, length=1000), r"header of 1,000 bytes does not fit in a file of 10 bytes"),
    "header of an absurd length": (pack({}, length=1 << 62), "over the limit"),
    "header just over the limit": (pack({}, length=MAX_HEADER + 1), "over the limit"),
    "a web page": (b"<!doctype html><html><body>Not found</body></html>", "a web page"),
    "an empty header": (pack(b""), "not JSON"),
    "not JSON": (pack(b"{'a': 1}"), "not JSON: .* at character 1"),
    "not UTF-8": (pack(b'{"\xff": 1}'), "not UTF-8"),
    "nested without end": (pack(b'{"a":' * 100_000), "JSON"),
    "an endless number": (pack(b'{"a":' + b"1" * 10_000 + b"}"), "JSON"),
    "a list": (pack([]), "not list"),
    "a name twice": (pack(b'{"a": 1, "b": 2, "a": 3}'), "holds 'a' more than once"),
    "a key twice inside": (pack(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "holds 'dtype' more than once"),
    "metadata of numbers": (pack({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata a list": (pack({"__metadata__": []}), "__metadata__"),
    "no object": (pack({"a": 1}), "tensor 'a': 1 does not give"),
    "no dtype": (pack({"a": {"shape": [], "data_offsets": [0, 4]}}, bytes(4)), "tensor 'a'.*does not give dtype"),
    "unknown dtype": (pack({"a": entry(0, 4, "F8_E5M2")}, bytes(4)), "tensor 'a': unknown dtype 'F8_E5M2'"),
    "dtype no string": (pack({"a": entry(0, 4, ["F32"])}, bytes(4)), "unknown dtype"),
    "negative size": (pack({"a": entry(0, 4, "F32", [-1])}, bytes(4)), r"shape \[-1\]"),
    "two negative sizes": (pack({"a": entry(0, 4, "F32", [-1, -1])}, bytes(4)), "shape"),
    "fractional size": (pack({"a": entry(0, 4, "F32", [1.0])}, bytes(4)), r"shape \[1.0\]"),
    "boolean size": (pack({"a": entry(0, 4, "F32", [True])}, bytes(4)), r"shape \[True\]"),
    "shape a number": (pack({"a": entry(0, 4, "F32", 1)}, bytes(4)), "shape 1 is not a list"),
    "sizes that wrap around": (pack({"a": entry(0, 0, "F32", [1 << 32, 1 << 32])}), "63 bits"),
    "sizes that wrap around but for a zero": (pack({"a": entry(0, 0, "F32", [0, 1 << 40, 1 << 40])}), "63 bits"),
    "a size of 2**63": (pack({"a": entry(0, 0, "U8", [1 << 63])}), "shape"),
    "a thousand dimensions": (pack({"a": entry(0, 4, "F32", [1] * 1000)}, bytes(4)), "at most 32"),
    "wrong shape": (pack({"a": entry(0, 4, "F32", [2])}, bytes(4)), r"shape \[2\] takes 8 bytes.*hold 4"),
    "one offset": (pack({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, bytes(4)), "data_offsets"),
    "negative offset": (pack({"a": entry(-4, 0, "F32", [1])}, bytes(4)), r"data_offsets \[-4, 0\]"),
    "fractional offset": (pack({"a": entry(0, 4.0, "F32", [1])}, bytes(4)), "data_offsets"),
    "boolean offset": (pack({"a": entry(False, 4, "F32", [1])}, bytes(4)), "data_offsets"),
    "a huge offset": (pack({"a": entry(0, 1 << 70, "F32", [1])}, bytes(4)), "data_offsets"),
    "backwards": (pack({"a": entry(4, 0, "F32", [1])}, bytes(4)), "end before they begin"),
    "overlap": (pack({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "tensor 'b' begins at 4, inside tensor 'a'"),
    "the same bytes twice": (pack({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "tensor 'b' begins at 0, inside"),
    "a hole": (pack({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "4 bytes before tensor 'b'"),
    "a hole at the beginning": (pack({"a": entry(4, 8)}, bytes(8)), "4 bytes before tensor 'a'"),
    "out of range": (pack({"a": entry(0, 400)}, bytes(12)), "tensor 'a' ends at 400, but the file holds 12"),
    "truncated by one byte": (GOOD[:-1], "tensor 'b' ends at 20, but the file holds 19"),
    "a byte too many": (GOOD + b"\0", "1 bytes after tensor 'b'"),
    "bytes without a tensor": (pack({}, b"1234"), "4 bytes after the header"),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD.keys())
async def test_bad_files_are_refused_by_name(data, reason):
    with pytest.raises(InvalidWeights, match=reason) as caught:
        await load(data)
    assert caught.value.file == FILE
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("mode", ["good", "chunked"])
@pytest.mark.parametrize(("data", "reason"), [BAD["truncated by one byte"], BAD["a byte too many"], BAD["seven bytes"]])
async def test_bad_files_are_refused_over_http_also_without_a_content_length(server, mode, data, reason):
    server.files[f"m/{FILE}"] = data
    with pytest.raises(InvalidWeights):
        await load_from(open_source(f"{server.address}/{mode}/m"))


async def test_a_cut_connection_is_not_reported_as_a_bad_file(server):
    server.files[f"m/{FILE}"] = pack({"a": entry(0, 40_000)}, bytes(40_000))
    with pytest.raises(DownloadError, match="cut after"):
        await load_from(open_source(f"{server.address}/cut/m"))


def test_parse_header_needs_no_stream():
    raw = json.dumps({"a": entry(0, 8)}).encode()
    (found,) = parse_header(raw, 8, FILE)
    assert (found.name, found.shape, found.start, found.nbytes) == ("a", (2,), 8 + len(raw), 8)
    with pytest.raises(InvalidWeights):
        parse_header(raw, 9, FILE)


class Counted:
    """Stream that records the size of each read."""

    def __init__(self, stream):
        self.stream = stream
        self.most = 0

    def __getattr__(self, name):
        return getattr(self.stream, name)

    async def read_exact(self, count):
        self.most = max(self.most, count)
        return await self.stream.read_exact(count)


async def consume(data: bytes) -> None:
    """Read ``data`` as a file: only ``InvalidWeights`` may be raised, and no read may exceed the file."""
    async with await open_source({FILE: data}).open(FILE) as stream:
        counted: Any = Counted(stream)
        try:
            header = await read_header(counted, FILE)
            async with aclosing(iterate(counted, header)) as tensors:
                async for found, piece in tensors:
                    as_array(found, piece)
            assert header.size == len(data)
        except InvalidWeights:
            pass
        assert counted.most <= max(len(data), 8)


fuzz = settings(max_examples=400)


def run(work) -> None:
    """Run a coroutine that never waits, without an event loop for each example."""
    run_now(work, turns=True)


@fuzz
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(GOOD) + 3)
)
def test_damaged_bytes(changes, size):
    data = bytearray(GOOD + b"xyz")
    for place, value in changes:
        data[place] = value
    run(consume(bytes(data[:size])))


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(data):
    run(consume(data))
    run(consume(pack(data)))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
sizes = st.integers(-2, 12) | values
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(ITEMSIZE)) | values,
        "shape": st.lists(sizes, max_size=3) | values,
        "data_offsets": st.lists(sizes, min_size=1, max_size=3) | values,
    }
)


@pytest.mark.slow
@fuzz
@given(
    st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries | values, max_size=4), st.binary(max_size=24)
)
def test_any_header(header, data):
    run(consume(pack(header, data)))
