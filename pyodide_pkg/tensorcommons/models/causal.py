"""Decoder-only models: the vocabulary head, which continues a prompt, and the other heads on the same layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..dtypes import host_array
from ..errors import InvalidWeights, TensorCommonsError, quoted
from ..nn import Embedding, Linear, Scope, Weights
from ..ops import divide, multiply, reshape, tanh
from ..ops import embedding as rows
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Architecture, Prepared
from .checkpoint import Checkpoint
from .decoder import Decoder, KVState
from .encoder_model import EncoderModel
from .heads import Embedder, Head, Labels, QuestionAnswering, TokenClassification, by_class
from .text import TextInputs, first_shape
from .weight_mapping import WeightMapping


class CausalDecoder(ABC):
    """The layers of a decoder, without a head. They can be the encoder of a :class:`EncoderModel`, too.

    ``words`` is the table of the embeddings, with the prefix ``embeddings`` and the shape ``table``. ``cached`` are the
    names of the attention layers, ``keys`` is the (heads, head size) of their keys and values. ``prefixes`` are those
    of names in checkpoints. ``cap`` limits the logits to -cap to cap, smoothly; 0 does not.
    """

    cap = 0.0
    prefixes: tuple[str, ...]
    cached: tuple[str, ...]
    keys: tuple[int, int]

    def __init__(self, config: Any, embeddings: str, table: tuple[int, int], max_length: int) -> None:
        self.config = config
        self.vocab_size, self.size = table
        self.max_length = max_length
        self.scope = Scope({})
        self.manifest = self.scope.manifest
        self.words = Embedding(self.scope / embeddings, *table)
        tied = {"lm_head.weight": self.words.weight.name} if config.tie_word_embeddings else {}
        self.names = WeightMapping(prefixes=self.prefixes, tied=tied)

    @abstractmethod
    def hidden(self, weights: Weights, ids: Tensor, past: KVState) -> Tensor:
        """Compute the hidden states after the last layer and its norm, (batch, sequence, hidden)."""

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the hidden states (batch, sequence, hidden); each token attends to earlier ones."""
        ids = inputs["input_ids"]
        return self.hidden(weights, ids, KVState.whole(ids, inputs["attention_mask"]))


class CausalLM(Decoder):
    """A decoder with its vocabulary head."""

    tasks: tuple[str, ...] = ("text-generation",)
    outputs: tuple[str, ...] = ("logits", "last_hidden_state")
    defaults: tuple[str, ...] = ("logits",)

    def __init__(self, folder: Checkpoint, decoder: CausalDecoder) -> None:
        self.model_type = str(folder.config["model_type"])
        self.config, self.names = decoder.config, (decoder.names,)
        self.vocab_size, self.max_length = decoder.vocab_size, decoder.max_length
        self.generation = folder.generation_defaults
        self.cached, self.keys = decoder.cached, decoder.keys
        self.inputs = TextInputs(self.vocab_size, self.max_length, per_token=frozenset(self.outputs))
        self.decoder = decoder
        scope = Scope(dict(decoder.manifest))
        self.manifest = scope.manifest
        tied = folder.ties("lm_head.weight", decoder.words.weight, tied=self.config.tie_word_embeddings)
        self.head = Linear(scope / "lm_head", decoder.size, self.vocab_size, bias=False, weight=tied)
        self.cap = decoder.cap

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from ``input_ids`` and ``attention_mask``, int32 (batch, sequence)."""
        hidden = self.decoder(weights, inputs)
        return {"logits": self.logits(weights, hidden), "last_hidden_state": hidden}

    def step(
        self, weights: Weights, inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """See :class:`Decoder`."""
        return self.logits(weights, past.last(self.decoder.hidden(weights, inputs["input_ids"], past)))

    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Compute the logits of hidden states (..., hidden): (..., words)."""
        logits = self.head(weights, hidden)
        return multiply(tanh(divide(logits, self.cap)), self.cap) if self.cap else logits


class LastTokenClassification(Head):
    """A linear layer on each text's last token; ``last_tokens`` (batch,) are their rows in the hidden states."""

    def __init__(self, scope: Scope, size: int, labels: Labels) -> None:
        self.labels = labels
        self.out = Linear(scope, size, len(labels.names), bias=False)

    def __call__(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        last = rows(reshape(hidden, (-1, hidden.shape[2])), inputs["last_tokens"])
        return {"logits": self.out(weights, last)}


@dataclass(frozen=True)
class LastTokenInputs(TextInputs):
    """Adds ``last_tokens`` to the forward's inputs: the last token of each text that is not ``padding``.

    As in `transformers`, it is the last column if there is no padding token, and a call then takes one text.
    """

    padding: int | None = None

    @property
    def one_text(self) -> bool:
        """True if a call takes only one text."""
        return self.padding is None

    def prepare(self, inputs: Mapping[str, Any], model: str) -> Prepared:
        """See :class:`TextInputs`."""
        prepared = super().prepare(inputs, model)
        ids, columns = host_array(inputs["input_ids"]), prepared.arrays["input_ids"].shape[1]
        if self.padding is None and len(ids) > 1:
            raise TensorCommonsError(
                f"{model} has no pad_token_id, so the ends of {len(ids)} texts are unknown: pass one text at a time"
            )
        last = np.full(len(ids), ids.shape[1] - 1)
        if self.padding is not None:
            last = (np.arange(ids.shape[1]) * (ids != self.padding)).argmax(axis=1)
        places = (np.arange(len(ids)) * columns + last).astype(np.int32)
        return replace(prepared, arrays={**prepared.arrays, "last_tokens": places})

    def example(self, shape: Shape | None = None) -> Mapping[str, Any]:
        """See :class:`TextInputs`."""
        if shape is None and self.padding is None:
            shape = 1, first_shape(self.max_length)[1]
        return super().example(shape)


def with_head(
    folder: Checkpoint,
    family: str,
    decoder: CausalDecoder,
    language_model: str,
    classes: Mapping[str, str] | None = None,
) -> Architecture:
    """Build the decoder with the head that ``architectures`` names; ``language_model`` is the class of generators.

    ``classes`` are the family's other names of heads, and those that it has; by default all under their own names.

    Raises:
        UnsupportedModel: the class is not supported.
        InvalidWeights: ``pad_token_id`` or the labels are wrong.
    """
    size, scope = decoder.size, Scope(dict(decoder.manifest))
    classifier = scope / ("classifier" if family == "GPT2" else "score")
    heads: dict[str, Callable[[], Head | None]] = {
        language_model: lambda: None,
        "Model": lambda: Embedder(scope, folder, size),
        "ForSequenceClassification": lambda: LastTokenClassification(scope / "score", size, Labels.of(folder)),
        "ForTokenClassification": lambda: TokenClassification(classifier, size, Labels.of(folder)),
        "ForQuestionAnswering": lambda: QuestionAnswering(scope / "qa_outputs", size),
    }
    if classes is not None:
        heads = {theirs: heads[ours] for theirs, ours in classes.items()}
    head = by_class(folder, family, heads)
    if head is None:
        return CausalLM(folder, decoder)
    words, per_token = decoder.vocab_size, frozenset({"last_hidden_state", *head.per_token})
    inputs = TextInputs(words, decoder.max_length, per_token=per_token, pools_apart=head.pools_apart)
    if isinstance(head, LastTokenClassification):
        padding = _padding(folder, family, words)
        inputs = LastTokenInputs(words, decoder.max_length, per_token=per_token, padding=padding)
    return EncoderModel(folder, scope.manifest, decoder, head, decoder.names, inputs)


def _padding(folder: Checkpoint, family: str, words: int) -> int | None:
    """Read the padding token of ``config.json``. GPT-2's may be outside the vocabulary, and then occurs in no text."""
    padding = folder.config.get("pad_token_id")
    if padding is not None and type(padding) is not int:
        raise InvalidWeights(folder.file, f"pad_token_id must be null or an integer, not {quoted(padding)}")
    if padding is not None and family != "GPT2" and not -words <= padding < words:
        raise InvalidWeights(folder.file, f"pad_token_id {quoted(padding)} is outside the vocabulary of {words}")
    return padding
