"""GPT-2 (Radford et al., 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).

A pre-norm decoder with learned positions. Its checkpoints store the weights of linear layers as (in, out); GGUF files
store them as (out, in).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from ..nn import Embedding, FeedForward, LayerNorm, Linear, PreNormLayer, Scope, Weights, merge_heads, split_heads
from ..ops import minimum, scaled_dot_product_attention
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_heads, read_config
from .decoder import KVState

Product: TypeAlias = "Callable[[Scope, int, int], Linear]"
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
    activation_function: Activation = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def of(cls, folder: Checkpoint) -> Gpt2Config:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        config = read_config(cls, folder.config, folder.file, aliases=ALIASES, add_cross_attention=False)
        check_heads(config.n_embd, config.n_head, folder.file)
        return replace(config, n_inner=config.n_inner or 4 * config.n_embd)


class Gpt2Attention:
    """Attention whose queries, keys and values are computed by one matrix; ``i`` is the index of the layer."""

    def __init__(self, scope: Scope, c: Gpt2Config, i: int, product: Product) -> None:
        size, self.name, self.heads = c.n_embd, f"h.{i}", c.n_head
        self.scale = (size // c.n_head) ** -0.5 if c.scale_attn_weights else 1.0
        if c.scale_attn_by_inverse_layer_idx:
            self.scale /= i + 1
        self.joined, self.output = product(scope / "c_attn", size, 3 * size), product(scope / "c_proj", size, size)

    def __call__(self, weights: Weights, x: Tensor, past: KVState) -> Tensor:
        """Attend from (batch, sequence, hidden) to these and earlier tokens."""
        size, joined = x.shape[2], self.joined(weights, x)  # (batch, sequence, 3 * hidden)
        parts = (joined[:, :, part * size : (part + 1) * size] for part in range(3))
        query, key, value = (split_heads(part, self.heads) for part in parts)
        keys, values = past.extend(self.name, key, value)
        attended = scaled_dot_product_attention(query, keys, values, past.mask, scale=self.scale)
        return self.output(weights, merge_heads(attended))


def _layer(scope: Scope, c: Gpt2Config, i: int, product: Product) -> PreNormLayer:
    size, mlp = c.n_embd, scope / "mlp"
    attention_norm = LayerNorm(scope / "ln_1", size, c.layer_norm_epsilon)
    attention = Gpt2Attention(scope / "attn", c, i, product)
    norm = LayerNorm(scope / "ln_2", size, c.layer_norm_epsilon)
    first, act = product(mlp / "c_fc", size, c.n_inner), ACTIVATIONS[c.activation_function]
    feed_forward = FeedForward(first, act, product(mlp / "c_proj", c.n_inner, size))
    return PreNormLayer(attention_norm, attention, norm, feed_forward)


class Gpt2(CausalDecoder):
    """The layers of GPT-2, whose matrices are (in, out) if the files have ``columns``."""

    prefixes = ("transformer.",)

    def __init__(self, config: Gpt2Config, *, columns: bool) -> None:
        c, product = config, partial(Linear, is_transposed=columns)
        super().__init__(c, "wte", (c.vocab_size, c.n_embd), c.n_positions)
        self.keys = c.n_head, c.n_embd // c.n_head
        self.cached = tuple(f"h.{i}" for i in range(c.n_layer))
        self.positions = Embedding(self.scope / "wpe", c.n_positions, c.n_embd)
        self.layers = [_layer(self.scope / name, c, i, product) for i, name in enumerate(self.cached)]
        self.norm = LayerNorm(self.scope / "ln_f", c.n_embd, c.layer_norm_epsilon)

    def hidden(self, weights: Weights, ids: Tensor, past: KVState) -> Tensor:
        """See :class:`CausalDecoder`."""
        positions = minimum(past.positions, self.max_length - 1)  # padding may exceed the last position
        x = self.words(weights, ids) + self.positions(weights, positions)
        for layer in self.layers:
            x = layer(weights, x, past)
        return self.norm(weights, x)


def build(folder: Checkpoint) -> Architecture:
    """Build GPT-2 with the head of ``config.json``."""
    return with_head(folder, "GPT2", Gpt2(Gpt2Config.of(folder), columns=not folder.is_gguf), "LMHeadModel")
