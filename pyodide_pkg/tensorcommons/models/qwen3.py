"""Qwen3 (Yang et al., 2025, https://arxiv.org/abs/2505.09388): Llama's layers, with RMS norms of queries and keys.

A norm scales each head's query and key before rotary positions, so that scores stay small without biases (Dehghani et
al., 2023, https://arxiv.org/abs/2302.05442). Some layers may attend to a sliding window.
"""

from __future__ import annotations

from dataclasses import dataclass

from .architecture import Architecture
from .causal import with_head
from .checkpoint import Checkpoint
from .llama import Llama, LlamaConfig, windows_of
from .rope import Rope


@dataclass(frozen=True)
class Qwen3Config(LlamaConfig):
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 151936
    intermediate_size: int = 22016
    max_position_embeddings: int = 32768
    model_type: str = "qwen3"
    head_dim: int = 128


def build(folder: Checkpoint) -> Architecture:
    """Build the decoder with the head of ``config.json``."""
    config = Qwen3Config.of(folder, keys=32, mlp_bias=False)
    decoder = Llama(config, Rope.of(folder), windows_of(folder, config.num_hidden_layers), norms=True)
    return with_head(folder, "Qwen3", decoder, "ForCausalLM")
