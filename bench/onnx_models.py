"""ONNX graphs of the other models: Llama with a cache of keys and values, and DINOv2, as their exporters write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from bench.onnx import Array, Builder

Config: TypeAlias = "Mapping[str, Any]"
Weights: TypeAlias = "Mapping[str, Array]"
LAST = 2**31 - 1  # an end of a slice: as far as it goes


def llama(config: Config, weights: Weights) -> bytes:
    """A step of generation over any number of tokens of one text: the logits after the last one, and the cache.

    Inputs and outputs are called as transformers.js calls them: ``input_ids`` and ``attention_mask`` int64,
    ``past_key_values.0.key`` ... and ``present.0.key`` ... of (1, key heads, tokens, head size). Attention is
    ``GroupQueryAttention``, which has the rotary positions inside: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
    """
    layers, heads, keys = (config[name] for name in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads"))
    size = config["hidden_size"] // heads
    cache = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
    graph = Builder(
        {
            "input_ids": ("int64", (1, "new")),
            "attention_mask": ("int64", (1, "all")),
            **{f"past_key_values.{name}": ("float32", (1, keys, "past", size)) for name in cache},
        }
    )
    rates = float(config["rope_theta"]) ** (-np.arange(0, size, 2) / size)
    angles = np.outer(np.arange(config["max_position_embeddings"]), rates)
    turns = [graph.constant(name, f(angles).astype(np.float32)) for name, f in (("cos", np.cos), ("sin", np.sin))]
    count = graph.op("ReduceSum", "attention_mask", graph.sizes(1), keepdims=0)
    last = graph.op("Cast", graph.op("Sub", count, graph.sizes(1)), to=6)
    total = graph.op("Gather", graph.op("Shape", "attention_mask"), graph.constant("one", np.array(1, np.int64)))
    total = graph.op("Cast", total, to=6)

    def norm(x: str, layer: str) -> str:
        weight = graph.constant(f"{layer}.weight", weights[f"{layer}.weight"])
        return graph.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=float(config["rms_norm_eps"]))

    def product(x: str, layer: str) -> str:
        return graph.op("MatMul", x, graph.constant(f"{layer}.weight", weights[f"{layer}.weight"].T))

    embeddings = graph.constant("embed_tokens.weight", weights["embed_tokens.weight"])
    x = graph.op("Gather", embeddings, "input_ids")
    for i in range(layers):
        layer = f"layers.{i}"
        normed = norm(x, f"{layer}.input_layernorm")
        parts = [product(normed, f"{layer}.self_attn.{part}_proj") for part in "qkv"]
        past = [f"past_key_values.{i}.{part}" for part in ("key", "value")]
        attended = graph.contributed(
            "GroupQueryAttention",
            *(*parts, *past, last, total, *turns),
            outputs=(f"attended.{i}", f"present.{i}.key", f"present.{i}.value"),
            num_heads=heads,
            kv_num_heads=keys,
            do_rotary=1,
            rotary_interleaved=0,
        )
        x = graph.op("Add", x, product(attended, f"{layer}.self_attn.o_proj"))
        normed = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (product(normed, f"{layer}.mlp.{part}_proj") for part in ("gate", "up"))
        inner = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        x = graph.op("Add", x, product(inner, f"{layer}.mlp.down_proj"))
    x = norm(x, "norm")
    row = graph.op("Slice", x, graph.sizes(-1), graph.sizes(LAST), graph.constant("axis", np.array([1], np.int64)))
    row = graph.op("Reshape", row, graph.sizes(1, config["hidden_size"]))
    logits = graph.op("Gemm", row, embeddings, transB=1)
    logits = graph.named("logits", "Reshape", logits, graph.sizes(1, 1, config["vocab_size"]))
    outputs: dict[str, Sequence[int | str]] = {logits: (1, 1, config["vocab_size"])}
    return graph.model(outputs | {f"present.{name}": (1, keys, "all", size) for name in cache})


def dinov2(config: Config, weights: Weights, batch: int) -> bytes:
    """The vision transformer for square images of its own size; the output is the last hidden state."""
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
