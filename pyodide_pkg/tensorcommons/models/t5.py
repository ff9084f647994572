"""T5 (Raffel et al., 2020, https://arxiv.org/abs/1910.10683), and T5 1.1 / FLAN-T5 with gated layers.

An encoder-decoder without absolute positions: each head adds a learned bias for buckets of relative distance to the
attention scores, which are not scaled. RMS norm precedes each layer; linear layers have no biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..errors import InvalidWeights, quoted
from ..nn import Attention, Embedding, FeedForward, Linear, RMSNorm, Scope, Weights, relative
from ..ops import (
    arange,
    clip,
    expand_dims,
    multiply,
    permute_dims,
    reshape,
    subtract,
    where,
)
from ..ops import embedding as rows
from ..tensor import Tensor
from .answer_inputs import AnswerInputs
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, read_config
from .decoder import KVState
from .encoder import LOWEST
from .encoder_decoder import AnswerGenerator, Layer, Memory, Stack
from .heads import by_class
from .weight_mapping import WeightMapping

LONGEST = 2**20  # tokens; relative positions have no maximum
ALIASES = {  # names that every configuration of `transformers` accepts
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_layers": "num_hidden_layers",
    "d_kv": "head_dim",
}
ATTENTIONS = {"encoder": ["SelfAttention"], "decoder": ["SelfAttention", "EncDecAttention"]}  # of a block
NAMES = WeightMapping(ignored=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",))


@dataclass(frozen=True)
class T5Config:
    """The fields of ``config.json`` that determine the computation; sizes in elements."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_heads: int = 8
    num_decoder_layers: int = 0  # 0: num_layers
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool = True  # scale the last hidden states by d_model ** -0.5
    dense_act_fn: str = ""  # overrides the activation in feed_forward_proj
    is_gated_act: bool = False
    decoder_start_token_id: int = 0

    @classmethod
    def of(cls, folder: Checkpoint) -> T5Config:
        """Read the configuration. Raises InvalidWeights for a field that is missing, wrong or not supported."""
        file, given = folder.file, folder.config
        gated = str(given.get("feed_forward_proj")).startswith("gated-")
        # tie_word_embeddings is only this default in `transformers`: the stored tensors decide which weights are tied.
        defaults = {"is_gated_act": gated, "scale_decoder_outputs": given.get("tie_word_embeddings")}
        config = read_config(cls, given, file, aliases=ALIASES, defaults=defaults)
        buckets, distance = config.relative_attention_num_buckets, config.relative_attention_max_distance
        if buckets < 4 or distance <= buckets // 2:
            raise InvalidWeights(
                file,
                f"relative_attention_num_buckets {buckets} must be at least 4, and relative_attention_max_distance "
                f"{distance} more than half of that",
            )
        if config.feed_forward[0] not in ACTIVATIONS:
            raise InvalidWeights(
                file, f"feed_forward_proj {quoted(config.feed_forward[0])} is not one of {', '.join(ACTIVATIONS)}"
            )
        return replace(config, num_decoder_layers=config.num_decoder_layers or config.num_layers)

    @property
    def feed_forward(self) -> tuple[str, bool]:
        """The activation between the layers, and True if a second projection gates it."""
        named = "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")
        return self.dense_act_fn or named, self.is_gated_act


class RelativeBias:
    """The additive mask of a stack: the bias of each distance, and the most negative float32 for masked keys."""

    def __init__(self, scope: Scope, c: T5Config, *, bidirectional: bool) -> None:
        self.sizes = c.relative_attention_num_buckets, c.relative_attention_max_distance
        self.bidirectional = bidirectional
        self.table = Embedding(scope, self.sizes[0], c.num_heads)

    def __call__(self, weights: Weights, positions: Tensor, counts: Tensor) -> Tensor:
        """Compute the mask (batch, heads, queries, keys) at ``positions`` (batch or 1, queries) from keys 0, 1, 2, ...

        Keys where ``counts`` (batch or 1, 1, queries or 1, keys) is False are masked.
        """
        count = counts.shape[3]
        far = min(self.sizes[1], max(count, 128))  # larger distances do not occur, or share the last bucket
        buckets = relative.buckets(1, 2 * far + 1, *self.sizes, bidirectional=self.bidirectional, first=far)[0]
        distance = subtract(reshape(arange(count), (1, 1, -1)), expand_dims(positions, axis=2))
        bias = permute_dims(rows(self.table(weights, buckets), clip(distance, -far, far) + far), (0, 3, 1, 2))
        return where(counts, bias, LOWEST)


def _block(scope: Scope, c: T5Config, attentions: Sequence[str]) -> Layer:
    """Build a layer with attention of the given names over scores that are not scaled."""
    attend = partial(Attention, bias=False, output_bias=False, names="qkvo", head_size=c.d_kv, scale=1.0)
    parts = [attend(scope / f"layer.{i}.{name}", c.d_model, c.num_heads) for i, name in enumerate(attentions)]
    count = len(attentions)
    norms = [RMSNorm(scope / f"layer.{i}.layer_norm", c.d_model, c.layer_norm_epsilon) for i in range(count + 1)]
    dense, (act, gated) = scope / f"layer.{count}.DenseReluDense", c.feed_forward
    first, *more = (
        Linear(dense / part, c.d_model, c.d_ff, bias=False) for part in (("wi_0", "wi_1") if gated else ("wi",))
    )
    second = Linear(dense / "wo", c.d_ff, c.d_model, bias=False)
    return Layer(parts, norms, FeedForward(first, ACTIVATIONS[act], second, *more), norm_first=True)


class T5Stack(Stack):
    """The blocks between the embeddings ``words`` and the last norm."""

    def __init__(self, scope: Scope, c: T5Config, name: str, count: int, words: Embedding) -> None:
        scope, attentions = scope / name, ATTENTIONS[name]
        self.words = words
        self.layers = {f"{name}.block.{i}": _block(scope / "block" / i, c, attentions) for i in range(count)}
        bias = scope / "block.0.layer.0.SelfAttention.relative_attention_bias"
        self.bias = RelativeBias(bias, c, bidirectional=name == "encoder")
        self.norm = RMSNorm(scope / "final_layer_norm", c.d_model, c.layer_norm_epsilon)

    def __call__(self, weights: Weights, ids: Tensor, past: KVState, memory: Memory) -> Tensor:
        """See :class:`Stack`."""
        mask = self.bias(weights, past.positions, past.mask)
        return self.norm(weights, self.run(weights, self.words(weights, ids), mask, past, memory))


class T5(AnswerGenerator):
    """The encoder-decoder with its vocabulary head."""

    model_type = "t5"
    source = "layer.1"
    max_length = LONGEST

    def __init__(self, config: T5Config, folder: Checkpoint) -> None:
        self.config = c = config
        super().__init__(folder, c.vocab_size, c.d_model, NAMES)
        asked, answer = self.tables
        self.generation = folder.generation_defaults
        self.vocab_size = c.vocab_size
        self.start_token = c.decoder_start_token_id
        self.inputs = AnswerInputs(c.vocab_size, LONGEST)
        self.output = Linear(self.scope / "lm_head", c.d_model, c.vocab_size, bias=False, weight=self.tied)
        self.encoder = T5Stack(self.scope, c, "encoder", c.num_layers, asked)
        self.decoder = T5Stack(self.scope, c, "decoder", c.num_decoder_layers, answer)
        self.cached, self.keys = tuple(self.decoder.layers), (c.num_heads, c.d_kv)

    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """See :class:`AnswerGenerator`."""
        if self.config.scale_decoder_outputs:
            hidden = multiply(hidden, self.config.d_model**-0.5)
        return self.output(weights, hidden)


def build(folder: Checkpoint) -> T5:
    """Build the encoder-decoder with the vocabulary head, the only supported class."""
    heads = dict.fromkeys(("ForConditionalGeneration", "WithLMHeadModel"), lambda: T5(T5Config.of(folder), folder))
    return by_class(folder, "T5", heads)
