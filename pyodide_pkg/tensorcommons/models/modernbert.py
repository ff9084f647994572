"""ModernBERT (Warner et al., 2024, https://arxiv.org/abs/2412.13663): an encoder for long texts.

A pre-norm encoder with rotary positions, gated GELU and few biases. Every third layer attends to all tokens; the others
attend to a window of ``local_attention`` tokens around each, with rotary positions of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import InvalidWeights, quoted
from ..nn import Embedding, FeedForward, LayerNorm, Linear, Scope, Weights, merge_heads
from ..ops import arange, equal, greater_equal, less_equal, logical_and, permute_dims, reshape, rotary_embedding
from ..ops import scaled_dot_product_attention as attend
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, read_config
from .encoder import EncoderConfig
from .encoder_model import EncoderModel
from .heads import (
    Embedder,
    Head,
    Labels,
    MaskedLM,
    Prediction,
    QuestionAnswering,
    TokenClassification,
    Words,
    by_class,
)
from .llama import layer_types
from .rope import Rope
from .text import TextInputs
from .weight_mapping import WeightMapping

SPELLED = {"layer_norm_eps": "norm_eps", "hidden_act": "hidden_activation"}
DEFAULTS = {"vocab_size": 50368, "intermediate_size": 1152, "num_hidden_layers": 22, "max_position_embeddings": 8192}
FIXED = {"type_vocab_size": 0, "embedding_size": 0}
THETAS = {"full_attention": ("global_rope_theta", 160000.0), "sliding_attention": ("local_rope_theta", 10000.0)}
NAMES = WeightMapping(prefixes=("model.",), tied={"decoder.weight": "embeddings.tok_embeddings.weight"})


@dataclass(frozen=True)
class Details:
    """The fields of ``config.json`` that other encoders do not have."""

    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_pooling: str = "cls"
    classifier_activation: str = "gelu"

    @classmethod
    def of(cls, folder: Checkpoint) -> Details:
        """Read the fields. Raises InvalidWeights for a field that is wrong or not supported."""
        details = read_config(cls, folder.config, folder.file)
        activation(details.classifier_activation, folder.file, "classifier_activation")
        if details.classifier_pooling not in ("cls", "mean"):
            named = quoted(details.classifier_pooling)
            raise InvalidWeights(folder.file, f"classifier_pooling {named} is not one of cls, mean")
        return details


def build(folder: Checkpoint) -> EncoderModel:
    """Build the model of ``config.json``. Raises InvalidWeights for a field that is wrong or not supported."""
    defaults = {**DEFAULTS, "norm_eps": 1e-5, "pad_token_id": 50283}
    c, details = EncoderConfig.of(folder, SPELLED, defaults=defaults, fixed=FIXED), Details.of(folder)
    every, layers, size = details.global_attn_every_n_layers, c.num_hidden_layers, c.hidden_size
    if size // c.num_attention_heads % 2:
        raise InvalidWeights(
            folder.file, f"rotary positions need heads of an even size: {size // c.num_attention_heads}"
        )
    types = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    encoder = ModernBert(
        c, details, layer_types(folder, layers) or types, {kind: _rope(folder, kind) for kind in THETAS}
    )
    scope = Scope(dict(encoder.manifest))
    act, biases = details.classifier_activation, (details.classifier_bias, details.norm_bias)
    words = Words("head.dense", "head.norm", "decoder", "decoder.bias" if details.decoder_bias else "", act, *biases)

    def predicted(head: Head, pools: str = "") -> Prediction:
        return Prediction(scope / "head", c, words, head, pools)

    def labelled() -> Head:
        return TokenClassification(scope / "classifier", size, Labels.of(folder))

    kinds: dict[str, Callable[[], Head]] = {
        "Model": lambda: Embedder(scope, folder, size),
        "ForMaskedLM": lambda: MaskedLM(scope, folder, c, words, encoder.words.weight),
        "ForSequenceClassification": lambda: predicted(labelled(), details.classifier_pooling),
        "ForTokenClassification": lambda: predicted(labelled()),
        "ForQuestionAnswering": lambda: predicted(QuestionAnswering(scope / "classifier", size)),
    }
    head = by_class(folder, "ModernBert", kinds)
    per_token = frozenset({"last_hidden_state", *head.per_token})
    inputs = TextInputs(c.vocab_size, c.max_position_embeddings, per_token=per_token, pools_apart=head.pools_apart)
    return EncoderModel(folder, scope.manifest, encoder, head, NAMES, inputs)


def _rope(folder: Checkpoint, kind: str) -> Rope:
    """Read the rotary positions of the layers of ``kind``. Raises InvalidWeights."""
    table, scaling = (folder.config.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    if not isinstance(table, dict) or not table.keys() <= THETAS.keys():
        raise InvalidWeights(folder.file, f"rope_parameters {quoted(table)} must have the keys {', '.join(THETAS)}")
    own = table.get(kind) or {}
    if not isinstance(own, dict) or not isinstance(scaling, dict):
        raise InvalidWeights(
            folder.file, f"rope_parameters {quoted(own)} and rope_scaling {quoted(scaling)} must be objects"
        )
    old, default = THETAS[kind]
    theta = default if folder.config.get(old) is None else folder.config[old]
    given = {"rope_theta": theta, **own, **scaling}
    return Rope.of(replace(folder, config={**folder.config, "rope_parameters": given, "rope_scaling": None}))


class Layer:
    """Attention and a gated feed-forward part, each on the normalized input, to which it is added.

    The input of the first layer is normalized already.
    """

    def __init__(self, scope: Scope, c: EncoderConfig, details: Details, *, is_first: bool) -> None:
        size, inner, eps, bias = c.hidden_size, c.intermediate_size, c.layer_norm_eps, details.norm_bias
        self.heads = c.num_attention_heads
        self.attention_norm = None if is_first else LayerNorm(scope / "attn_norm", size, eps, bias=bias)
        self.packed = Linear(scope / "attn.Wqkv", size, 3 * size, bias=details.attention_bias)
        self.output = Linear(scope / "attn.Wo", size, size, bias=details.attention_bias)
        self.norm = LayerNorm(scope / "mlp_norm", size, eps, bias=bias)
        first = Linear(scope / "mlp.Wi", size, 2 * inner, bias=details.mlp_bias)
        second = Linear(scope / "mlp.Wo", inner, size, bias=details.mlp_bias)
        self.feed_forward = FeedForward(first, ACTIVATIONS[c.hidden_act], second, is_packed=True)

    def __call__(self, weights: Weights, x: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Apply the layer to (batch, sequence, hidden)."""
        batch, sequence, size = x.shape
        packed = self.packed(weights, self.attention_norm(weights, x) if self.attention_norm else x)
        shape = batch, sequence, 3, self.heads, size // self.heads
        query, key, value = (permute_dims(reshape(packed, shape), (2, 0, 3, 1, 4))[part] for part in range(3))
        places = reshape(arange(sequence, device=x.device), (1, 1, -1))
        query, key = (rotary_embedding(each, *turns, positions=places) for each in (query, key))
        x = x + self.output(weights, merge_heads(attend(query, key, value, mask)))
        return x + self.feed_forward(weights, self.norm(weights, x))


class ModernBert:
    """The encoder. ``types`` are the kinds of attention of the layers, ``ropes`` the rotary positions of each kind."""

    def __init__(
        self, config: EncoderConfig, details: Details, types: Sequence[str], ropes: Mapping[str, Rope]
    ) -> None:
        scope, size, eps, bias = Scope({}), config.hidden_size, config.layer_norm_eps, details.norm_bias
        self.config, self.manifest, self.types, self.ropes = config, scope.manifest, types, ropes
        self.half = details.local_attention // 2
        self.words = Embedding(scope / "embeddings.tok_embeddings", config.vocab_size, size)
        self.norm = LayerNorm(scope / "embeddings.norm", size, eps, bias=bias)
        self.layers = [Layer(scope / "layers" / i, config, details, is_first=i == 0) for i in range(len(types))]
        self.final_norm = LayerNorm(scope / "final_norm", size, eps, bias=bias)

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and ``attention_mask``, int32 (batch, sequence) -> (batch, sequence, hidden)."""
        c, ids = self.config, inputs["input_ids"]
        slots, size = arange(ids.shape[1], device=ids.device), c.hidden_size // c.num_attention_heads
        counts = reshape(equal(inputs["attention_mask"], 1), (ids.shape[0], 1, 1, -1))
        own, other = reshape(slots, (1, 1, -1, 1)), reshape(slots, (1, 1, 1, -1))
        near = logical_and(less_equal(other, own + self.half), greater_equal(other + self.half, own))
        masks = {"full_attention": counts, "sliding_attention": logical_and(counts, near)}
        turns = {kind: self.ropes[kind].tables(slots, size) for kind in set(self.types)}
        x = self.norm(weights, self.words(weights, ids))
        for layer, kind in zip(self.layers, self.types, strict=True):
            x = layer(weights, x, turns[kind], masks[kind])
        return self.final_norm(weights, x)
