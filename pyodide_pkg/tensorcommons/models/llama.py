"""Llama (Touvron et al., 2023, https://arxiv.org/abs/2302.13971), also SmolLM2; and the decoders with its layers.

A pre-norm decoder: RMS norm, rotary positions, grouped-query attention (Ainslie et al., 2023,
https://arxiv.org/abs/2305.13245), SwiGLU (Shazeer, 2020, https://arxiv.org/abs/2002.05202).

In Mistral (Jiang et al., 2023, https://arxiv.org/abs/2310.06825) each token attends to itself and to the
``sliding_window - 1`` tokens before it, so that information moves at most a window further in each layer. The cache
keeps the keys and values of all tokens. Qwen2 adds biases. In Qwen3 (Yang et al., 2025,
https://arxiv.org/abs/2505.09388) an RMS norm scales each head's query and key before rotary positions, so that scores
stay small without biases (Dehghani et al., 2023, https://arxiv.org/abs/2302.05442). Some layers of both may attend to a
window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidWeights, quoted
from ..nn import FeedForward, Linear, PreNormLayer, RMSNorm, Scope, Weights, merge_heads, split_heads
from ..ops import arange, reshape, rotary_embedding, scaled_dot_product_attention
from ..tensor import Tensor
from .architecture import Architecture
from .causal import CausalDecoder, with_head
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_even_heads, check_heads, read_config
from .decoder import KVState
from .rope import Rope


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 2048
    num_key_value_heads: int = 0  # 0: num_attention_heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    rms_norm_eps: float = 1e-6
    hidden_act: Activation = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False

    @classmethod
    def of(cls, folder: Checkpoint, keys: int, **reading: Any) -> LlamaConfig:
        """Read the configuration; ``reading`` are options of :func:`read_config`.

        ``keys`` is the default of ``num_key_value_heads``, for which null means ``num_attention_heads``.

        Raises InvalidWeights for a field that is missing, wrong or not supported.
        """
        file, given = folder.file, {"num_key_value_heads": keys, **folder.config}
        config = read_config(cls, given, file, **reading)
        heads, keys = config.num_attention_heads, config.num_key_value_heads or config.num_attention_heads
        if heads % keys:
            raise InvalidWeights(file, f"num_attention_heads {heads} must be a multiple of num_key_value_heads {keys}")
        if not config.head_dim:
            check_heads(config.hidden_size, heads, file)
        size = config.head_dim or config.hidden_size // heads
        check_even_heads(size, file)
        return replace(config, num_key_value_heads=keys, head_dim=size)


def windows_of(folder: Checkpoint, layers: int) -> tuple[int, ...]:
    """Return the window of each layer of Qwen2 or Qwen3 in tokens; 0 is attention to all earlier tokens.

    Raises InvalidWeights for fields of wrong types or lengths.
    """
    file, given = folder.file, {name: value for name, value in folder.config.items() if value is not None}
    use, full = given.get("use_sliding_window", False), given.get("max_window_layers", 28)
    window = given.get("sliding_window", 0 if "sliding_window" in folder.config else 4096)
    if type(use) is not bool or type(window) is not int or type(full) is not int or min(window, full) < 0:
        raise InvalidWeights(
            file,
            f"use_sliding_window {quoted(use)} must be true or false; sliding_window {quoted(window)} and "
            f"max_window_layers {quoted(full)} must be integers from 0",
        )
    types = layer_types(folder, layers) or ["full_attention"] * min(full, layers) + ["sliding_attention"] * (
        layers - full
    )
    return tuple(window if use and kind == "sliding_attention" else 0 for kind in types)


def layer_types(folder: Checkpoint, layers: int) -> list[str]:
    """Read the kind of attention of each layer; an empty list if the file has none. Raises InvalidWeights."""
    kinds, types = ("full_attention", "sliding_attention"), folder.config.get("layer_types") or []
    if not isinstance(types, list) or any(kind not in kinds for kind in types):
        raise InvalidWeights(folder.file, f"layer_types {quoted(types)} must be {' or '.join(kinds)}")
    if types and len(types) != layers:
        raise InvalidWeights(folder.file, f"layer_types has {len(types)} entries; num_hidden_layers is {layers}")
    return types


class LlamaAttention:
    """Grouped-query attention with rotary positions; its keys and values are in the cache under ``name``.

    With ``norms`` an RMS norm scales each head's query and key. With ``biases`` the projections of query, key and value
    have biases, even without ``attention_bias``. ``scale`` multiplies the scores, by default ``head_dim ** -0.5``.
    """

    def __init__(
        self, scope: Scope, c: LlamaConfig, name: str, *, norms: bool, biases: bool, scale: float | None = None
    ) -> None:
        self.name = name
        self.scale = scale
        self.norms = [RMSNorm(scope / f"{part}_norm", c.head_dim, c.rms_norm_eps) for part in "qk" if norms]
        queries, keys = c.num_attention_heads, c.num_key_value_heads
        self.projections = [
            (Linear(scope / f"{part}_proj", c.hidden_size, count * c.head_dim, bias=biases or c.attention_bias), count)
            for part, count in (("q", queries), ("k", keys), ("v", keys))
        ]
        self.output = Linear(scope / "o_proj", queries * c.head_dim, c.hidden_size, bias=c.attention_bias)

    def __call__(
        self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], past: KVState, mask: Tensor
    ) -> Tensor:
        """Attend where ``mask`` is true; ``turns`` are the tables of :meth:`Rope.tables`."""
        query, key, value = (split_heads(project(weights, x), count) for project, count in self.projections)
        if self.norms:
            query, key = (norm(weights, each) for norm, each in zip(self.norms, (query, key), strict=True))
        tokens = reshape(arange(turns[0].shape[0]), (-1, 1, x.shape[1]))  # rows of the tables
        query, key = (rotary_embedding(each, *turns, positions=tokens) for each in (query, key))
        keys, values = past.extend(self.name, key, value)
        return self.output(weights, merge_heads(scaled_dot_product_attention(query, keys, values, mask, self.scale)))


def _layer(scope: Scope, c: LlamaConfig, name: str, **differences: bool) -> PreNormLayer:
    size, inner, mlp = c.hidden_size, c.intermediate_size, scope / "mlp"
    attention_norm = RMSNorm(scope / "input_layernorm", size, c.rms_norm_eps)
    attention = LlamaAttention(scope / "self_attn", c, name, **differences)
    norm = RMSNorm(scope / "post_attention_layernorm", size, c.rms_norm_eps)
    gate, up = (Linear(mlp / part, size, inner, bias=c.mlp_bias) for part in ("gate_proj", "up_proj"))
    down = Linear(mlp / "down_proj", inner, size, bias=c.mlp_bias)
    return PreNormLayer(attention_norm, attention, norm, FeedForward(gate, ACTIVATIONS[c.hidden_act], down, gated=up))


class Llama(CausalDecoder):
    """The layers of Llama and of its relatives.

    ``windows`` are the numbers of tokens that each layer attends to, 0 for all. ``differences`` are those of
    :class:`LlamaAttention`.
    """

    prefixes = ("model.", "transformer.")

    def __init__(self, config: LlamaConfig, rope: Rope, windows: Sequence[int], **differences: bool) -> None:
        c = config
        super().__init__(c, "embed_tokens", (c.vocab_size, c.hidden_size), c.max_position_embeddings)
        self.rope = rope
        self.windows = windows
        self.keys = c.num_key_value_heads, c.head_dim
        self.cached = tuple(f"layers.{i}" for i in range(c.num_hidden_layers))
        self.layers = [_layer(self.scope / name, c, name, **differences) for name in self.cached]
        self.norm = RMSNorm(self.scope / "norm", c.hidden_size, c.rms_norm_eps)

    def hidden(self, weights: Weights, ids: Tensor, past: KVState) -> Tensor:
        """See :class:`CausalDecoder`."""
        x = self.words(weights, ids)
        turns = self.rope.tables(past.positions, self.config.head_dim)
        masks = {window: past.within(window) for window in self.windows}
        for layer, window in zip(self.layers, self.windows, strict=True):
            x = layer(weights, x, turns, past, masks[window])
        return self.norm(weights, x)


@dataclass(frozen=True)
class Variant:
    """A decoder with Llama's layers, whose classes in `transformers` begin with ``family``.

    ``keys``, ``defaults`` and ``fixed`` are those of :meth:`LlamaConfig.of`. ``windows`` reads the window of each of a
    number of layers in tokens, 0 for none. ``norms`` and ``biases`` are those of :class:`LlamaAttention`.
    """

    family: str
    keys: int
    windows: Callable[[Checkpoint, int], Sequence[int]]
    defaults: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[str, bool] = field(default_factory=dict)
    norms: bool = False
    biases: bool = False


def _one_window(folder: Checkpoint, layers: int) -> Sequence[int]:
    """Read the window of all layers. Raises InvalidWeights for a wrong ``sliding_window``."""
    window = folder.config.get("sliding_window", 4096)  # null: no window
    if window is not None and (type(window) is not int or window < 1):
        raise InvalidWeights(folder.file, f"sliding_window must be null or an integer from 1, not {quoted(window)}")
    return (window or 0,) * layers


NO_BIASES = {"attention_bias": False, "mlp_bias": False}
QWEN = {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
VARIANTS = {
    "llama": Variant("Llama", 0, lambda folder, layers: (0,) * layers),
    "mistral": Variant(
        "Mistral", 8, _one_window, {"intermediate_size": 14336, "max_position_embeddings": 131072}, NO_BIASES
    ),
    "qwen2": Variant("Qwen2", 32, windows_of, QWEN, NO_BIASES, biases=True),
    "qwen3": Variant("Qwen3", 32, windows_of, {**QWEN, "head_dim": 128}, {"mlp_bias": False}, norms=True),
}


def build(folder: Checkpoint) -> Architecture:
    """Build the decoder of the ``model_type``, with the head of ``config.json``."""
    variant = VARIANTS[str(folder.config["model_type"])]
    config = LlamaConfig.of(folder, variant.keys, defaults=variant.defaults, fixed=variant.fixed)
    windows = variant.windows(folder, config.num_hidden_layers)
    decoder = Llama(config, Rope.of(folder), windows, norms=variant.norms, biases=variant.biases)
    return with_head(folder, variant.family, decoder, "ForCausalLM")
