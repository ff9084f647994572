"""An encoder with a head: the architecture of the BERT and ViT families.

The layers of a decoder can be the encoder, too (causal.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from ..nn import Embedding, Manifest, Param, Scope, Weights
from ..tensor import Tensor
from .architecture import Inputs
from .checkpoint import Checkpoint
from .heads import (
    Classes,
    Embedder,
    Head,
    Labels,
    MaskedLM,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
    Words,
    by_class,
)
from .text import TextInputs
from .weight_mapping import WeightMapping


class AnyEncoder(Protocol):
    """An encoder from token ids or pixels to hidden states."""

    config: Any  # the typed configuration
    manifest: dict[str, Param]  # the encoder's parameters by name

    def __call__(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode the inputs to (batch, sequence, hidden)."""


class TextEncoder(AnyEncoder, Protocol):
    """An encoder from token ids; ``words`` is the table of its embeddings."""

    words: Embedding


class EncoderModel:
    """An encoder with a head. The outputs are the head's and ``last_hidden_state`` (batch, sequence, hidden)."""

    def __init__(
        self,
        folder: Checkpoint,
        manifest: Manifest,
        encoder: AnyEncoder,
        head: Head,
        names: WeightMapping,
        inputs: Inputs,
    ) -> None:
        self.model_type = str(folder.config["model_type"])
        self.manifest = manifest
        self.config, self.encoder = encoder.config, encoder
        self.head = head
        self.names = (names, *(WeightMapping(folder=path) for path in head.folders))
        self.inputs = inputs
        self.tasks, self.defaults = head.tasks, head.defaults
        self.outputs = ("last_hidden_state", *head.outputs)

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs by name from ``input_ids``, ``attention_mask`` and so on, or from ``pixel_values``."""
        hidden = self.encoder(weights, inputs)
        return {"last_hidden_state": hidden, **self.head(weights, hidden, inputs)}


def text_model(
    folder: Checkpoint,
    family: str,
    encoder: TextEncoder,
    names: WeightMapping,
    words: Words,
    classes: Classes | Mapping[str, Callable[[Scope], Head]],
    *,
    pooler: str = "",
    counts_from: int | None = None,
    inputs: type[TextInputs] = TextInputs,
) -> EncoderModel:
    """Build ``encoder`` with the head that ``architectures`` names, a class of ``family``.

    ``classes`` are the layers of a classifier of texts, or the heads of labels and answers if they are not BERT's.
    ``pooler`` is the name of the optional pooler of the bare model; ``counts_from`` is the padding token id after which
    positions start (RoBERTa).

    Raises:
        UnsupportedModel: the class is not supported.
    """
    c, size, scope = encoder.config, encoder.config.hidden_size, Scope(dict(encoder.manifest))
    heads: dict[str, Callable[[Scope], Head]] = {
        "Model": lambda scope: Embedder(scope, folder, size, pooler),
        "ForMaskedLM": lambda scope: MaskedLM(scope, folder, c, words, encoder.words.weight),
    }
    if isinstance(classes, Classes):
        heads |= {
            "ForSequenceClassification": lambda scope: SequenceClassification(scope, size, Labels.of(folder), classes),
            "ForTokenClassification": lambda scope: TokenClassification(scope / "classifier", size, Labels.of(folder)),
            "ForQuestionAnswering": lambda scope: QuestionAnswering(scope / "qa_outputs", size),
        }
    else:
        heads |= classes
    head = by_class(folder, family, {name: partial(make, scope) for name, make in heads.items()})
    given = inputs(
        c.vocab_size,
        c.max_position_embeddings - (0 if counts_from is None else counts_from + 1),
        c.type_vocab_size,
        frozenset({"last_hidden_state", *head.per_token}),
        counts_from,
        head.pools_apart,
    )
    return EncoderModel(folder, scope.manifest, encoder, head, names, given)
