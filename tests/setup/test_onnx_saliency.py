"""Weights from an ONNX file: found, transposed and joined, or refused."""

from __future__ import annotations

import array

import pytest

from scripts.convert import ConversionError
from scripts.onnx_saliency import weights_of
from scripts.safetensors import F32Tensor


def field(number: int, data: bytes) -> bytes:
    size, count = b"", len(data)
    while count > 127:
        size, count = size + bytes([count & 127 | 128]), count >> 7
    return bytes([number << 3 | 2]) + size + bytes([count]) + data


def tensor(name: str, shape: tuple[int, ...], values: list[float], kind: int = 1) -> bytes:
    dims = b"".join(bytes([1 << 3, size]) for size in shape)
    return field(5, dims + bytes([2 << 3, kind]) + field(8, name.encode()) + field(9, floats(*values)))


def floats(*values: float) -> bytes:
    return array.array("f", values).tobytes()


def matmul(weight: str, output: str) -> bytes:
    return field(
        1, b"".join(field(1, n) for n in (b"x", weight.encode())) + field(2, output.encode()) + field(4, b"MatMul")
    )


POSITIONS = tensor("onnx::Concat_1", (1, 1, 2), [1, 2]) + tensor("onnx::Reshape_2", (1, 2, 2), [3, 4, 5, 6])
GRAPH = (
    POSITIONS
    + tensor("decoder.bias", (2,), [7, 8])
    + tensor("onnx::MatMul_3", (2, 3), [1, 2, 3, 4, 5, 6])
    + tensor("shape", (1,), [0], kind=7)
    + matmul("onnx::MatMul_3", "/backbone/fc1/MatMul_output_0")
    + matmul("computed", "/backbone/scores/MatMul_output_0")
)


def test_weights_have_the_names_and_layout_of_pytorch():
    assert weights_of(field(7, GRAPH), "f") == {
        "decoder.bias": F32Tensor((2,), floats(7, 8)),
        "backbone.fc1.weight": F32Tensor((3, 2), floats(1, 4, 2, 5, 3, 6)),
        "backbone.embeddings.position_embeddings": F32Tensor((1, 3, 2), floats(1, 2, 3, 4, 5, 6)),
    }


@pytest.mark.parametrize(
    "data", [b"", b"not a model", field(7, b""), field(7, POSITIONS)[:-3], field(7, tensor("a", (3,), [1]))]
)
def test_other_models_are_refused(data):
    with pytest.raises(ConversionError, match=r"model\.onnx"):
        weights_of(data, "model.onnx")
