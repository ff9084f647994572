"""An encoder of token ids with a head: the architecture that all files of the BERT family build.

A decoder's layers are such an encoder, too (causal.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..shapes import Shape
from ..tensor import Tensor
from .encoder import EncoderConfig
from .heads import Embedder, Head
from .text import TextInputs
from .weight_mapping import WeightMapping


class TextEncoder(Protocol):
    """Token ids to hidden states."""

    @property
    def config(self) -> Any:
        """Its typed configuration."""
        ...

    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of its weights."""
        ...

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """``input_ids`` and the other inputs, int32 (batch, sequence) -> (batch, sequence, hidden)."""
        ...


class TextModel:
    """Every head also gives ``last_hidden_state`` (batch, sequence, hidden), and what it was made from."""

    def __init__(
        self, model_type: str, encoder: TextEncoder, head: Head, names: WeightMapping, inputs: TextInputs
    ) -> None:
        self.model_type = model_type
        self.encoder = encoder
        self.head = head
        self.names = names
        self.inputs = inputs
        self.tasks = head.tasks
        self.outputs = ("last_hidden_state", *head.outputs)
        self.defaults = head.defaults

    @property
    def config(self) -> Any:
        """The encoder's."""
        return self.encoder.config

    def parameters(self) -> dict[str, Shape]:
        """The encoder's and the head's."""
        return self.encoder.parameters() | self.head.parameters()

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and so on, int32 (batch, sequence) -> the outputs by name."""
        hidden = self.encoder.forward(weights, inputs)
        return {"last_hidden_state": hidden, **self.head.forward(weights, hidden, inputs)}


def text_inputs(config: EncoderConfig, head: Head, *, counts_from: int | None = None) -> TextInputs:
    """The inputs of the model; ``counts_from`` is the padding id behind which positions count (RoBERTa)."""
    return TextInputs(
        config.vocab_size,
        config.max_position_embeddings - (0 if counts_from is None else counts_from + 1),
        config.type_vocab_size,
        frozenset({"last_hidden_state", *head.per_token}),
        counts_from,
        isinstance(head, Embedder) and not head.sentence.include_prompt,
    )
