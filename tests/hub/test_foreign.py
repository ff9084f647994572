"""Files of other formats: recognised by their first bytes, and named in the error."""

from __future__ import annotations

import json

import pytest

from tensorcommons.errors import InvalidWeights
from tensorcommons.hub.foreign import foreign
from tensorcommons.hub.sources import open_source
from tensorcommons.hub.weights import WeightsFile

SAFETENSORS = (2).to_bytes(8, "little") + json.dumps({}).encode()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"GGUF\x03\x00", "GGUF"),
        (b"PK\x03\x04\x00", "zip"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd"),
        (b"\xef\xbb\xbf \r\n<!DOCTYPE html>", "web page"),
        *((start + b" lang='en'>", "web page") for start in (b"<html", b"\n<HEAD", b"<?xml", b"<!--")),
        *((bytes([0x80, protocol]), "pickle") for protocol in range(1, 6)),
        (b"\x1c\x00\x00\x00TFL3\x00", "TensorFlow Lite"),
        *((bytes([0x08, version, field]), "ONNX") for version in (1, 20) for field in (0x12, 0x1A, 0x3A)),
    ],
)
def test_other_formats_are_named(data, name):
    assert name in (foreign(data) or "nothing")


@pytest.mark.parametrize(
    "data",
    [
        SAFETENSORS,
        b"{}",
        b"<div>",
        b"\x80",
        *(bytes([0x80, protocol]) for protocol in (0, 6)),
        b"TFL3\x00\x00\x00\x00",
        b"\x08\x01",
        *(bytes([0x08, version, 0x12]) for version in (0, 21)),
        *(bytes([0x08, 7, field]) for field in (0x11, 0x13, 0x3B)),
        bytes([0x07, 7, 0x12]),
    ],
)
def test_similar_first_bytes_are_not_mistaken_for_another_format(data):
    assert foreign(data) is None


@pytest.mark.parametrize("data", [b"\xff" * 16, b"GGUF\x03\x00\x00\x00\x00", SAFETENSORS[:5]])
async def test_a_file_with_a_bad_header_is_refused(data):
    with pytest.raises(InvalidWeights, match=r"model\.safetensors"):
        await WeightsFile.open(open_source({"model.safetensors": data}), "model.safetensors")
