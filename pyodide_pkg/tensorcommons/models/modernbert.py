"""ModernBERT (Warner et al., 2024, https://arxiv.org/abs/2412.13663): an encoder for long texts.

A pre-norm encoder with rotary positions, gated GELU and few biases. Every third layer attends to all tokens; the others
attend to a window of ``local_attention`` tokens around each, with rotary positions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidWeights, quoted
from ..nn import Embedding, FeedForward, LayerNorm, Linear, PreNormLayer, Scope, Weights, merge_heads
from ..ops import arange, equal, greater_equal, less_equal, logical_and, permute_dims, reshape, rotary_embedding
from ..ops import scaled_dot_product_attention as attend
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_even_heads
from .encoder import EncoderConfig
from .encoder_model import EncoderModel, text_model
from .heads import Head, Labels, Prediction, QuestionAnswering, TokenClassification, Words
from .llama import layer_types
from .rope import Rope
from .weight_mapping import WeightMapping

SPELLED = {"layer_norm_eps": "norm_eps", "hidden_act": "hidden_activation"}
DEFAULTS = {
    "vocab_size": 50368,
    "num_hidden_layers": 22,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "pad_token_id": 50283,
}
FIXED = {"type_vocab_size": 0, "embedding_size": 0}
THETAS = {"full_attention": ("global_rope_theta", 160000.0), "sliding_attention": ("local_rope_theta", 10000.0)}
NAMES = WeightMapping(prefixes=("model.",), tied={"decoder.weight": "embeddings.tok_embeddings.weight"})


@dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_pooling: str = "cls"
    classifier_activation: Activation = "gelu"


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``. Raises InvalidWeights for a field that is wrong or not supported."""
    c, file = ModernBertConfig.of(folder, spelled=SPELLED, defaults=DEFAULTS, fixed=FIXED), folder.file
    if c.classifier_pooling not in ("cls", "mean"):
        raise InvalidWeights(file, f"classifier_pooling {quoted(c.classifier_pooling)} is not one of cls, mean")
    check_even_heads(c.hidden_size // c.num_attention_heads, file)
    layers = range(c.num_hidden_layers)
    types = ["sliding_attention" if i % c.global_attn_every_n_layers else "full_attention" for i in layers]
    types = layer_types(folder, c.num_hidden_layers) or types
    encoder = ModernBert(c, types, Rope.of_kinds(folder, THETAS))
    act, biases = c.classifier_activation, (c.classifier_bias, c.norm_bias)
    words = Words("head.dense", "head.norm", "decoder", "decoder.bias" if c.decoder_bias else "", act, *biases)

    def predicted(scope: Scope, head: Head, pools: str = "") -> Prediction:
        return Prediction(scope / "head", c, words, head, pools)

    def labelled(scope: Scope) -> Head:
        return TokenClassification(scope / "classifier", c.hidden_size, Labels.of(folder))

    heads: dict[str, Callable[[Scope], Head]] = {
        "ForSequenceClassification": lambda scope: predicted(scope, labelled(scope), c.classifier_pooling),
        "ForTokenClassification": lambda scope: predicted(scope, labelled(scope)),
        "ForQuestionAnswering": lambda scope: predicted(scope, QuestionAnswering(scope / "classifier", c.hidden_size)),
    }
    return text_model(folder, "ModernBert", encoder, NAMES, words, heads)


class PackedAttention:
    """Attention with rotary positions whose queries, keys and values are computed by one matrix."""

    def __init__(self, scope: Scope, c: ModernBertConfig) -> None:
        size, self.heads = c.hidden_size, c.num_attention_heads
        self.packed = Linear(scope / "Wqkv", size, 3 * size, bias=c.attention_bias)
        self.output = Linear(scope / "Wo", size, size, bias=c.attention_bias)

    def __call__(self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend from (batch, sequence, hidden) where ``mask`` is true."""
        batch, sequence, size = x.shape
        packed, shape = self.packed(weights, x), (batch, sequence, 3, self.heads, size // self.heads)
        query, key, value = (permute_dims(reshape(packed, shape), (2, 0, 3, 1, 4))[part] for part in range(3))
        places = reshape(arange(sequence, device=x.own_device), (1, 1, -1))
        query, key = (rotary_embedding(each, *turns, positions=places) for each in (query, key))
        return self.output(weights, merge_heads(attend(query, key, value, mask)))


def _layer(scope: Scope, c: ModernBertConfig, *, is_first: bool) -> PreNormLayer:
    """Build a layer. The input of the first is normalized already."""
    size, inner, eps, bias = c.hidden_size, c.intermediate_size, c.layer_norm_eps, c.norm_bias
    first = Linear(scope / "mlp.Wi", size, 2 * inner, bias=c.mlp_bias)
    second = Linear(scope / "mlp.Wo", inner, size, bias=c.mlp_bias)
    return PreNormLayer(
        (lambda _, x: x) if is_first else LayerNorm(scope / "attn_norm", size, eps, bias=bias),
        PackedAttention(scope / "attn", c),
        LayerNorm(scope / "mlp_norm", size, eps, bias=bias),
        FeedForward(first, ACTIVATIONS[c.hidden_act], second, is_packed=True),
    )


class ModernBert:
    """The encoder. ``types`` are the kinds of attention of the layers, ``ropes`` the rotary positions of each kind."""

    def __init__(self, config: ModernBertConfig, types: Sequence[str], ropes: Mapping[str, Rope]) -> None:
        scope, size, eps, bias = Scope({}), config.hidden_size, config.layer_norm_eps, config.norm_bias
        self.config, self.manifest, self.types, self.ropes = config, scope.manifest, types, ropes
        self.half = config.local_attention // 2
        self.words = Embedding(scope / "embeddings.tok_embeddings", config.vocab_size, size)
        self.norm = LayerNorm(scope / "embeddings.norm", size, eps, bias=bias)
        self.layers = [_layer(scope / "layers" / i, config, is_first=i == 0) for i in range(len(types))]
        self.final_norm = LayerNorm(scope / "final_norm", size, eps, bias=bias)

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and ``attention_mask``, int32 (batch, sequence) -> (batch, sequence, hidden)."""
        c, ids = self.config, inputs["input_ids"]
        slots, size = arange(ids.shape[1], device=ids.own_device), c.hidden_size // c.num_attention_heads
        counts = reshape(equal(inputs["attention_mask"], 1), (ids.shape[0], 1, 1, -1))
        own, other = reshape(slots, (1, 1, -1, 1)), reshape(slots, (1, 1, 1, -1))
        near = logical_and(less_equal(other, own + self.half), greater_equal(other + self.half, own))
        masks = {"full_attention": counts, "sliding_attention": logical_and(counts, near)}
        turns = {kind: self.ropes[kind].tables(slots, size) for kind in set(self.types)}
        x = self.norm(weights, self.words(weights, ids))
        for layer, kind in zip(self.layers, self.types, strict=True):
            x = layer(weights, x, turns[kind], masks[kind])
        return self.final_norm(weights, x)
