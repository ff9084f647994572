"""T5 (Raffel et al., 2020, https://arxiv.org/abs/1910.10683), and T5 1.1 / FLAN-T5 with gated layers.

An encoder-decoder without absolute positions: each head adds a learned bias for buckets of relative distance to the
attention scores, which are not scaled. RMS norm precedes each layer; linear layers have no biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..errors import InvalidWeights, ShapeMismatch, TensorCommonsError
from ..nn import embedding, heads, linear, relative, rms_norm
from ..ops import (
    arange,
    clip,
    equal,
    expand_dims,
    multiply,
    permute_dims,
    reshape,
    scaled_dot_product_attention,
    subtract,
    where,
)
from ..ops import embedding as rows
from ..ops import linear as linear_op
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Prepared
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, read_config
from .decoder import KVState
from .encoder import LOWEST
from .heads import by_class
from .text import FIRST_SHAPE, TextInputs
from .weight_mapping import WeightMapping

LONGEST = 2**20  # tokens; relative positions have no maximum
ALIASES = {  # names that every configuration of `transformers` accepts
    "d_model": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_layers": "num_hidden_layers",
    "d_kv": "head_dim",
}
STACKS = ("encoder", "decoder")


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
        file = folder.file
        check_fixed(folder.config, file)
        given = {name: value for name, value in folder.config.items() if value is not None}
        # tie_word_embeddings is only this default in `transformers`: the stored tensors decide which weights are tied.
        given.setdefault("scale_decoder_outputs", given.get("tie_word_embeddings", True))
        gated = str(given.get("feed_forward_proj", "")).startswith("gated-")
        config = read_config(cls, {"is_gated_act": gated, **given}, file, aliases=ALIASES)
        buckets, distance = config.relative_attention_num_buckets, config.relative_attention_max_distance
        if buckets < 4 or distance <= buckets // 2:
            raise InvalidWeights(
                file,
                f"relative_attention_num_buckets {buckets} must be at least 4, and relative_attention_max_distance "
                f"{distance} more than half of that",
            )
        activation(config.feed_forward[0], file, "feed_forward_proj")
        return replace(config, num_decoder_layers=config.num_decoder_layers or config.num_layers)

    @property
    def feed_forward(self) -> tuple[str, bool]:
        """The activation between the layers, and True if a second projection gates it."""
        named = "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")
        return self.dense_act_fn or named, self.is_gated_act


@dataclass(frozen=True)
class AnswerInputs:
    """The inputs ``input_ids`` and ``attention_mask`` (batch, source), ``decoder_input_ids`` (batch, target)."""

    vocab_size: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs that a call may pass."""
        return ("input_ids", "attention_mask", "decoder_input_ids")

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """Convert the inputs to int32, each padded to its bucket; a missing mask is filled with ones."""
        if "decoder_input_ids" not in inputs:
            raise TensorCommonsError(
                f"the input decoder_input_ids of {model} is missing: pass it, or use generate(), which makes it"
            )
        source = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
        asked = TextInputs(self.vocab_size, LONGEST, per_token=frozenset({"encoder_last_hidden_state"}))
        answer = TextInputs(self.vocab_size, LONGEST, per_token=frozenset({"logits"}))
        first = asked.prepare(source, model)
        second = answer.prepare({"input_ids": inputs["decoder_input_ids"]}, model)
        target = second.arrays["input_ids"]
        if len(target) != len(first.arrays["input_ids"]):
            raise ShapeMismatch(
                "input_ids and decoder_input_ids must have one batch size, not "
                f"{len(first.arrays['input_ids'])} and {len(target)}"
            )
        return Prepared({**first.arrays, "decoder_input_ids": target}, {**first.cuts, **second.cuts})

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """Create source and target of one ``shape`` (batch, sequence)."""
        size = FIRST_SHAPE if shape is None else shape
        return {
            "input_ids": np.full(size, self.vocab_size - 1),
            "decoder_input_ids": np.full(size, self.vocab_size - 2),
        }


def build(folder: Checkpoint) -> T5:
    """Build the encoder-decoder with the vocabulary head, the only supported class."""
    heads = dict.fromkeys(("ForConditionalGeneration", "WithLMHeadModel"), lambda: T5(T5Config.of(folder), folder))
    return by_class(folder, "T5", heads)


class T5:
    """The encoder-decoder with its vocabulary head. ``generation`` are the default options of generation."""

    tasks: tuple[str, ...] = ("text2text-generation",)
    outputs: tuple[str, ...] = ("logits", "encoder_last_hidden_state")
    defaults: tuple[str, ...] = outputs
    model_type = "t5"
    max_length = LONGEST

    def __init__(self, config: T5Config, folder: Checkpoint) -> None:
        self.config = config
        self.generation = folder.generation_defaults
        self.vocab_size = config.vocab_size
        self.start_token = config.decoder_start_token_id
        self.inputs = AnswerInputs(config.vocab_size)
        # As in `transformers`, tables that a file stores beside `shared.weight` are not tied to it.
        embeddings = {stack: f"{stack}.embed_tokens.weight" for stack in STACKS}
        stored = [name for name in ("shared.weight", *embeddings.values(), "lm_head.weight") if folder.has(name)]
        self.embeddings = {stack: name if name in stored[1:] else "shared.weight" for stack, name in embeddings.items()}
        self.output = "lm_head.weight" if "lm_head.weight" in stored[1:] else "shared.weight"
        tied = dict.fromkeys((*embeddings.values(), "lm_head.weight"), "shared.weight")
        unused = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
        self.names = WeightMapping(tied=tied, ignored=(unused,))

    def parameters(self) -> dict[str, Shape]:
        """Declare the parameters, with the names in a checkpoint."""
        c = self.config
        inner = c.num_heads * c.d_kv
        tables = ("shared.weight", *self.embeddings.values(), self.output)
        shapes: dict[str, Shape] = dict.fromkeys(tables, (c.vocab_size, c.d_model))

        def block(stack: str, i: int, attentions: tuple[str, ...]) -> None:
            for number, attention in enumerate(attentions):
                layer = f"{stack}.block.{i}.layer.{number}"
                for part in ("q", "k", "v"):
                    shapes[f"{layer}.{attention}.{part}.weight"] = (inner, c.d_model)
                shapes[f"{layer}.{attention}.o.weight"] = (c.d_model, inner)
                shapes.update(rms_norm.parameters(f"{layer}.layer_norm", c.d_model))
            if i == 0:
                bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
                shapes[bias] = (c.relative_attention_num_buckets, c.num_heads)
            layer = f"{stack}.block.{i}.layer.{len(attentions)}"
            for part in ("wi_0", "wi_1") if c.feed_forward[1] else ("wi",):
                shapes[f"{layer}.DenseReluDense.{part}.weight"] = (c.d_ff, c.d_model)
            shapes[f"{layer}.DenseReluDense.wo.weight"] = (c.d_model, c.d_ff)
            shapes.update(rms_norm.parameters(f"{layer}.layer_norm", c.d_model))

        for i in range(c.num_layers):
            block("encoder", i, ("SelfAttention",))
        for i in range(c.num_decoder_layers):
            block("decoder", i, ("SelfAttention", "EncDecAttention"))
        for stack in STACKS:
            shapes |= rms_norm.parameters(f"{stack}.final_layer_norm", c.d_model)
        return shapes

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from the inputs of :class:`AnswerInputs`, all int32."""
        hidden = self._encode(weights, inputs)
        target = inputs["decoder_input_ids"]
        fixed = self._memory(weights, hidden, inputs["attention_mask"])
        decoded = self._decode(weights, target, fixed, KVState.whole(target))
        return {"logits": self._logits(weights, decoded), "encoder_last_hidden_state": hidden}

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Return the specs of the keys and values of the decoder's self-attention: (batch, heads, capacity, d_kv)."""
        c = self.config
        spec = Spec((batch, c.num_heads, capacity, c.d_kv), dtypes.float32)
        return {f"decoder.block.{i}.{part}": spec for i in range(c.num_decoder_layers) for part in ("key", "value")}

    def begin(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode ``input_ids`` and ``attention_mask``; return the keys and values for each decoder layer."""
        return self._memory(weights, self._encode(weights, inputs), inputs["attention_mask"])

    def step(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Compute the logits (batch, vocabulary) after the last token of ``inputs["input_ids"]`` (batch, sequence)."""
        return self._logits(weights, past.last(self._decode(weights, inputs["input_ids"], fixed, past)))

    def _encode(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the encoder's hidden states, (batch, source, d_model)."""
        c, mask = self.config, inputs["attention_mask"]
        slots = arange(mask.shape[1])
        counts = reshape(equal(mask, 1), (mask.shape[0], 1, 1, -1))
        bias = self._bias(weights, "encoder", slots, slots, counts)
        x = embedding.forward(weights[self.embeddings["encoder"]], inputs["input_ids"])
        for i in range(c.num_layers):
            block = f"encoder.block.{i}.layer"
            query, key, value = self._projected(
                weights, f"{block}.0", "SelfAttention", "qkv", self._norm(weights, f"{block}.0", x)
            )
            x = x + self._attended(weights, f"{block}.0.SelfAttention", query, key, value, bias)
            x = x + self._feed_forward(weights, f"{block}.1", x)
        return self._norm(weights, "encoder", x, "final_layer_norm")

    def _memory(self, weights: Mapping[str, Tensor], hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compute keys and values of the source for each decoder layer, and the mask (batch, 1, 1, source)."""
        memory: dict[str, Tensor] = {}
        for i in range(self.config.num_decoder_layers):
            layer = f"decoder.block.{i}.layer.1"
            key, value = self._projected(weights, layer, "EncDecAttention", "kv", hidden)
            memory |= {f"{layer}.key": key, f"{layer}.value": value}
        memory["mask"] = reshape(where(equal(mask, 1), 0.0, LOWEST), (mask.shape[0], 1, 1, -1))
        return memory

    def _decode(self, weights: Mapping[str, Tensor], ids: Tensor, fixed: Mapping[str, Tensor], past: KVState) -> Tensor:
        """Compute the decoder's hidden states, (batch, target, d_model)."""
        bias = self._bias(weights, "decoder", past.slots, arange(past.mask.shape[3]), past.mask)
        x = embedding.forward(weights[self.embeddings["decoder"]], ids)
        for i in range(self.config.num_decoder_layers):
            block = f"decoder.block.{i}.layer"
            query, key, value = self._projected(
                weights, f"{block}.0", "SelfAttention", "qkv", self._norm(weights, f"{block}.0", x)
            )
            keys, values = past.extend(f"decoder.block.{i}", key, value)
            x = x + self._attended(weights, f"{block}.0.SelfAttention", query, keys, values, bias)
            (query,) = self._projected(
                weights, f"{block}.1", "EncDecAttention", "q", self._norm(weights, f"{block}.1", x)
            )
            memory = fixed[f"{block}.1.key"], fixed[f"{block}.1.value"]
            x = x + self._attended(weights, f"{block}.1.EncDecAttention", query, *memory, fixed["mask"])
            x = x + self._feed_forward(weights, f"{block}.2", x)
        return self._norm(weights, "decoder", x, "final_layer_norm")

    def _projected(
        self, weights: Mapping[str, Tensor], layer: str, attention: str, parts: str, x: Tensor
    ) -> list[Tensor]:
        """Project ``x`` to each of ``parts``: (batch, heads, sequence, d_kv)."""
        return [
            heads.split(linear.forward(weights, f"{layer}.{attention}.{part}", x), self.config.num_heads)
            for part in parts
        ]

    def _attended(
        self, weights: Mapping[str, Tensor], prefix: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor
    ) -> Tensor:
        attended = scaled_dot_product_attention(query, key, value, bias, scale=1.0)
        return linear.forward(weights, f"{prefix}.o", heads.merge(attended))

    def _feed_forward(self, weights: Mapping[str, Tensor], layer: str, x: Tensor) -> Tensor:
        activation, is_gated = self.config.feed_forward
        normed, prefix = self._norm(weights, layer, x), f"{layer}.DenseReluDense"
        inner = ACTIVATIONS[activation](linear.forward(weights, f"{prefix}.{'wi_0' if is_gated else 'wi'}", normed))
        if is_gated:
            inner = inner * linear.forward(weights, f"{prefix}.wi_1", normed)
        return linear.forward(weights, f"{prefix}.wo", inner)

    def _norm(self, weights: Mapping[str, Tensor], layer: str, x: Tensor, name: str = "layer_norm") -> Tensor:
        return rms_norm.forward(weights, f"{layer}.{name}", x, self.config.layer_norm_epsilon)

    def _bias(self, weights: Mapping[str, Tensor], stack: str, slots: Tensor, keys: Tensor, counts: Tensor) -> Tensor:
        """Compute the additive mask: the bias of each distance, and the most negative float32 if ``counts`` is False.

        ``slots`` (queries,) and ``keys`` (keys,) are positions; the result is (batch, heads, queries, keys).
        """
        c = self.config
        sizes = (c.relative_attention_num_buckets, c.relative_attention_max_distance)
        far = min(sizes[1], max(keys.shape[0], 128))  # larger distances do not occur, or share the last bucket
        buckets = relative.buckets(1, 2 * far + 1, *sizes, bidirectional=stack == "encoder", first=far)[0]
        weight = weights[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        distance = subtract(expand_dims(keys, axis=0), expand_dims(slots, axis=1))
        bias = permute_dims(rows(embedding.forward(weight, buckets), clip(distance, -far, far) + far), (2, 0, 1))
        return where(counts, expand_dims(bias, axis=0), LOWEST)

    def _logits(self, weights: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        if self.config.scale_decoder_outputs:
            hidden = multiply(hidden, self.config.d_model**-0.5)
        return linear_op(hidden, weights[self.output])
