"""An encoder of token ids with a head: the architecture of the BERT family.

The layers of a decoder can be the encoder, too (causal.py).
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
    """An encoder from token ids to hidden states."""

    @property
    def config(self) -> Any:
        """The typed configuration."""

    def parameters(self) -> dict[str, Shape]:
        """Return the names and shapes of the weights."""

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Encode ``input_ids`` and the other inputs, int32 (batch, sequence) -> (batch, sequence, hidden)."""


class TextModel:
    """An encoder with a head. The outputs are the head's and ``last_hidden_state`` (batch, sequence, hidden)."""

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
        """The encoder's configuration."""
        return self.encoder.config

    def parameters(self) -> dict[str, Shape]:
        """Return the parameters of the encoder and of the head."""
        return self.encoder.parameters() | self.head.parameters()

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs by name from ``input_ids``, ``attention_mask`` and so on, int32 (batch, sequence)."""
        hidden = self.encoder.forward(weights, inputs)
        return {"last_hidden_state": hidden, **self.head.forward(weights, hidden, inputs)}


def text_inputs(config: EncoderConfig, head: Head, *, counts_from: int | None = None) -> TextInputs:
    """Declare the inputs of a model; ``counts_from`` is the padding token id after which positions start (RoBERTa)."""
    return TextInputs(
        config.vocab_size,
        config.max_position_embeddings - (0 if counts_from is None else counts_from + 1),
        config.type_vocab_size,
        frozenset({"last_hidden_state", *head.per_token}),
        counts_from,
        isinstance(head, Embedder) and not head.sentence.include_prompt,
    )
