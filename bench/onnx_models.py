"""ONNX graphs of the other models, as written by exporters: Llama and GPT-2 with key/value caches, and DINOv2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bench.onnx import Array, Builder, Model
from bench.stored import Stored

Config: TypeAlias = "Mapping[str, Any]"
Weights: TypeAlias = "Mapping[str, Array]"
Lazy: TypeAlias = "Mapping[str, Stored]"
LAST = 2**31 - 1  # end of a slice to the end of an axis


@dataclass(frozen=True)
class Cache:
    """Cache of a decoder: keys and values of ``size`` numbers for each token, layer and head."""

    layers: int
    heads: int
    size: int

    @classmethod
    def of(cls, config: Config) -> Cache:
        """Read the sizes from the configuration of a Llama or a GPT-2."""
        if config["model_type"] == "gpt2":
            return cls(config["n_layer"], config["n_head"], config["n_embd"] // config["n_head"])
        size = config["hidden_size"] // config["num_attention_heads"]
        return cls(config["num_hidden_layers"], config["num_key_value_heads"], size)

    def parts(self) -> list[str]:
        """Return the names after ``past_key_values.`` and ``present.``."""
        return [f"{i}.{part}" for i in range(self.layers) for part in ("key", "value")]

    def inputs(self, dtype: str) -> dict[str, tuple[str, Sequence[int | str]]]:
        """Return the inputs of a graph: tokens, the attention mask of all tokens so far, and the cache before them."""
        tokens: dict[str, tuple[str, Sequence[int | str]]] = {
            "input_ids": ("int64", ("batch_size", "new")),
            "attention_mask": ("int64", ("batch_size", "all")),
        }
        past = (dtype, ("batch_size", self.heads, "past", self.size))
        return tokens | {f"past_key_values.{part}": past for part in self.parts()}

    def outputs(self, dtype: str) -> dict[str, tuple[str, Sequence[int | str]]]:
        """Return the outputs of a graph: the cache after the tokens."""
        return {f"present.{part}": (dtype, ("batch_size", self.heads, "all", self.size)) for part in self.parts()}


def decoder(config: Config, weights: Lazy, *, external: bool = False) -> Model:
    """Build a step of generation over any number of tokens: the logits after the last one, and the cache.

    Everything but the logits has the dtype of the weights, as exporters write it. Inputs and outputs have the names of
    transformers.js: ``input_ids`` and ``attention_mask`` int64, ``past_key_values.0.key`` ... and ``present.0.key`` ...
    of (batch_size, key heads, tokens, head size). Attention is ``GroupQueryAttention``, which has the cache and rotary
    positions inside: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
    """
    cache, dtype = Cache.of(config), next(iter(weights.values())).dtype.name
    graph = Builder(cache.inputs(dtype), external=external)
    count = graph.op("ReduceSum", "attention_mask", graph.sizes(1), keepdims=0)
    last = graph.op("Cast", graph.op("Sub", count, graph.sizes(1)), to=6)
    total = graph.op("Gather", graph.op("Shape", "attention_mask"), graph.constant("one", np.array(1, np.int64)))
    total = graph.op("Cast", total, to=6)

    def attend(i: int, heads: int, parts: Sequence[str], turns: Sequence[str] = ()) -> str:
        return graph.contributed(
            "GroupQueryAttention",
            *(*parts, *(f"past_key_values.{i}.{part}" for part in ("key", "value")), last, total, *turns),
            outputs=(f"attended.{i}", f"present.{i}.key", f"present.{i}.value"),
            num_heads=heads,
            kv_num_heads=cache.heads,
            do_rotary=len(turns) // 2,
            rotary_interleaved=0,
        )

    x, table = (_gpt2 if config["model_type"] == "gpt2" else _llama)(graph, config, weights, attend)
    columns = weights[table].shape[1]
    row = graph.op("Slice", x, graph.sizes(-1), graph.sizes(LAST), graph.constant("axis", np.array([1], np.int64)))
    row = graph.op("Gemm", graph.op("Reshape", row, graph.sizes(-1, columns)), table, transB=1)
    row = graph.op("Reshape", row, graph.sizes(-1, 1, config["vocab_size"]))
    logits = graph.named("logits", "Cast", row, to=1)
    return graph.file({logits: ("float32", ("batch_size", 1, config["vocab_size"]))} | cache.outputs(dtype))


def _llama(graph: Builder, config: Config, weights: Lazy, attend: Callable[..., str]) -> tuple[str, str]:
    """Build the hidden states; also gives the name of the table for the logits."""
    heads = config["num_attention_heads"]
    size = config["hidden_size"] // heads
    rates = float(config["rope_theta"]) ** (-np.arange(0, size, 2) / size)
    angles = np.outer(np.arange(config["max_position_embeddings"]), rates)
    dtype = weights["norm.weight"].dtype
    turns = [graph.constant(name, f(angles).astype(dtype)) for name, f in (("cos", np.cos), ("sin", np.sin))]

    def norm(x: str, layer: str) -> str:
        weight = graph.constant(f"{layer}.weight", weights[f"{layer}.weight"])
        return graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=float(config["rms_norm_eps"]))

    def product(x: str, layer: str) -> str:
        return graph.op("MatMul", x, graph.constant(f"{layer}.weight", weights[f"{layer}.weight"].T))

    table = graph.constant("embed_tokens.weight", weights["embed_tokens.weight"])
    x = graph.op("Gather", table, "input_ids")
    for i in range(config["num_hidden_layers"]):
        layer = f"layers.{i}"
        normed = norm(x, f"{layer}.input_layernorm")
        attended = attend(i, heads, [product(normed, f"{layer}.self_attn.{part}_proj") for part in "qkv"], turns)
        x = graph.op("Add", x, product(attended, f"{layer}.self_attn.o_proj"))
        normed = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (product(normed, f"{layer}.mlp.{part}_proj") for part in ("gate", "up"))
        inner = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        x = graph.op("Add", x, product(inner, f"{layer}.mlp.down_proj"))
    return norm(x, "norm"), table


def _gpt2(graph: Builder, config: Config, weights: Lazy, attend: Callable[..., str]) -> tuple[str, str]:
    """Build the hidden states; also gives the name of the table for the logits."""
    size, epsilon = config["n_embd"], float(config["layer_norm_epsilon"])

    def product(x: str, layer: str, columns: slice = slice(None), part: str = "") -> str:
        matrix, bias = (
            graph.constant(f"{layer}{part}.{name}", weights[f"{layer}.{name}"][..., columns])
            for name in ("weight", "bias")
        )
        return graph.op("Add", graph.op("MatMul", x, matrix), bias)

    def gelu(y: str) -> str:
        cube = graph.op("Mul", graph.op("Mul", y, y), graph.op("Mul", y, graph.number(0.044715)))
        turn = graph.op("Tanh", graph.op("Mul", graph.op("Add", y, cube), graph.number((2 / np.pi) ** 0.5)))
        half = graph.op("Mul", y, graph.number(0.5))
        return graph.op("Mul", half, graph.op("Add", turn, graph.number(1.0)))

    table = graph.constant("wte.weight", weights["wte.weight"])
    # Positions are cumulative sums of the mask minus one, in the last columns of the mask.
    counted = graph.op("CumSum", "attention_mask", graph.constant("one", np.array(1, np.int64)))
    news = graph.op("Gather", graph.op("Shape", "input_ids"), graph.sizes(1))
    axis = graph.constant("axis", np.array([1], np.int64))
    counted = graph.op("Slice", counted, graph.op("Neg", news), graph.sizes(LAST), axis)
    places = graph.op("Sub", counted, graph.sizes(1))
    positions = graph.op("Gather", graph.constant("wpe.weight", weights["wpe.weight"]), places)
    x = graph.op("Add", graph.op("Gather", table, "input_ids"), positions)
    for i in range(config["n_layer"]):
        layer = f"h.{i}"
        normed = graph.layer_norm(x, weights, f"{layer}.ln_1", epsilon)
        parts = [
            product(normed, f"{layer}.attn.c_attn", slice(j * size, (j + 1) * size), f".{part}")
            for j, part in enumerate("qkv")
        ]
        x = graph.op("Add", x, product(attend(i, config["n_head"], parts), f"{layer}.attn.c_proj"))
        normed = graph.layer_norm(x, weights, f"{layer}.ln_2", epsilon)
        x = graph.op("Add", x, product(gelu(product(normed, f"{layer}.mlp.c_fc")), f"{layer}.mlp.c_proj"))
    return graph.layer_norm(x, weights, "ln_f", epsilon), table


def dinov2(config: Config, weights: Weights, batch: int) -> bytes:
    """Build the vision transformer for square images of its own size; the output is the last hidden state."""
    size, count, epsilon = config["hidden_size"], config["num_attention_heads"], float(config["layer_norm_eps"])
    side, patch = config["image_size"], config["patch_size"]
    tokens = (side // patch) ** 2 + 1
    graph = Builder({"pixel_values": ("float32", (batch, 3, side, side))})

    def stored(name: str) -> str:
        return graph.constant(name, weights[name])

    kernel = "embeddings.patch_embeddings.projection"
    x = graph.op("Conv", "pixel_values", stored(f"{kernel}.weight"), stored(f"{kernel}.bias"), strides=[patch, patch])
    x = graph.op("Transpose", graph.op("Reshape", x, graph.sizes(batch, size, tokens - 1)), perm=[0, 2, 1])
    first = graph.constant("first", np.repeat(weights["embeddings.cls_token"], batch, 0))
    x = graph.op("Add", graph.op("Concat", first, x, axis=1), stored("embeddings.position_embeddings"))

    def split(y: str, order: Sequence[int]) -> str:
        return graph.op(
            "Transpose", graph.op("Reshape", y, graph.sizes(batch, tokens, count, size // count)), perm=order
        )

    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        own, normed = f"{layer}.attention", graph.layer_norm(x, weights, f"{layer}.norm1", epsilon)
        query = split(graph.linear(normed, weights, f"{own}.self.query"), (0, 2, 1, 3))
        key = split(graph.linear(normed, weights, f"{own}.self.key"), (0, 2, 3, 1))
        value = split(graph.linear(normed, weights, f"{own}.self.value"), (0, 2, 1, 3))
        scores = graph.op("Div", graph.op("MatMul", query, key), graph.number((size // count) ** 0.5))
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=(0, 2, 1, 3)), graph.sizes(batch, tokens, size))
        attended = graph.linear(mixed, weights, f"{own}.output.dense")
        x = graph.op("Add", graph.op("Mul", attended, stored(f"{layer}.layer_scale1.lambda1")), x)
        normed = graph.layer_norm(x, weights, f"{layer}.norm2", epsilon)
        inner = graph.linear(graph.gelu(graph.linear(normed, weights, f"{layer}.mlp.fc1")), weights, f"{layer}.mlp.fc2")
        x = graph.op("Add", graph.op("Mul", inner, stored(f"{layer}.layer_scale2.lambda1")), x)
    return graph.model({graph.layer_norm(x, weights, "layernorm", epsilon): (batch, tokens, size)})
