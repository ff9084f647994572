"""The post-norm transformer encoder of the BERT family; the file of each architecture declares its differences.

Parameters have the names of BERT's checkpoints; those of other checkpoints are mapped to them (weight_mapping.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidWeights
from ..nn import attention, embedding, layer_norm, linear
from ..ops import astype, multiply, permute_dims, reshape, subtract
from ..shapes import Shape
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .config import ACTIVATIONS, activation, check_fixed, check_heads, read_config

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
    hidden_act: str = "gelu"
    pad_token_id: int = 0
    tie_word_embeddings: bool = True

    @classmethod
    def of(
        cls,
        folder: Checkpoint,
        spelled: Mapping[str, str] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
        fixed: Mapping[str, object] | None = None,
    ) -> EncoderConfig:
        """Read the configuration.

        ``defaults`` are the architecture's values for fields missing from ``config.json``, ``fixed`` its values for
        fields that it does not read.

        Raises:
            InvalidWeights: a field is wrong or not supported.
        """
        file, given = folder.file, {name: value for name, value in folder.config.items() if value is not None}
        table = {**(defaults or {}), **given, **(fixed or {})}
        config = read_config(cls, table, file, spelled, aliases)
        check_heads(config.hidden_size, config.num_attention_heads, file)
        activation(config.hidden_act, file, (spelled or {}).get("hidden_act", "hidden_act"))
        if not -config.vocab_size <= config.pad_token_id < config.vocab_size:
            words = config.vocab_size
            raise InvalidWeights(file, f"pad_token_id {config.pad_token_id} is outside the vocabulary of {words}")
        check_fixed(table, file, position_embedding_type="absolute")
        return config

    @property
    def width(self) -> int:
        """Size of a word embedding."""
        return self.embedding_size or self.hidden_size


@dataclass(frozen=True)
class Encoder:
    """An encoder from token ids to hidden states.

    ``layers`` are the prefixes of the weights of each layer; layers with equal prefixes share weights. With
    ``projects`` a linear layer maps the embeddings to the hidden size. ``buckets`` is the number of rows of a table of
    attention biases by relative position, 0 for none; the input ``relative_buckets`` has the row of each pair of
    tokens. The optional input ``position_ids`` has the position of each token.
    """

    config: EncoderConfig
    layers: tuple[str, ...]
    projects: bool = False
    buckets: int = 0

    @classmethod
    def plain(cls, config: EncoderConfig, *, projects: bool = False, buckets: int = 0) -> Encoder:
        """Create an encoder whose layers do not share weights."""
        layers = tuple(f"encoder.layer.{i}" for i in range(config.num_hidden_layers))
        return cls(config, layers, projects, buckets)

    def parameters(self) -> dict[str, Shape]:
        """Declare the parameters, with the names in a checkpoint of BERT's bare encoder."""
        c = self.config
        shapes: dict[str, Shape] = {
            "embeddings.word_embeddings.weight": (c.vocab_size, c.width),
            "embeddings.position_embeddings.weight": (c.max_position_embeddings, c.width),
            **layer_norm.parameters("embeddings.LayerNorm", c.width),
        }
        if c.type_vocab_size:
            shapes["embeddings.token_type_embeddings.weight"] = (c.type_vocab_size, c.width)
        if self.projects:
            shapes |= linear.parameters("embeddings_project", c.width, c.hidden_size)
        if self.buckets:
            shapes["encoder.relative_attention_bias.weight"] = (self.buckets, c.num_attention_heads)
        for layer in self.layers:
            shapes |= attention.parameters(f"{layer}.attention", c.hidden_size)
            shapes |= layer_norm.parameters(f"{layer}.attention.output.LayerNorm", c.hidden_size)
            shapes |= linear.parameters(f"{layer}.intermediate.dense", c.hidden_size, c.intermediate_size)
            shapes |= linear.parameters(f"{layer}.output.dense", c.intermediate_size, c.hidden_size)
            shapes |= layer_norm.parameters(f"{layer}.output.LayerNorm", c.hidden_size)
        return shapes

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and the other inputs, int32 (batch, sequence) -> (batch, sequence, hidden)."""
        x = self._embed(weights, inputs)
        batch, sequence, _ = x.shape
        mask = reshape(additive(inputs["attention_mask"]), (batch, 1, 1, sequence))
        if self.buckets:
            table = weights["encoder.relative_attention_bias.weight"]
            bias = permute_dims(embedding.forward(table, inputs["relative_buckets"]), (2, 0, 1))
            mask = mask + reshape(bias, (1, *bias.shape))  # (batch, heads, sequence, sequence)
        for layer in self.layers:
            x = self._layer(weights, layer, x, mask)
        return x

    def _embed(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        ids, positions = inputs["input_ids"], weights["embeddings.position_embeddings.weight"]
        x = embedding.forward(weights["embeddings.word_embeddings.weight"], ids)
        if self.config.type_vocab_size:
            x = x + embedding.forward(weights["embeddings.token_type_embeddings.weight"], inputs["token_type_ids"])
        if "position_ids" in inputs:
            x = x + embedding.forward(positions, inputs["position_ids"])
        else:
            x = x + embedding.as_float32(positions[: ids.shape[1]])
        x = layer_norm.forward(weights, "embeddings.LayerNorm", x, self.config.layer_norm_eps)
        return linear.forward(weights, "embeddings_project", x) if self.projects else x

    def _layer(self, weights: Mapping[str, Tensor], layer: str, x: Tensor, mask: Tensor) -> Tensor:
        c = self.config
        attended = attention.forward(weights, f"{layer}.attention", x, mask, c.num_attention_heads)
        x = layer_norm.forward(weights, f"{layer}.attention.output.LayerNorm", attended + x, c.layer_norm_eps)
        inner = ACTIVATIONS[c.hidden_act](linear.forward(weights, f"{layer}.intermediate.dense", x))
        outer = linear.forward(weights, f"{layer}.output.dense", inner)
        return layer_norm.forward(weights, f"{layer}.output.LayerNorm", outer + x, c.layer_norm_eps)


def additive(attention_mask: Tensor) -> Tensor:
    """Return the additive mask: 0 for tokens, the most negative float32 for padding."""
    return multiply(subtract(1.0, astype(attention_mask, "float32")), LOWEST)
