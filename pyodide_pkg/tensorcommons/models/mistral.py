"""Mistral (Jiang et al., 2023, https://arxiv.org/abs/2310.06825): Llama's layers, whose tokens attend to a window.

Each token attends to itself and to the ``sliding_window - 1`` tokens before it, so that information moves at most a
window further in each layer. The cache keeps the keys and values of all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidWeights, quoted
from .architecture import Architecture
from .causal import with_head
from .checkpoint import Checkpoint
from .llama import Llama, LlamaConfig
from .rope import Rope


@dataclass(frozen=True)
class MistralConfig(LlamaConfig):
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    intermediate_size: int = 14336
    max_position_embeddings: int = 131072
    model_type: str = "mistral"


def build(folder: Checkpoint) -> Architecture:
    """Build the decoder with the head of ``config.json``. Raises InvalidWeights for a wrong ``sliding_window``."""
    config = MistralConfig.of(folder, keys=8, attention_bias=False, mlp_bias=False)
    window = folder.config.get("sliding_window", 4096)  # null: no window
    if window is not None and (type(window) is not int or window < 1):
        raise InvalidWeights(folder.file, f"sliding_window must be null or an integer from 1, not {quoted(window)}")
    decoder = Llama(config, Rope.of(folder), (window or 0,) * config.num_hidden_layers)
    return with_head(folder, "Mistral", decoder, "ForCausalLM")
