"""Recognition of files whose contents are not what their name suggests, by their first bytes."""

from __future__ import annotations

ENOUGH = 64  # bytes

SIGNS = (
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer: the file itself was not fetched ('git lfs pull' does)",
    ),
    (b"GGUF", 'a GGUF file: pass its own address, which must end in ".gguf"'),
    (b"PK\x03\x04", "a zip archive, as PyTorch's .bin and .pt files are: save the model as safetensors"),
    (b"\x89HDF", "an HDF5 file of Keras or TensorFlow: save the model as safetensors"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
)


def foreign(data: bytes | bytearray) -> str | None:
    """Describe, as a noun phrase, a file that begins with ``data``; None if it is not recognised."""
    start = bytes(data[:ENOUGH])
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "an empty file"
    for sign, name in SIGNS:
        if start.startswith(sign):
            return name
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "a web page: is the address right, and does the file need a token?"
    if start[0] == 0x80 and len(start) > 1 and 1 <= start[1] <= 5:
        return "a pickle, as PyTorch's .bin and .pt files are, which is not read: save the model as safetensors"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite file: save the model as safetensors"
    # ModelProto: field 1, the version of the format, then the producer's name (field 2) or the graph (field 7).
    if start[0] == 0x08 and len(start) > 2 and 1 <= start[1] <= 20 and start[2] in (0x12, 0x1A, 0x3A):
        return "an ONNX file, which is not read: save the model as safetensors"
    return None
