"""What decoders without an encoder have in common: a prompt is gone on with, each token sees those before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from .. import dtypes
from ..backends.base import Spec
from ..ops import linear
from ..shapes import Shape
from ..tensor import Tensor
from .decoder import Past
from .names import Names
from .text import TextInputs


class CausalDecoder(ABC):
    """A decoder with its vocabulary head. ``generation`` are default options for writing.

    ``layers`` names those that attend, ``keys`` is the (heads, head size) of what each keeps of a token, ``head`` the
    weight (vocabulary, hidden) that makes logits.
    """

    start_token: int | None = None
    tasks: tuple[str, ...] = ("text-generation",)
    outputs: tuple[str, ...] = ("logits", "last_hidden_state")
    defaults: tuple[str, ...] = ("logits",)
    config: Any
    model_type: str
    names: Names
    layers: tuple[str, ...]
    keys: tuple[int, int]
    head: str

    def __init__(self, vocab_size: int, max_length: int, generation: Mapping[str, Any]) -> None:
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.generation = generation
        self.inputs = TextInputs(vocab_size, max_length, per_token=frozenset(self.outputs))

    @abstractmethod
    def parameters(self) -> dict[str, Shape]:
        """Names as in a checkpoint, without its prefix."""

    @abstractmethod
    def hidden(self, weights: Mapping[str, Tensor], ids: Tensor, past: Past) -> Tensor:
        """The hidden states after the last layer and its norm, (batch, sequence, hidden)."""

    def forward(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` are int32 (batch, sequence); positions are 0, 1, 2, ..."""
        hidden = self.hidden(weights, inputs["input_ids"], Past.whole(inputs["input_ids"], inputs["attention_mask"]))
        return {"logits": linear(hidden, weights[self.head]), "last_hidden_state": hidden}

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Keys and values of each layer: (batch, key heads, capacity, head size)."""
        heads, size = self.keys
        spec = Spec((batch, heads, capacity, size), dtypes.float32)
        return {f"{layer}.{part}": spec for layer in self.layers for part in ("key", "value")}

    def begin(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Nothing: there is no encoder."""
        return {}

    def step(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: Past
    ) -> Tensor:
        """Logits (batch, vocabulary) after the last token of ``inputs["input_ids"]`` (batch, sequence)."""
        return linear(past.last(self.hidden(weights, inputs["input_ids"], past)), weights[self.head])
