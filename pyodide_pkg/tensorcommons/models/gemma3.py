"""Gemma 3 (Gemma Team, 2025, https://arxiv.org/abs/2503.19786), the text models.

The layers of Llama with two more norms: each part's result is normalized, too, before it is added. Most layers attend
to a window of tokens; these have rotary positions of another base. Embeddings are multiplied by the square root of
their size. Checkpoints store the scales of norms as differences from 1, GGUF files the scales themselves: 1 is added
while a checkpoint is loaded, so that both share their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..nn import FeedForward, Linear, RMSNorm, Scope, Weights
from ..ops import multiply
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS
from .decoder import KVState
from .llama import LlamaAttention, LlamaConfig, layer_types
from .rope import Rope
from .weight_mapping import WeightMapping

SPELLED = {"hidden_act": "hidden_activation"}
DEFAULTS = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
THETAS = {GLOBAL: ("rope_theta", 1_000_000.0), LOCAL: ("rope_local_base_freq", 10_000.0)}
CLASSES = {
    "ForCausalLM": "ForCausalLM",
    "TextModel": "Model",
    "TextForSequenceClassification": "ForSequenceClassification",
}


@dataclass(frozen=True)
class Gemma3Config(LlamaConfig):
    """The fields of ``config.json`` that determine the computation; sizes in elements.

    Scores are multiplied by ``query_pre_attn_scalar ** -0.5``. Every ``sliding_window_pattern``-th layer attends to all
    tokens, unless ``layer_types`` is stated.
    """

    query_pre_attn_scalar: float = 256
    sliding_window: int = 4096  # tokens
    sliding_window_pattern: int = 6
    final_logit_softcapping: float = 0.0  # 0: none


class Layer:
    """A layer whose attention and feed-forward part are normalized before and after."""

    def __init__(self, scope: Scope, c: Gemma3Config, name: str) -> None:
        size, inner, mlp = c.hidden_size, c.intermediate_size, scope / "mlp"
        names = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        self.norms = [RMSNorm(scope / f"{each}_layernorm", size, c.rms_norm_eps) for each in names]
        scale = c.query_pre_attn_scalar**-0.5
        self.attention = LlamaAttention(scope / "self_attn", c, name, norms=True, biases=False, scale=scale)
        gate, up = (Linear(mlp / part, size, inner, bias=False) for part in ("gate_proj", "up_proj"))
        down = Linear(mlp / "down_proj", inner, size, bias=False)
        self.feed_forward = FeedForward(gate, ACTIVATIONS[c.hidden_act], down, gated=up)

    def __call__(
        self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], past: KVState, mask: Tensor
    ) -> Tensor:
        """Apply the layer to (batch, sequence, size); see :class:`LlamaAttention` for the arguments."""
        first, second, third, fourth = self.norms
        x = x + second(weights, self.attention(weights, first(weights, x), turns, past, mask))
        return x + fourth(weights, self.feed_forward(weights, third(weights, x)))


class Gemma3(CausalDecoder):
    """The layers of Gemma 3; ``kinds`` is the kind of each, ``ropes`` are the rotary positions of each kind."""

    prefixes = ("model.",)

    def __init__(self, config: Gemma3Config, kinds: Sequence[str], ropes: dict[str, Rope], *, is_gguf: bool) -> None:
        c = config
        super().__init__(c, "embed_tokens", (c.vocab_size, c.hidden_size), c.max_position_embeddings)
        self.names = WeightMapping(self.prefixes, tied=self.names.tied, from_one=r".*norm\.weight", is_whole=is_gguf)
        self.cap = c.final_logit_softcapping
        self.kinds = kinds
        self.windows = tuple(c.sliding_window if kind == LOCAL else 0 for kind in kinds)
        self.ropes = ropes
        self.keys = c.num_key_value_heads, c.head_dim
        self.cached = tuple(f"layers.{i}" for i in range(c.num_hidden_layers))
        self.layers = [Layer(self.scope / name, c, name) for name in self.cached]
        self.norm = RMSNorm(self.scope / "norm", c.hidden_size, c.rms_norm_eps)

    def hidden(self, weights: Weights, ids: Tensor, past: KVState) -> Tensor:
        """See :class:`CausalDecoder`."""
        c = self.config
        x = multiply(self.words(weights, ids), float(c.hidden_size**0.5))
        turns = {kind: self.ropes[kind].tables(past.positions, c.head_dim) for kind in sorted(set(self.kinds))}
        masks = {window: past.within(window) for window in self.windows}
        for layer, kind, window in zip(self.layers, self.kinds, self.windows, strict=True):
            x = layer(weights, x, turns[kind], past, masks[window])
        return self.norm(weights, x)


def build(folder: Checkpoint) -> Architecture:
    """Build the decoder with the head of ``config.json``.

    Raises InvalidWeights for a field that is wrong or not supported, UnsupportedModel for such a class.
    """
    fixed = {"mlp_bias": False}
    only = {"attn_logit_softcapping": None, "use_bidirectional_attention": False}
    c = Gemma3Config.of(folder, 4, spelled=SPELLED, defaults=DEFAULTS, fixed=fixed, **only)
    assert isinstance(c, Gemma3Config)
    layers = range(1, c.num_hidden_layers + 1)
    kinds = [LOCAL if number % c.sliding_window_pattern else GLOBAL for number in layers]
    kinds = layer_types(folder, c.num_hidden_layers) or kinds
    decoder = Gemma3(c, kinds, Rope.of_kinds(folder, THETAS, scaled=(GLOBAL,)), is_gguf=folder.is_gguf)
    return with_head(folder, "Gemma3", decoder, "ForCausalLM", CLASSES)
