"""The post-norm transformer encoder of the BERT family; the file of each architecture declares its differences.

Parameters have the names of BERT's checkpoints; those of other checkpoints are mapped to them (weight_mapping.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..errors import InvalidWeights
from ..nn import Attention, Embedding, FeedForward, LayerNorm, Linear, Scope, Weights, as_float32
from ..ops import astype, multiply, permute_dims, reshape, subtract
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, Activation, check_heads, read_config

LOWEST = -3.4028234663852886e38  # the most negative float32, which `transformers` adds to masked scores


@dataclass(frozen=True)
class EncoderConfig:
    """The fields of ``config.json`` that determine the computation; sizes in elements.

    ``embedding_size`` 0 means ``hidden_size``; ``type_vocab_size`` 0 means no token types. The defaults
    are BERT's.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    embedding_size: int = 0
    layer_norm_eps: float = 1e-12
    hidden_act: Activation = "gelu"
    pad_token_id: int = 0
    tie_word_embeddings: bool = True

    @classmethod
    def of(cls, folder: Checkpoint, **reading: Any) -> Self:
        """Read the configuration; ``reading`` are options of :func:`read_config`.

        Raises:
            InvalidWeights: a field is wrong or not supported.
        """
        config = read_config(cls, folder.config, folder.file, position_embedding_type="absolute", **reading)
        check_heads(config.hidden_size, config.num_attention_heads, folder.file)
        if not -config.vocab_size <= config.pad_token_id < config.vocab_size:
            raise InvalidWeights(
                folder.file, f"pad_token_id {config.pad_token_id} is outside the vocabulary of {config.vocab_size}"
            )
        return config

    @property
    def width(self) -> int:
        """Size of a word embedding."""
        return self.embedding_size or self.hidden_size


class EncoderLayer:
    """Attention and a feed-forward part, each added to its input and normalized."""

    def __init__(self, scope: Scope, c: EncoderConfig) -> None:
        size, act = c.hidden_size, ACTIVATIONS[c.hidden_act]
        self.attention = Attention(scope / "attention", size, c.num_attention_heads)
        self.attention_norm = LayerNorm(scope / "attention.output.LayerNorm", size, c.layer_norm_eps)
        first = Linear(scope / "intermediate.dense", size, c.intermediate_size)
        self.feed_forward = FeedForward(first, act, Linear(scope / "output.dense", c.intermediate_size, size))
        self.norm = LayerNorm(scope / "output.LayerNorm", size, c.layer_norm_eps)

    def __call__(self, weights: Weights, x: Tensor, mask: Tensor) -> Tensor:
        """Apply the layer to (batch, sequence, hidden)."""
        x = self.attention_norm(weights, self.attention(weights, x, mask) + x)
        return self.norm(weights, self.feed_forward(weights, x) + x)


class Encoder:
    """An encoder from token ids to hidden states.

    ``layers`` are the prefixes of the weights of each layer, by default a different one each; layers with equal
    prefixes share weights. A linear layer maps embeddings of another size to the hidden size; with ``projects`` it
    exists in any case. ``buckets`` is the number of rows of a table of attention biases by relative position, 0 for
    none; the input ``relative_buckets`` has the row of each pair of tokens. The optional input ``position_ids`` has the
    position of each token.
    """

    def __init__(
        self, config: EncoderConfig, layers: Sequence[str] = (), *, projects: bool = False, buckets: int = 0
    ) -> None:
        self.config = c = config
        scope = Scope({})
        self.manifest = scope.manifest
        tables = scope / "embeddings"
        self.words = Embedding(tables / "word_embeddings", c.vocab_size, c.width)
        shape = c.max_position_embeddings, c.width
        self.positions = (tables / "position_embeddings").param("weight", shape, "positions")
        self.norm = LayerNorm(tables / "LayerNorm", c.width, c.layer_norm_eps)
        types = c.type_vocab_size
        self.types = Embedding(tables / "token_type_embeddings", types, c.width) if types else None
        projects = projects or c.width != c.hidden_size
        self.project = Linear(scope / "embeddings_project", c.width, c.hidden_size) if projects else None
        bias = scope / "encoder.relative_attention_bias"
        self.bias = Embedding(bias, buckets, c.num_attention_heads) if buckets else None
        names = layers or [f"encoder.layer.{i}" for i in range(c.num_hidden_layers)]
        self.layers = [EncoderLayer(scope / name, c) for name in names]

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and the other inputs, int32 (batch, sequence) -> (batch, sequence, hidden)."""
        x = self._embed(weights, inputs)
        batch, sequence, _ = x.shape
        mask = reshape(additive(inputs["attention_mask"]), (batch, 1, 1, sequence))
        if self.bias:
            bias = permute_dims(self.bias(weights, inputs["relative_buckets"]), (2, 0, 1))
            mask = mask + reshape(bias, (1, *bias.shape))  # (batch, heads, sequence, sequence)
        for layer in self.layers:
            x = layer(weights, x, mask)
        return x

    def _embed(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        ids, positions = inputs["input_ids"], weights[self.positions]
        x = self.words(weights, ids)
        if self.types:
            x = x + self.types(weights, inputs["token_type_ids"])
        if "position_ids" in inputs:
            x = x + positions.rows(inputs["position_ids"])
        else:
            x = x + as_float32(positions.tensor[: ids.shape[1]])
        x = self.norm(weights, x)
        return self.project(weights, x) if self.project else x


def additive(attention_mask: Tensor) -> Tensor:
    """Return the additive mask: 0 for tokens, the most negative float32 for padding."""
    return multiply(subtract(1.0, astype(attention_mask, "float32")), LOWEST)
