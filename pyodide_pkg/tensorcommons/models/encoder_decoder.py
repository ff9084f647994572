"""The contract of encoder-decoders, and what they have in common: forward, and the steps of generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from .. import dtypes
from ..backends.base import Spec
from ..nn import Weights
from ..ops import equal, reshape, where
from ..tensor import Tensor
from .decoder import KVState
from .encoder import LOWEST

#: Append keys and values to those of earlier tokens.
Extend: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"


class SourceAttention(Protocol):
    """Attention to an encoder's output."""

    def memory(self, weights: Weights, source: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the keys and values of the source."""


class EncoderDecoder(ABC):
    """An encoder-decoder with a vocabulary head.

    ``crossed`` is the attention to the encoder's output by the name of each decoder layer, ``source`` the name of that
    part of a layer; ``keys`` are the (heads, head size) of the layers' own keys and values.
    """

    tasks: tuple[str, ...] = ("text2text-generation", "summarization")
    outputs: tuple[str, ...] = ("logits", "encoder_last_hidden_state")
    defaults: tuple[str, ...] = outputs
    source = "source"
    crossed: Mapping[str, SourceAttention]
    keys: tuple[int, int]

    @abstractmethod
    def encode(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the encoder's hidden states, (batch, source, size)."""

    @abstractmethod
    def decode(self, weights: Weights, ids: Tensor, fixed: Mapping[str, Tensor], past: KVState) -> Tensor:
        """Compute the decoder's hidden states, (batch, target, size); ``fixed`` is the result of :meth:`memory`."""

    @abstractmethod
    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Compute the scores of words from hidden states: (..., size) -> (..., vocabulary)."""

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs of the head from the decoder's hidden states (batch, target, size)."""
        return {"logits": self.logits(weights, hidden)}

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from the inputs of :class:`AnswerInputs`, all int32."""
        encoded, target = self.encode(weights, inputs), inputs["decoder_input_ids"]
        fixed = self.memory(weights, encoded, inputs["attention_mask"])
        hidden = self.decode(weights, target, fixed, KVState.whole(target))
        return {**self.results(weights, hidden, inputs), "encoder_last_hidden_state": encoded}

    def memory(self, weights: Weights, encoded: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compute keys and values of the source for each decoder layer, and the mask (batch, 1, 1, source)."""
        memory: dict[str, Tensor] = {}
        for name, attention in self.crossed.items():
            memory |= zip(self._names(name), attention.memory(weights, encoded), strict=True)
        memory["mask"] = reshape(where(equal(mask, 1), 0.0, LOWEST), (mask.shape[0], 1, 1, -1))
        return memory

    def memory_of(self, fixed: Mapping[str, Tensor], name: str) -> Sequence[Tensor]:
        """Return the keys, values and mask of the source for the decoder layer ``name`` from :meth:`memory`."""
        return [*(fixed[each] for each in self._names(name)), fixed["mask"]]

    def _names(self, name: str) -> tuple[str, str]:
        return f"{name}.{self.source}.key", f"{name}.{self.source}.value"

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Return the specs of the decoder's own keys and values: (batch, heads, capacity, head size)."""
        heads, size = self.keys
        spec = Spec((batch, heads, capacity, size), dtypes.float32)
        return {f"{name}.{part}": spec for name in self.crossed for part in ("key", "value")}

    def begin(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode ``input_ids`` and ``attention_mask``; return the keys and values for each decoder layer."""
        return self.memory(weights, self.encode(weights, inputs), inputs["attention_mask"])

    def step(
        self, weights: Weights, inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Compute the logits (batch, vocabulary) after the last token of ``inputs["input_ids"]`` (batch, sequence)."""
        return self.logits(weights, past.last(self.decode(weights, inputs["input_ids"], fixed, past)))
