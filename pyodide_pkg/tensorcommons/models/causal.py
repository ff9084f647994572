"""Decoder-only models: the vocabulary head, which continues a prompt, and the other heads on the same layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Spec
from ..dtypes import host_array
from ..errors import InvalidWeights, TensorCommonsError, quoted
from ..ops import embedding as rows
from ..ops import linear, reshape
from ..shapes import Shape
from ..tensor import Tensor
from .architecture import Architecture, Prepared
from .checkpoint import Checkpoint
from .decoder import KVState
from .heads import (
    Embedder,
    Head,
    Labels,
    QuestionAnswering,
    TextClassification,
    TokenClassification,
    by_class,
    embedder,
)
from .text import TextInputs
from .text_model import TextModel
from .weight_mapping import WeightMapping


class CausalDecoder(ABC):
    """A decoder with its vocabulary head. ``generation`` are the default options of generation.

    ``layers`` are the names of the attention layers, ``keys`` is the (heads, head size) of their keys and values,
    ``head`` the weight (vocabulary, size) of the vocabulary head.
    """

    start_token: int | None = None
    tasks: tuple[str, ...] = ("text-generation",)
    outputs: tuple[str, ...] = ("logits", "last_hidden_state")
    defaults: tuple[str, ...] = ("logits",)
    config: Any
    model_type: str
    names: WeightMapping
    layers: tuple[str, ...]
    keys: tuple[int, int]
    head: str

    def __init__(self, vocab_size: int, max_length: int, size: int, generation: Mapping[str, Any]) -> None:
        self.vocab_size = vocab_size
        self.size = size
        self.max_length = max_length
        self.generation = generation
        self.inputs = TextInputs(vocab_size, max_length, per_token=frozenset(self.outputs))

    def parameters(self) -> dict[str, Shape]:
        """Return the names (as in a checkpoint, without its prefix) and shapes of the weights."""
        return {**self.body(), self.head: (self.vocab_size, self.size)}

    @abstractmethod
    def body(self) -> dict[str, Shape]:
        """Return the parameters without the vocabulary head's."""

    @abstractmethod
    def hidden(self, weights: Mapping[str, Tensor], ids: Tensor, past: KVState) -> Tensor:
        """Compute the hidden states after the last layer and its norm, (batch, sequence, hidden)."""

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from ``input_ids`` and ``attention_mask``, int32 (batch, sequence)."""
        hidden = self.hidden(weights, inputs["input_ids"], KVState.whole(inputs["input_ids"], inputs["attention_mask"]))
        return {"logits": linear(hidden, weights[self.head]), "last_hidden_state": hidden}

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Return the specs of each layer's keys and values: (batch, key heads, capacity, head size)."""
        heads, size = self.keys
        spec = Spec((batch, heads, capacity, size), dtypes.float32)
        return {f"{layer}.{part}": spec for layer in self.layers for part in ("key", "value")}

    def begin(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return no tensors: there is no encoder."""
        return {}

    def step(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Compute the logits (batch, vocabulary) after the last token of ``inputs["input_ids"]`` (batch, sequence)."""
        return linear(past.last(self.hidden(weights, inputs["input_ids"], past)), weights[self.head])


@dataclass(frozen=True)
class Layers:
    """A decoder without its vocabulary head, as the encoder of a :class:`TextModel`."""

    decoder: CausalDecoder

    @property
    def config(self) -> Any:
        """The decoder's configuration."""
        return self.decoder.config

    def parameters(self) -> dict[str, Shape]:
        """See :meth:`CausalDecoder.body`."""
        return self.decoder.body()

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the hidden states (batch, sequence, hidden); each token attends to earlier ones."""
        ids = inputs["input_ids"]
        return self.decoder.hidden(weights, ids, KVState.whole(ids, inputs["attention_mask"]))


@dataclass(frozen=True)
class LastTokenClassification(TextClassification):
    """A linear layer on each text's last token; ``last_tokens`` (batch,) are their rows in the hidden states."""

    size: int
    labels: Labels
    out: str = "score"

    def parameters(self) -> dict[str, Shape]:
        """Declare a linear layer without a bias."""
        return {f"{self.out}.weight": (len(self.labels.names), self.size)}

    def forward(self, weights: Mapping[str, Tensor], hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`Head`."""
        last = rows(reshape(hidden, (-1, self.size)), inputs["last_tokens"])
        return {"logits": linear(last, weights[f"{self.out}.weight"])}


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
        return super().example((1, 16) if shape is None and self.padding is None else shape)


def with_head(folder: Checkpoint, family: str, decoder: CausalDecoder, language_model: str) -> Architecture:
    """Build the decoder with the head that ``architectures`` names; ``language_model`` is the class of generators.

    Raises:
        UnsupportedModel: the class is not supported.
        InvalidWeights: ``pad_token_id`` or the labels are wrong.
    """
    size = decoder.size
    classifier = "classifier" if family == "GPT2" else "score"
    heads: dict[str, Callable[[], Head | None]] = {
        language_model: lambda: None,
        "Model": lambda: embedder(folder, size),
        "ForSequenceClassification": lambda: LastTokenClassification(size, Labels.of(folder)),
        "ForTokenClassification": lambda: TokenClassification(size, Labels.of(folder), classifier),
        "ForQuestionAnswering": lambda: QuestionAnswering(size),
    }
    head = by_class(folder, family, heads)
    if head is None:
        return decoder
    plain = TextInputs(
        decoder.vocab_size,
        decoder.max_length,
        per_token=frozenset({"last_hidden_state", *head.per_token}),
        pools_apart=not folder.sentence.include_prompt and isinstance(head, Embedder),
    )
    if isinstance(head, LastTokenClassification):
        padding = _padding(folder, family, plain.vocab_size)
        plain = LastTokenInputs(plain.vocab_size, plain.max_length, per_token=plain.per_token, padding=padding)
    return TextModel(decoder.model_type, Layers(decoder), head, decoder.names, plain)


def _padding(folder: Checkpoint, family: str, words: int) -> int | None:
    """Read the padding token of ``config.json``. GPT-2's may be outside the vocabulary, and then occurs in no text."""
    padding = folder.config.get("pad_token_id")
    if padding is not None and type(padding) is not int:
        raise InvalidWeights(folder.file, f"pad_token_id must be null or an integer, not {quoted(padding)}")
    if padding is not None and family != "GPT2" and not -words <= padding < words:
        raise InvalidWeights(folder.file, f"pad_token_id {quoted(padding)} is outside the vocabulary of {words}")
    return padding
