"""The contract of encoder-decoders, and what they have in common: forward, and the steps of generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from .. import dtypes
from ..backends.base import Spec
from ..nn import Embedding, Param, Scope, Weights
from ..ops import equal, reshape, where
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .decoder import KVState
from .encoder import LOWEST
from .weight_mapping import WeightMapping

#: Append keys and values to those of earlier tokens.
Extend: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"


class SourceAttention(Protocol):
    """Attention to an encoder's output."""

    def memory(self, weights: Weights, source: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the keys and values of the source."""


def tables_of(
    folder: Checkpoint, scope: Scope, words: int, size: int
) -> tuple[Sequence[Embedding], Param | None, WeightMapping]:
    """Declare the tables of ``words`` tokens: the shared one, the encoder's and the decoder's.

    As in `transformers`, tables that a file stores beside `shared.weight` are not tied to it. Returns the tables, the
    weight of the vocabulary head if it is tied, and the mapping of the other names to that of the shared table.
    """
    shared, *others = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    own = [name for name in (shared, *others) if folder.has(f"{name}.weight")][1:]
    tables = [Embedding(scope / (name if name in own else shared), words, size) for name in (shared, *others[:2])]
    tied = {f"{name}.weight": f"{shared}.weight" for name in others}
    return tables, None if "lm_head" in own else tables[0].weight, WeightMapping(tied=tied)


class EncoderDecoder(ABC):
    """An encoder-decoder.

    ``crossed`` is the attention to the encoder's output by the name of each decoder layer, ``source`` the name of that
    part of a layer.
    """

    source = "source"
    crossed: Mapping[str, SourceAttention]

    @abstractmethod
    def encode(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the encoder's hidden states, (batch, source, size)."""

    @abstractmethod
    def decode(self, weights: Weights, ids: Tensor, fixed: Mapping[str, Tensor], past: KVState) -> Tensor:
        """Compute the decoder's hidden states, (batch, target, size); ``fixed`` is the result of :meth:`memory`."""

    @abstractmethod
    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs of the head from the decoder's hidden states (batch, target, size)."""

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


class AnswerGenerator(EncoderDecoder):
    """An encoder-decoder with a vocabulary head; ``keys`` are the (heads, head size) of a layer's keys and values."""

    tasks: tuple[str, ...] = ("text2text-generation", "summarization")
    outputs: tuple[str, ...] = ("logits", "encoder_last_hidden_state")
    defaults: tuple[str, ...] = outputs
    keys: tuple[int, int]

    @abstractmethod
    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Compute the scores of words from hidden states: (..., size) -> (..., vocabulary)."""

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        return {"logits": self.logits(weights, hidden)}

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
