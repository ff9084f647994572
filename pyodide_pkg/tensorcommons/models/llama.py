"""Llama (Touvron et al., 2023, https://arxiv.org/abs/2302.13971), also SmolLM2; and Qwen2, which adds biases.

A pre-norm decoder: RMS norm, rotary positions (Su et al., 2021, https://arxiv.org/abs/2104.09864), grouped-query
attention (Ainslie et al., 2023, https://arxiv.org/abs/2305.13245), SwiGLU (Shazeer, 2020,
https://arxiv.org/abs/2002.05202).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidWeights, quoted
from ..nn import embedding, heads, linear, rms_norm
from ..ops import (
    arange,
    astype,
    cos,
    multiply,
    reshape,
    rotary_embedding,
    scaled_dot_product_attention,
    sin,
)
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .decoder import KVState
from .weight_mapping import WeightMapping

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}
QWEN2 = {  # the defaults that differ from Llama's
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "max_position_embeddings": 32768,
}

ROPE_NAMES = {
    "theta": "rope_theta",
    "factor": "factor",
    "low": "low_freq_factor",
    "high": "high_freq_factor",
    "original_length": "original_max_position_embeddings",
}
ROPE_TYPES: dict[str, tuple[str, ...]] = {  # and the fields that each requires
    "default": (),
    "dynamic": (),
    "linear": ("factor",),
    "llama3": ("factor", "low", "high"),
}


@dataclass(frozen=True)
class Rope:
    """Rotary positions: the pair k of dimensions rotates by ``theta ** (-2 k / head_dim)`` a position.

    The type "linear" divides these angles by ``factor``; "llama3" divides only the small ones (Llama 3.1), with a
    smooth transition. "dynamic" is the same as "default" up to ``max_position_embeddings`` tokens, the most that a
    call may have.
    """

    theta: float = 10000.0
    type: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original_length: int = 8192

    @classmethod
    def of(cls, folder: Checkpoint) -> Rope:
        """Read ``rope_parameters``, or ``rope_theta`` and ``rope_scaling`` of older files.

        Raises InvalidWeights for a type that is not supported, or a value that is not a number.
        """
        config, file = folder.config, folder.file
        asked = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if not isinstance(asked, dict):
            raise InvalidWeights(file, f"rope_parameters must be an object, not {quoted(asked)}")
        defaults = {name: config.get(name) for name in ("rope_theta", "partial_rotary_factor")}
        defaults["original_max_position_embeddings"] = config.get("max_position_embeddings")
        table = {name: value for name, value in {**defaults, **asked}.items() if value is not None}
        kind = table.get("rope_type", table.get("type", "default"))
        if not isinstance(kind, str) or kind not in ROPE_TYPES:
            raise InvalidWeights(file, f"rope_type {quoted(kind)} is not one of {', '.join(ROPE_TYPES)}")
        needed = ROPE_TYPES[kind]
        if needed and table.get("partial_rotary_factor", 1) != 1:
            raise InvalidWeights(
                file, f"partial_rotary_factor {quoted(table['partial_rotary_factor'])} is not supported; it must be 1"
            )
        values = {ours: table[theirs] for ours, theirs in ROPE_NAMES.items() if theirs in table}
        bad = {
            ROPE_NAMES[key]: value
            for key, value in values.items()
            if type(value) not in (int, float) or not 0 < value <= sys.float_info.max
        }
        lacking = [ROPE_NAMES[key] for key in needed if key not in values]
        if bad or lacking:
            what = f"{quoted(bad)} must be finite numbers above 0" if bad else f"{', '.join(lacking)} is missing"
            raise InvalidWeights(file, f"rope_parameters of type {kind}: {what}")
        if kind == "llama3" and values["high"] == values["low"]:
            raise InvalidWeights(file, "rope_parameters: high_freq_factor and low_freq_factor must differ")
        return cls(type=kind, **values)

    def rates(self, dimensions: int) -> np.ndarray[Any, Any]:
        """Return the angle in radians per position of each pair of dimensions, float32 (dimensions / 2,)."""
        rates = float(self.theta) ** (-np.arange(0, dimensions, 2, dtype=np.float64) / dimensions)
        if self.type == "linear":
            rates = rates / self.factor
        elif self.type == "llama3":
            turns = self.original_length * rates / (2 * math.pi)
            fast = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
            rates = rates * (fast + (1 - fast) / self.factor)
        return rates.astype(np.float32)

    def tables(self, positions: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
        """Compute ``cos`` and ``sin`` of the angles of every token: (batch * sequence, dimensions / 2)."""
        angles = multiply(reshape(astype(positions, "float32"), (-1, 1)), self.rates(dimensions).reshape(1, -1))
        return cos(angles), sin(angles)


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    model_type: str = "llama"
    num_key_value_heads: int = 0  # 0: num_attention_heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    rms_norm_eps: float = 1e-6
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @classmethod
    def of(cls, folder: Checkpoint) -> LlamaConfig:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        file, given = folder.file, {name: value for name, value in folder.config.items() if value is not None}
        if folder.config["model_type"] == "qwen2":  # it does not read attention_bias and mlp_bias
            keys = folder.config.get("num_key_value_heads", 32)  # null: num_attention_heads
            given = {**QWEN2, **given, "num_key_value_heads": keys, "attention_bias": False, "mlp_bias": False}
        check_fixed(given, file)
        config = read_config(cls, given, file)
        heads, keys = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        if heads % keys:
            raise InvalidWeights(file, f"num_attention_heads {heads} must be a multiple of num_key_value_heads {keys}")
        if not config.head_dim:
            check_heads(config.hidden_size, heads, file)
        if (config.head_dim or config.hidden_size // heads) % 2:
            size = config.head_dim or config.hidden_size // heads
            raise InvalidWeights(file, f"rotary positions need heads of an even size, not {size}")
        activation(config.hidden_act, file)
        _check_windows(config, given, file)
        return replace(config, num_key_value_heads=keys, head_dim=config.head_dim or config.hidden_size // heads)

    @property
    def qkv_bias(self) -> bool:
        """True if the query, key and value projections have biases, as in every Qwen2."""
        return self.attention_bias or self.model_type == "qwen2"


def _check_windows(config: LlamaConfig, given: Mapping[str, Any], file: str) -> None:
    """Raise InvalidWeights for layers of Qwen2 with sliding-window attention."""
    if config.model_type != "qwen2":
        return
    use, window = (given.get(name, default) for name, default in (("use_sliding_window", False), ("sliding_window", 0)))
    full, types = given.get("max_window_layers", 28), given.get("layer_types")
    if type(use) is not bool or type(window) is not int or type(full) is not int:
        raise InvalidWeights(
            file,
            f"use_sliding_window {quoted(use)} must be true or false; sliding_window {quoted(window)} and "
            f"max_window_layers {quoted(full)} must be integers",
        )
    if types is None:
        types = ["sliding_attention"] if full < config.num_hidden_layers else []
    if not isinstance(types, list) or any(kind not in ("full_attention", "sliding_attention") for kind in types):
        raise InvalidWeights(file, f"layer_types {quoted(types)} must be full_attention or sliding_attention")
    if use and "sliding_attention" in types and window < config.max_position_embeddings:
        raise InvalidWeights(file, f"sliding_window {window} is not supported; use_sliding_window must be false")


def build(folder: Checkpoint) -> Architecture:
    """Build Llama or Qwen2 by ``model_type``, with the head of ``config.json``."""
    decoder = Llama(LlamaConfig.of(folder), Rope.of(folder), folder)
    return with_head(folder, FAMILIES[decoder.model_type], decoder, "ForCausalLM")


class Llama(CausalDecoder):
    """The decoder with its vocabulary head."""

    def __init__(self, config: LlamaConfig, rope: Rope, folder: Checkpoint) -> None:
        generation = folder.generation_defaults
        super().__init__(config.vocab_size, config.max_position_embeddings, config.hidden_size, generation)
        self.config = config
        self.rope = rope
        self.model_type = config.model_type
        self.layers = tuple(f"layers.{i}" for i in range(config.num_hidden_layers))
        self.keys = config.num_key_value_heads, config.head_dim
        self.head = folder.output("lm_head.weight", "embed_tokens.weight", tied=config.tie_word_embeddings)
        tied = {"lm_head.weight": "embed_tokens.weight"} if config.tie_word_embeddings else {}
        self.names = WeightMapping(prefixes=("model.", "transformer."), tied=tied)

    def body(self) -> dict[str, Shape]:
        """Declare the parameters, with the names in a checkpoint without the prefix ``model.``."""
        c = self.config
        queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        shapes: dict[str, Shape] = {"embed_tokens.weight": (c.vocab_size, c.hidden_size)}
        for i in range(c.num_hidden_layers):
            layer = f"layers.{i}"
            shapes |= rms_norm.parameters(f"{layer}.input_layernorm", c.hidden_size)
            for part, size in (("q", queries), ("k", keys), ("v", keys)):
                shapes |= linear.parameters(f"{layer}.self_attn.{part}_proj", c.hidden_size, size, bias=c.qkv_bias)
            shapes |= linear.parameters(f"{layer}.self_attn.o_proj", queries, c.hidden_size, bias=c.attention_bias)
            shapes |= rms_norm.parameters(f"{layer}.post_attention_layernorm", c.hidden_size)
            for part in ("gate", "up"):
                shapes |= linear.parameters(
                    f"{layer}.mlp.{part}_proj", c.hidden_size, c.intermediate_size, bias=c.mlp_bias
                )
            shapes |= linear.parameters(f"{layer}.mlp.down_proj", c.intermediate_size, c.hidden_size, bias=c.mlp_bias)
        return shapes | rms_norm.parameters("norm", c.hidden_size)

    def hidden(self, weights: Mapping[str, Tensor], ids: Tensor, past: KVState) -> Tensor:
        """Compute the hidden states after the last layer and its norm, (batch, sequence, hidden)."""
        c = self.config
        x = embedding.forward(weights["embed_tokens.weight"], ids)
        turns = self.rope.tables(past.positions, c.head_dim)
        for i in range(c.num_hidden_layers):
            layer = f"layers.{i}"
            normed = rms_norm.forward(weights, f"{layer}.input_layernorm", x, c.rms_norm_eps)
            x = x + self._attention(weights, layer, normed, turns, past)
            normed = rms_norm.forward(weights, f"{layer}.post_attention_layernorm", x, c.rms_norm_eps)
            gate, up = (linear.forward(weights, f"{layer}.mlp.{part}_proj", normed) for part in ("gate", "up"))
            x = x + linear.forward(weights, f"{layer}.mlp.down_proj", ACTIVATIONS[c.hidden_act](gate) * up)
        return rms_norm.forward(weights, "norm", x, c.rms_norm_eps)

    def _attention(
        self, weights: Mapping[str, Tensor], layer: str, x: Tensor, turns: tuple[Tensor, Tensor], past: KVState
    ) -> Tensor:
        c = self.config
        query, key, value = (
            heads.split(linear.forward(weights, f"{layer}.self_attn.{part}_proj", x), count)
            for part, count in (
                ("q", c.num_attention_heads),
                ("k", c.num_key_value_heads),
                ("v", c.num_key_value_heads),
            )
        )
        tokens = reshape(arange(turns[0].shape[0]), (-1, 1, x.shape[1]))  # rows of the tables
        query, key = (rotary_embedding(each, *turns, positions=tokens) for each in (query, key))
        keys, values = past.extend(layer, key, value)
        attended = scaled_dot_product_attention(query, keys, values, past.mask)
        return linear.forward(weights, f"{layer}.self_attn.o_proj", heads.merge(attended))
