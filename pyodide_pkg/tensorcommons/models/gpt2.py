"""GPT-2 (Radford et al., 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).

A pre-norm decoder with learned positions. Its checkpoints store the weights of linear layers as (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..nn import embedding, heads, layer_norm
from ..ops import matmul, minimum, scaled_dot_product_attention
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config
from .decoder import KVState
from .weight_mapping import WeightMapping

ALIASES = {  # names that every configuration of `transformers` accepts
    "n_embd": "hidden_size",
    "n_positions": "max_position_embeddings",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}


@dataclass(frozen=True)
class Gpt2Config:
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int = 0  # 0: 4 * n_embd
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def of(cls, folder: Checkpoint) -> Gpt2Config:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        file = folder.file
        config = read_config(cls, folder.config, file, aliases=ALIASES)
        check_heads(config.n_embd, config.n_head, file)
        activation(config.activation_function, file, "activation_function")
        check_fixed(folder.config, file, add_cross_attention=False)
        return replace(config, n_inner=config.n_inner or 4 * config.n_embd)


def build(folder: Checkpoint) -> Architecture:
    """Build GPT-2 with the head of ``config.json``."""
    return with_head(folder, "GPT2", Gpt2(Gpt2Config.of(folder), folder), "LMHeadModel")


class Gpt2(CausalDecoder):
    """The decoder with its vocabulary head."""

    model_type = "gpt2"

    def __init__(self, config: Gpt2Config, folder: Checkpoint) -> None:
        super().__init__(config.vocab_size, config.n_positions, config.n_embd, folder.generation_defaults)
        self.config = config
        self.layers = tuple(f"h.{i}" for i in range(config.n_layer))
        self.keys = config.n_head, config.n_embd // config.n_head
        self.head = folder.output("lm_head.weight", "wte.weight", tied=config.tie_word_embeddings)
        tied = {"lm_head.weight": "wte.weight"} if config.tie_word_embeddings else {}
        self.names = WeightMapping(prefixes=("transformer.",), tied=tied)

    def body(self) -> dict[str, Shape]:
        """Declare the parameters, with the names in a checkpoint without the prefix ``transformer.``."""
        c = self.config
        shapes: dict[str, Shape] = {"wte.weight": (c.vocab_size, c.n_embd), "wpe.weight": (c.n_positions, c.n_embd)}
        for i in range(c.n_layer):
            layer = f"h.{i}"
            shapes |= layer_norm.parameters(f"{layer}.ln_1", c.n_embd) | layer_norm.parameters(
                f"{layer}.ln_2", c.n_embd
            )
            shapes |= _product_parameters(f"{layer}.attn.c_attn", c.n_embd, 3 * c.n_embd)
            shapes |= _product_parameters(f"{layer}.attn.c_proj", c.n_embd, c.n_embd)
            shapes |= _product_parameters(f"{layer}.mlp.c_fc", c.n_embd, c.n_inner)
            shapes |= _product_parameters(f"{layer}.mlp.c_proj", c.n_inner, c.n_embd)
        return shapes | layer_norm.parameters("ln_f", c.n_embd)

    def hidden(self, weights: Mapping[str, Tensor], ids: Tensor, past: KVState) -> Tensor:
        """Compute the hidden states after the last layer and its norm, (batch, sequence, hidden)."""
        c = self.config
        positions = minimum(past.positions, c.n_positions - 1)  # padding may exceed the last position
        x = embedding.forward(weights["wte.weight"], ids) + embedding.forward(weights["wpe.weight"], positions)
        for i in range(c.n_layer):
            layer = f"h.{i}"
            normed = layer_norm.forward(weights, f"{layer}.ln_1", x, c.layer_norm_epsilon)
            x = x + self._attention(weights, i, normed, past)
            normed = layer_norm.forward(weights, f"{layer}.ln_2", x, c.layer_norm_epsilon)
            inner = ACTIVATIONS[c.activation_function](_product(weights, f"{layer}.mlp.c_fc", normed))
            x = x + _product(weights, f"{layer}.mlp.c_proj", inner)
        return layer_norm.forward(weights, "ln_f", x, c.layer_norm_epsilon)

    def _attention(self, weights: Mapping[str, Tensor], i: int, x: Tensor, past: KVState) -> Tensor:
        c = self.config
        joined = _product(weights, f"h.{i}.attn.c_attn", x)  # (batch, sequence, 3 * hidden)
        query, key, value = (
            heads.split(joined[:, :, part * c.n_embd : (part + 1) * c.n_embd], c.n_head) for part in range(3)
        )
        scale = (c.n_embd // c.n_head) ** -0.5 if c.scale_attn_weights else 1.0
        if c.scale_attn_by_inverse_layer_idx:
            scale /= i + 1
        keys, values = past.extend(f"h.{i}", key, value)
        attended = scaled_dot_product_attention(query, keys, values, past.mask, scale=scale)
        return _product(weights, f"h.{i}.attn.c_proj", heads.merge(attended))


def _product_parameters(prefix: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{prefix}.weight": (inputs, outputs), f"{prefix}.bias": (outputs,)}


def _product(weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Compute ``x @ weight + bias``."""
    return matmul(x, weights[f"{prefix}.weight"]) + weights[f"{prefix}.bias"]
