"""Llama (Touvron et al., 2023, https://arxiv.org/abs/2302.13971), also SmolLM2; and Qwen2, which adds biases.

A pre-norm decoder: RMS norm, rotary positions, grouped-query attention (Ainslie et al., 2023,
https://arxiv.org/abs/2305.13245), SwiGLU (Shazeer, 2020, https://arxiv.org/abs/2002.05202).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidWeights, quoted
from ..nn import FeedForward, Linear, RMSNorm, Scope, Weights, merge_heads, split_heads
from ..ops import arange, reshape, rotary_embedding, scaled_dot_product_attention
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .decoder import KVState
from .rope import Rope

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2"}
QWEN2 = {  # the defaults that differ from Llama's
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "max_position_embeddings": 32768,
}


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


class LlamaAttention:
    """Grouped-query attention with rotary positions; its keys and values are in the cache under ``name``."""

    def __init__(self, scope: Scope, c: LlamaConfig, name: str) -> None:
        self.name = name
        queries, keys = c.num_attention_heads, c.num_key_value_heads
        self.projections = [
            (Linear(scope / f"{part}_proj", c.hidden_size, count * c.head_dim, bias=c.qkv_bias), count)
            for part, count in (("q", queries), ("k", keys), ("v", keys))
        ]
        self.output = Linear(scope / "o_proj", queries * c.head_dim, c.hidden_size, bias=c.attention_bias)

    def __call__(self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], past: KVState) -> Tensor:
        """Attend; ``turns`` are the tables of :meth:`Rope.tables`."""
        query, key, value = (split_heads(project(weights, x), count) for project, count in self.projections)
        tokens = reshape(arange(turns[0].shape[0]), (-1, 1, x.shape[1]))  # rows of the tables
        query, key = (rotary_embedding(each, *turns, positions=tokens) for each in (query, key))
        keys, values = past.extend(self.name, key, value)
        return self.output(weights, merge_heads(scaled_dot_product_attention(query, keys, values, past.mask)))


class LlamaLayer:
    """Attention and a gated feed-forward part, each over normalized values and added to its input."""

    def __init__(self, scope: Scope, c: LlamaConfig, name: str) -> None:
        size, inner, mlp = c.hidden_size, c.intermediate_size, scope / "mlp"
        self.attention_norm = RMSNorm(scope / "input_layernorm", size, c.rms_norm_eps)
        self.attention = LlamaAttention(scope / "self_attn", c, name)
        self.norm = RMSNorm(scope / "post_attention_layernorm", size, c.rms_norm_eps)
        gate, up = (Linear(mlp / part, size, inner, bias=c.mlp_bias) for part in ("gate_proj", "up_proj"))
        down = Linear(mlp / "down_proj", inner, size, bias=c.mlp_bias)
        self.feed_forward = FeedForward(gate, ACTIVATIONS[c.hidden_act], down, gated=up)

    def __call__(self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], past: KVState) -> Tensor:
        """Apply the layer to (batch, sequence, hidden)."""
        x = x + self.attention(weights, self.attention_norm(weights, x), turns, past)
        return x + self.feed_forward(weights, self.norm(weights, x))


class Llama(CausalDecoder):
    """The layers of Llama and Qwen2."""

    prefixes = ("model.", "transformer.")

    def __init__(self, config: LlamaConfig, rope: Rope) -> None:
        c = config
        super().__init__(c, "embed_tokens", (c.vocab_size, c.hidden_size), c.max_position_embeddings)
        self.rope = rope
        self.keys = c.num_key_value_heads, c.head_dim
        self.cached = tuple(f"layers.{i}" for i in range(c.num_hidden_layers))
        self.layers = [LlamaLayer(self.scope / name, c, name) for name in self.cached]
        self.norm = RMSNorm(self.scope / "norm", c.hidden_size, c.rms_norm_eps)

    def hidden(self, weights: Weights, ids: Tensor, past: KVState) -> Tensor:
        """See :class:`CausalDecoder`."""
        x = self.words(weights, ids)
        turns = self.rope.tables(past.positions, self.config.head_dim)
        for layer in self.layers:
            x = layer(weights, x, turns, past)
        return self.norm(weights, x)


def build(folder: Checkpoint) -> Architecture:
    """Build Llama or Qwen2 by ``model_type``, with the head of ``config.json``."""
    config = LlamaConfig.of(folder)
    return with_head(folder, FAMILIES[config.model_type], Llama(config, Rope.of(folder)), "ForCausalLM")
