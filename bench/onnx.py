"""ONNX files from arrays, for the peers that read ONNX: a writer of the necessary protobuf messages, and graphs.

The format is https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the numbers below are its field numbers. The
graphs are those of exporters (LayerNormalization and Softmax as ops, GELU by Erf), so that the fusions of a runtime
apply.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bench.stored import Stored

Array: TypeAlias = np.ndarray[Any, Any]
Piece: TypeAlias = bytes | memoryview | Stored
Weights: TypeAlias = "Mapping[str, Array] | Mapping[str, Stored]"
TYPES = {"float32": 1, "int32": 6, "int64": 7, "float16": 10}
EXTERNAL = 1 << 10  # bytes from which a constant is outside the file, if constants may be
WEIGHTS = "weights.bin"  # name of the file of these constants
OPSET = 17
CONTRIBUTED = "com.microsoft"
Attribute: TypeAlias = "int | float | str | Sequence[int]"


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1  # negative numbers are written as their two's complement
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """Encode a varint, a float, or a length-delimited field (text, bytes, a message)."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _sized(number: int, pieces: Sequence[Piece]) -> list[Piece]:
    """Encode a length-delimited field in pieces, so that large ones are copied once, at the end."""
    return [_varint(number << 3 | 2) + _varint(sum(map(nbytes, pieces))), *pieces]


def nbytes(piece: Piece) -> int:
    """Return the length of a piece in bytes."""
    return len(piece) if isinstance(piece, bytes) else piece.nbytes


def read(piece: Piece) -> bytes | memoryview:
    """Return the bytes of a piece, which are computed now if it is stored."""
    return piece.read() if isinstance(piece, Stored) else piece


def _tensor(name: str, array: Array | Stored, start: int | None) -> list[Piece]:
    """Encode a TensorProto. Its data are there, or from byte ``start`` of the file of constants on."""
    dims = b"".join(_field(1, size) for size in array.shape)
    head = dims + _field(2, TYPES[array.dtype.name]) + _field(8, name)
    if start is None:
        return [head, *_sized(9, [_data(array)])]
    place = {"location": WEIGHTS, "offset": str(start), "length": str(array.nbytes)}
    return [
        head + b"".join(_field(13, _field(1, key) + _field(2, value)) for key, value in place.items()) + _field(14, 1)
    ]


def _data(array: Array | Stored) -> Piece:
    return array if isinstance(array, Stored) else memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _attribute(name: str, value: Attribute) -> bytes:
    """Encode an AttributeProto."""
    if isinstance(value, int):
        return _field(1, name) + _field(3, value) + _field(20, 2)
    if isinstance(value, float):
        return _field(1, name) + _field(2, value) + _field(20, 1)
    if isinstance(value, str):
        return _field(1, name) + _field(4, value) + _field(20, 3)
    return _field(1, name) + b"".join(_field(8, item) for item in value) + _field(20, 7)


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """Encode a ValueInfoProto. A size that is a name is variable."""
    dims = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, TYPES[dtype]) + _field(2, dims)))


@dataclass(frozen=True)
class Model:
    """A ModelProto in pieces, and those of the file of its constants, none if they are in the ModelProto."""

    graph: Sequence[Piece]
    constants: Sequence[Piece] = ()

    def __bytes__(self) -> bytes:
        return b"".join(map(read, self.graph))


class Builder:
    """A graph under construction. Methods that add nodes return the name of the result.

    ``external``: large constants are not in the file, which can have 2 GB at most.
    """

    def __init__(self, inputs: Mapping[str, tuple[str, Sequence[int | str]]], *, external: bool = False) -> None:
        self._external = external
        self._inputs = [_value(name, *spec) for name, spec in inputs.items()]
        self._nodes: list[bytes] = []
        self._contributed = False
        self._constants: dict[str, Array | Stored] = {}

    def constant(self, name: str, array: Array | Stored) -> str:
        """Add an initializer, unless one has that name already."""
        if name not in self._constants:
            self._constants[name] = array
        return name

    def number(self, value: float) -> str:
        """Add a float32 scalar."""
        return self.constant(f"number {value}", np.array(value, np.float32))

    def sizes(self, *values: int) -> str:
        """Add an int64 vector: a shape, or an axis."""
        return self.constant(f"sizes {values}", np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output."""
        return self.named(f"{kind}_{len(self._nodes)}", kind, *inputs, **attributes)

    def named(self, output: str, kind: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node whose output has that name."""
        return self._add(kind, inputs, (output,), attributes)

    def contributed(self, kind: str, *inputs: str, outputs: Sequence[str], **attributes: Attribute) -> str:
        """Add a node of ONNX Runtime's contributed ops; gives the first of its outputs."""
        self._contributed = True
        return self._add(kind, inputs, outputs, attributes, _field(7, CONTRIBUTED))

    def _add(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Attribute],
        domain: bytes = b"",
    ) -> str:
        node = b"".join(_field(1, name) for name in inputs) + b"".join(_field(2, name) for name in outputs)
        node += _field(3, outputs[0]) + _field(4, kind)
        self._nodes.append(node + b"".join(_field(5, _attribute(*pair)) for pair in attributes.items()) + domain)
        return outputs[0]

    def model(self, outputs: Mapping[str, Sequence[int | str]]) -> bytes:
        """Encode a ModelProto with float32 outputs, by name and shape."""
        return bytes(self.file({name: ("float32", shape) for name, shape in outputs.items()}))

    def file(self, outputs: Mapping[str, tuple[str, Sequence[int | str]]]) -> Model:
        """Encode a ModelProto with outputs of these dtypes and shapes, without reading stored constants."""
        graph: list[Piece] = [b"".join(_field(1, node) for node in self._nodes) + _field(2, "graph")]
        outside: list[Piece] = []
        for name, array, start in self._placed():
            graph += _sized(5, _tensor(name, array, start))
            outside += [] if start is None else [_data(array)]
        graph.append(b"".join(_field(11, value) for value in self._inputs))
        graph.append(b"".join(_field(12, _value(name, *spec)) for name, spec in outputs.items()))
        pieces: list[Piece] = [_field(1, 8) + _field(2, "tensorcommons bench"), *_sized(7, graph)]
        pieces.append(_field(8, _field(2, OPSET)))
        if self._contributed:
            pieces.append(_field(8, _field(1, CONTRIBUTED) + _field(2, 1)))
        return Model(pieces, outside)

    def _placed(self) -> Iterator[tuple[str, Array | Stored, int | None]]:
        """Yield the constants, each with its first byte in their file, or None."""
        end = 0
        for name, array in self._constants.items():
            is_outside = self._external and array.nbytes >= EXTERNAL
            yield name, array, end if is_outside else None
            end += array.nbytes if is_outside else 0

    def first_row(self, x: str, columns: int) -> bytes:
        """Encode a ModelProto whose output is the first row of the matrix ``x``."""
        row = self.op("Slice", x, self.sizes(0), self.sizes(1), self.sizes(0))
        return self.model({row: (1, columns)})

    # --- the layers that the graphs share ---

    def linear(self, x: str, weights: Weights, layer: str) -> str:
        """Build ``x @ weight.T + bias``, with the weight stored transposed, as by exporters."""
        matrix = self.constant(f"{layer}.weight", weights[f"{layer}.weight"].T)
        return self.op("Add", self.op("MatMul", x, matrix), self.constant(f"{layer}.bias", weights[f"{layer}.bias"]))

    def layer_norm(self, x: str, weights: Weights, layer: str, epsilon: float) -> str:
        """Build LayerNormalization over the last axis."""
        parts = [self.constant(f"{layer}.{part}", weights[f"{layer}.{part}"]) for part in ("weight", "bias")]
        return self.op("LayerNormalization", x, *parts, axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        """Build GELU by Erf, in the order in which PyTorch's exporter writes it."""
        erf = self.op("Erf", self.op("Div", x, self.number(2**0.5)))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.number(1.0))), self.number(0.5))


def matmul_chain(n: int, steps: int) -> bytes:
    """Build ``x @ b @ b …`` of n × n matrices; the output is the first row."""
    graph = Builder({"x": ("float32", (n, n)), "b": ("float32", (n, n))})
    x = "x"
    for _ in range(steps):
        x = graph.op("MatMul", x, "b")
    return graph.first_row(x, n)


def chain(kind: str, arrays: Mapping[str, Array], steps: int) -> bytes:
    """Build a chain of one op on its own result; the output is the first row."""
    graph = Builder({name: ("float32", array.shape) for name, array in arrays.items()})
    older, newer = "x", "y" if kind == "add" else "x"
    for _ in range(steps):
        if kind == "add":
            older, newer = newer, graph.op("Add", newer, older)
        elif kind == "softmax":
            newer = graph.op("Softmax", newer, axis=-1)
        else:
            newer = graph.op("LayerNormalization", newer, "weight", "bias", axis=-1, epsilon=1e-5)
    return graph.first_row(newer, arrays["x"].shape[1])


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def bert(
    config: Mapping[str, Any], weights: Mapping[str, Array], batch: int, length: int, dtype: str = "int32"
) -> bytes:
    """Build the encoder of ``config`` for one shape and dtype of its inputs; the output is the last hidden state."""
    graph = Builder(dict.fromkeys(INPUTS, (dtype, (batch, length))))
    hidden = encoder(graph, config, weights, batch, length)
    graph.named("last_hidden_state", "Identity", hidden)
    return graph.model({"last_hidden_state": (batch, length, config["hidden_size"])})


def classifier(
    config: Mapping[str, Any], weights: Mapping[str, Array], head: Mapping[str, Array], batch: int, length: int
) -> bytes:
    """Build an MLP of two layers on the mean of the encoder's hidden states; the outputs are its logits."""
    graph = Builder(dict.fromkeys(INPUTS, ("int32", (batch, length))))
    hidden = encoder(graph, config, weights, batch, length)
    mask = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=1), graph.sizes(2))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, mask), graph.sizes(1), keepdims=0)
    x = graph.op("Div", total, graph.op("ReduceSum", mask, graph.sizes(1), keepdims=0))
    x = graph.op("Relu", graph.linear(x, head, "layers.0"))
    return graph.model({graph.linear(x, head, "layers.1"): (batch, head["layers.1.bias"].size)})


def encoder(graph: Builder, config: Mapping[str, Any], weights: Mapping[str, Array], batch: int, length: int) -> str:
    """Add the encoder to ``graph``; gives the name of its last hidden state."""
    size, count = config["hidden_size"], config["num_attention_heads"]
    epsilon = float(config.get("layer_norm_eps", 1e-12))
    table = "embeddings.{}_embeddings.weight"
    x = graph.op("Gather", graph.constant(table.format("word"), weights[table.format("word")]), "input_ids")
    types = graph.op(
        "Gather", graph.constant(table.format("token_type"), weights[table.format("token_type")]), "token_type_ids"
    )
    positions = graph.constant("positions", weights[table.format("position")][None, :length])
    x = graph.op("Add", graph.op("Add", x, types), positions)
    x = graph.layer_norm(x, weights, "embeddings.LayerNorm", epsilon)
    mask = graph.op("Cast", graph.op("Unsqueeze", "attention_mask", graph.sizes(1, 2)), to=1)
    mask = graph.op("Mul", graph.op("Sub", graph.number(1.0), mask), graph.number(float(np.finfo(np.float32).min)))

    def split(y: str, order: Sequence[int]) -> str:
        apart = graph.op("Reshape", y, graph.sizes(batch, length, count, size // count))
        return graph.op("Transpose", apart, perm=order)

    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        own = f"{layer}.attention.self"
        query = split(graph.linear(x, weights, f"{own}.query"), (0, 2, 1, 3))
        key = split(graph.linear(x, weights, f"{own}.key"), (0, 2, 3, 1))
        value = split(graph.linear(x, weights, f"{own}.value"), (0, 2, 1, 3))
        scores = graph.op("Div", graph.op("MatMul", query, key), graph.number((size // count) ** 0.5))
        shares = graph.op("Softmax", graph.op("Add", scores, mask), axis=-1)
        mixed = graph.op("Transpose", graph.op("MatMul", shares, value), perm=(0, 2, 1, 3))
        mixed = graph.op("Reshape", mixed, graph.sizes(batch, length, size))
        attended = graph.linear(mixed, weights, f"{layer}.attention.output.dense")
        x = graph.layer_norm(graph.op("Add", attended, x), weights, f"{layer}.attention.output.LayerNorm", epsilon)
        inner = graph.gelu(graph.linear(x, weights, f"{layer}.intermediate.dense"))
        outer = graph.linear(inner, weights, f"{layer}.output.dense")
        x = graph.layer_norm(graph.op("Add", outer, x), weights, f"{layer}.output.LayerNorm", epsilon)
    return x
