"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805) and what is put on top of it.

A post-norm transformer encoder. With a masked-language-model head it is also SPLADE (Formal et al., 2021,
https://arxiv.org/abs/2107.05720): a weight for every word, ``max over tokens of log(1 + relu(logit))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InvalidWeights
from ..nn import attention, layer_norm, linear, pooling
from ..ops import astype, embedding, gelu, log1p, max, multiply, relu, reshape, subtract, tanh
from ..ops import linear as linear_op
from ..shapes import Shape
from ..tensor import Tensor

LOWEST = -3.4028234663852886e38  # the most negative float32: what `transformers` adds to masked scores
TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
ACTIVATIONS = {"gelu": gelu, "relu": relu}


@dataclass(frozen=True)
class BertConfig:
    """The part of ``config.json`` that decides the computation; sizes in elements."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], file: str) -> BertConfig:
        """The typed configuration of a parsed ``config.json``.

        Raises:
            InvalidWeights: a field is missing, of the wrong type, or asks for what is not built in.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = config.get(field.name, field.default)
            wanted = TYPES[str(field.type)]
            low = 1 if wanted == (int,) else 0
            bad = not isinstance(value, wanted) or isinstance(value, bool)
            if bad or (isinstance(value, (int, float)) and not low <= value < float("inf")):
                raise InvalidWeights(file, f"{field.name} must be {field.type}, not {config.get(field.name)!r}")
            values[field.name] = value
        if values["hidden_size"] % values["num_attention_heads"]:
            raise InvalidWeights(
                file, f"hidden_size {values['hidden_size']} is no multiple of {values['num_attention_heads']} heads"
            )
        if values["hidden_act"] not in ACTIVATIONS:
            raise InvalidWeights(file, f"hidden_act {values['hidden_act']!r} is not one of {', '.join(ACTIVATIONS)}")
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise InvalidWeights(file, f"position_embedding_type {config['position_embedding_type']!r} is not absolute")
        return cls(**values)


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one sentence vector: ``mode`` is "mean" or "cls"; ``normalize`` gives it length 1."""

    mode: str = "mean"
    normalize: bool = True

    def __call__(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, sequence, hidden) -> (batch, hidden)."""
        pooled = pooling.cls(hidden) if self.mode == "cls" else pooling.mean(hidden, attention_mask)
        return pooling.normalize(pooled) if self.normalize else pooled


class Bert:
    """The encoder; with ``masked_lm`` its vocabulary head, with ``pooler`` its [CLS] pooler."""

    def __init__(self, config: BertConfig, *, masked_lm: bool, pooler: bool, pooling: Pooling | None = None) -> None:
        self.config = config
        self.model_type = "bert"
        self.masked_lm = masked_lm
        self.pooler = pooler
        self.pooling = pooling or Pooling()
        self.tasks: tuple[str, ...] = ("feature-extraction", "sentence-similarity")
        if masked_lm:
            self.tasks = ("fill-mask", "sparse-embedding")
        self.outputs: tuple[str, ...] = ("last_hidden_state", "sentence_embedding")
        if pooler:
            self.outputs += ("pooler_output",)
        if masked_lm:
            self.outputs += ("logits", "sparse_embedding")
        self.defaults = ("logits",) if masked_lm else tuple(n for n in self.outputs if n != "sentence_embedding")
        self.per_token = frozenset({"last_hidden_state", "logits"})
        self.vocab_size = config.vocab_size
        self.type_vocab_size = config.type_vocab_size
        self.max_length = config.max_position_embeddings

    def parameters(self) -> dict[str, Shape]:
        """Names as in a checkpoint of the bare encoder; the vocabulary head under ``cls.predictions``."""
        c = self.config
        shapes: dict[str, Shape] = {
            "embeddings.word_embeddings.weight": (c.vocab_size, c.hidden_size),
            "embeddings.position_embeddings.weight": (c.max_position_embeddings, c.hidden_size),
            "embeddings.token_type_embeddings.weight": (c.type_vocab_size, c.hidden_size),
            **layer_norm.parameters("embeddings.LayerNorm", c.hidden_size),
        }
        for i in range(c.num_hidden_layers):
            layer = f"encoder.layer.{i}"
            shapes |= attention.parameters(f"{layer}.attention", c.hidden_size)
            shapes |= layer_norm.parameters(f"{layer}.attention.output.LayerNorm", c.hidden_size)
            shapes |= linear.parameters(f"{layer}.intermediate.dense", c.hidden_size, c.intermediate_size)
            shapes |= linear.parameters(f"{layer}.output.dense", c.intermediate_size, c.hidden_size)
            shapes |= layer_norm.parameters(f"{layer}.output.LayerNorm", c.hidden_size)
        if self.pooler:
            shapes |= linear.parameters("pooler.dense", c.hidden_size, c.hidden_size)
        if self.masked_lm:  # the decoder's matrix is the word embeddings, tied
            shapes |= linear.parameters("cls.predictions.transform.dense", c.hidden_size, c.hidden_size)
            shapes |= layer_norm.parameters("cls.predictions.transform.LayerNorm", c.hidden_size)
            shapes["cls.predictions.bias"] = (c.vocab_size,)
        return shapes

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``token_type_ids`` are int32 (batch, sequence)."""
        attention_mask = inputs["attention_mask"]
        hidden = self.encode(weights, inputs)  # (batch, sequence, hidden)
        result = {"last_hidden_state": hidden, "sentence_embedding": self.pooling(hidden, attention_mask)}
        if self.pooler:
            result["pooler_output"] = tanh(linear.forward(weights, "pooler.dense", pooling.cls(hidden)))
        if self.masked_lm:
            result["logits"] = self._vocabulary_logits(weights, hidden)  # (batch, sequence, vocabulary)
            masked = result["logits"] + reshape(_additive(attention_mask), (*attention_mask.shape, 1))
            result["sparse_embedding"] = log1p(relu(max(masked, axis=1)))  # (batch, vocabulary)
        return result

    def encode(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """The hidden states of the last layer, (batch, sequence, hidden)."""
        c, ids = self.config, inputs["input_ids"]
        sequence = ids.shape[1]
        words = embedding(weights["embeddings.word_embeddings.weight"], ids)
        types = embedding(weights["embeddings.token_type_embeddings.weight"], inputs["token_type_ids"])
        positions = weights["embeddings.position_embeddings.weight"][:sequence]
        x = layer_norm.forward(weights, "embeddings.LayerNorm", words + types + positions, c.layer_norm_eps)
        mask = reshape(_additive(inputs["attention_mask"]), (ids.shape[0], 1, 1, sequence))
        for i in range(c.num_hidden_layers):
            x = self._layer(weights, f"encoder.layer.{i}", x, mask)
        return x

    def _layer(self, weights: Mapping[str, Tensor], layer: str, x: Tensor, mask: Tensor) -> Tensor:
        c = self.config
        attended = attention.forward(weights, f"{layer}.attention", x, mask, c.num_attention_heads)
        x = layer_norm.forward(weights, f"{layer}.attention.output.LayerNorm", attended + x, c.layer_norm_eps)
        inner = ACTIVATIONS[c.hidden_act](linear.forward(weights, f"{layer}.intermediate.dense", x))
        outer = linear.forward(weights, f"{layer}.output.dense", inner)
        return layer_norm.forward(weights, f"{layer}.output.LayerNorm", outer + x, c.layer_norm_eps)

    def _vocabulary_logits(self, weights: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
        head = "cls.predictions.transform"
        x = ACTIVATIONS[self.config.hidden_act](linear.forward(weights, f"{head}.dense", hidden))
        x = layer_norm.forward(weights, f"{head}.LayerNorm", x, self.config.layer_norm_eps)
        return linear_op(x, weights["embeddings.word_embeddings.weight"], weights["cls.predictions.bias"])


def _additive(attention_mask: Tensor) -> Tensor:
    """0 where a token counts, the most negative float32 where it is padding."""
    return multiply(subtract(1.0, astype(attention_mask, "float32")), LOWEST)
