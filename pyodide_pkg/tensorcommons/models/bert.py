"""BERT (Devlin et al., 2018, https://arxiv.org/abs/1810.04805) and what is put on top of it.

A post-norm transformer encoder. With a masked-language-model head it is also SPLADE (Formal et al., 2021,
https://arxiv.org/abs/2107.05720): a weight for every word, ``max over tokens of log(1 + relu(logit))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InvalidWeights
from ..nn import attention, layer_norm, linear, pooling
from ..nn.pooling import Pooling
from ..ops import astype, embedding, log1p, max, multiply, relu, reshape, subtract, tanh
from ..ops import linear as linear_op
from ..shapes import Shape
from ..tensor import Tensor
from .config import ACTIVATIONS, activation, check_heads, read_config
from .folder import Folder
from .names import Names
from .text import TextInputs

LOWEST = -3.4028234663852886e38  # the most negative float32: what `transformers` adds to masked scores


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
    def of(cls, folder: Folder) -> BertConfig:
        """The typed configuration. Raises InvalidWeights for what is missing, wrong, or not built in."""
        config, file = read_config(cls, folder.config, folder.file), folder.file
        check_heads(config.hidden_size, config.num_attention_heads, file)
        activation(config.hidden_act, file)
        if folder.config.get("position_embedding_type", "absolute") != "absolute":
            kind = folder.config["position_embedding_type"]
            raise InvalidWeights(file, f"position_embedding_type {kind!r} is not absolute")
        return config


def build(folder: Folder) -> Bert:
    """A masked language model if the config says so; the pooler if the checkpoint has one."""
    masked_lm = "BertForMaskedLM" in folder.architectures
    pooler = not masked_lm and any(name.endswith("pooler.dense.weight") for name in folder.tensors)
    return Bert(BertConfig.of(folder), masked_lm=masked_lm, pooler=pooler, pooling=folder.pooling)


class Bert:
    """The encoder; with ``masked_lm`` its vocabulary head, with ``pooler`` its [CLS] pooler."""

    names = Names(
        prefixes=("bert.",),
        renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
        tied={
            "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        ignored=(r"embeddings\.position_ids", r"pooler\..*"),
    )

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
        self.inputs = TextInputs(
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            frozenset({"last_hidden_state", "logits"}),
        )

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
