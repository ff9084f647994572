"""The contract of encoder-decoders, and what they have in common: forward, and the steps of generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from ..nn import Attention, Embedding, FeedForward, Scope, Weights
from ..ops import arange, equal, expand_dims, reshape, where
from ..tensor import Tensor
from .checkpoint import Checkpoint
from .decoder import Decoder, KVState
from .encoder import LOWEST
from .weight_mapping import WeightMapping

#: Append keys and values to those of earlier tokens.
Extend: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
#: Keys, values and mask of an encoder's output by the name of the decoder layer.
Memory: TypeAlias = "Mapping[str, Sequence[Tensor]]"


class Layer:
    """A layer of the encoder or the decoder: its parts are added to their inputs.

    The parts are attention to the layer's input, in a decoder attention to the encoder's output, and ``feed_forward``.
    Each has a norm, which precedes it with ``norm_first``, and else follows the sum.
    """

    def __init__(
        self,
        attentions: Sequence[Attention],
        norms: Sequence[Callable[[Weights, Tensor], Tensor]],
        feed_forward: FeedForward,
        *,
        norm_first: bool,
    ) -> None:
        self.attentions, self.norms = attentions, norms
        self.feed_forward, self.norm_first = feed_forward, norm_first

    def __call__(self, weights: Weights, x: Tensor, mask: Tensor, extend: Extend, memory: Sequence[Tensor]) -> Tensor:
        """Apply the layer to (batch, sequence, size).

        ``extend`` appends keys and values to a cache; ``memory`` are the keys, values and mask of the encoder's output.
        """
        own = self.attentions[0]

        def to_input(x: Tensor) -> Tensor:
            return own.attend(weights, x, *extend(*own.memory(weights, x)), mask)

        def to_source(x: Tensor) -> Tensor:
            return self.attentions[1].attend(weights, x, *memory)

        parts: list[Callable[[Tensor], Tensor]] = [
            *[to_input, to_source][: len(self.attentions)],
            partial(self.feed_forward, weights),
        ]
        for norm, part in zip(self.norms, parts, strict=True):
            x = x + part(norm(weights, x)) if self.norm_first else norm(weights, x + part(x))
        return x


class Stack(ABC):
    """The embeddings and the layers of the encoder or the decoder; ``layers`` have the names of their caches."""

    layers: Mapping[str, Layer]

    @abstractmethod
    def __call__(self, weights: Weights, ids: Tensor, past: KVState, memory: Memory) -> Tensor:
        """Compute hidden states from ``ids``, int32 (batch, sequence) -> (batch, sequence, size)."""

    def run(self, weights: Weights, x: Tensor, mask: Tensor, past: KVState, memory: Memory) -> Tensor:
        """Apply the layers to the embeddings ``x``."""
        for name, layer in self.layers.items():
            x = layer(weights, x, mask, partial(past.extend, name), memory.get(name, ()))
        return x


class EncoderDecoder(ABC):
    """An encoder-decoder; ``source`` names the attention to the encoder's output in a decoder layer.

    ``tables`` are the embeddings of tokens for the encoder and the decoder, ``tied`` is the weight of the vocabulary
    head if it is that of the shared table. As in `transformers`, tables that a file stores beside `shared.weight` are
    not tied to it.
    """

    source = "source"
    encoder: Stack
    decoder: Stack

    def __init__(self, folder: Checkpoint, words: int, size: int, names: WeightMapping) -> None:
        shared, *others = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
        own = [name for name in (shared, *others) if folder.has(f"{name}.weight")][1:]
        self.scope = scope = Scope({})
        self.manifest = scope.manifest
        first, *self.tables = (
            Embedding(scope / (name if name in own else shared), words, size) for name in (shared, *others[:2])
        )
        self.tied = None if "lm_head" in own else first.weight
        self.names = (replace(names, tied={f"{name}.weight": f"{shared}.weight" for name in others}),)

    @abstractmethod
    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs of the head from the decoder's hidden states (batch, target, size)."""

    def forward(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs from the inputs of :class:`AnswerInputs`, all int32."""
        encoded, target = self.encode(weights, inputs), inputs["decoder_input_ids"]
        fixed = self.memory(weights, encoded, inputs["attention_mask"])
        hidden = self.decode(weights, target, fixed, KVState.whole(target))
        return {**self.results(weights, hidden, inputs), "encoder_last_hidden_state": encoded}

    def encode(self, weights: Weights, inputs: Mapping[str, Tensor]) -> Tensor:
        """Compute the encoder's hidden states, (batch, source, size)."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        positions = expand_dims(arange(ids.shape[1], device=ids.own_device), axis=0)
        counts = reshape(equal(mask, 1), (mask.shape[0], 1, 1, -1))
        return self.encoder(weights, ids, KVState(positions, counts), {})

    def decode(self, weights: Weights, ids: Tensor, fixed: Mapping[str, Tensor], past: KVState) -> Tensor:
        """Compute the decoder's hidden states, (batch, target, size); ``fixed`` is the result of :meth:`memory`."""
        names = {name: (*self._names(name), "mask") for name in self.decoder.layers}
        memory = {name: [fixed[part] for part in parts] for name, parts in names.items()}
        return self.decoder(weights, ids, past, memory)

    def memory(self, weights: Weights, encoded: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compute keys and values of the source for each decoder layer, and the mask (batch, 1, 1, source)."""
        memory: dict[str, Tensor] = {}
        for name, layer in self.decoder.layers.items():
            memory |= zip(self._names(name), layer.attentions[1].memory(weights, encoded), strict=True)
        memory["mask"] = reshape(where(equal(mask, 1), 0.0, LOWEST), (mask.shape[0], 1, 1, -1))
        return memory

    def _names(self, name: str) -> tuple[str, str]:
        return f"{name}.{self.source}.key", f"{name}.{self.source}.value"


class AnswerGenerator(EncoderDecoder, Decoder):
    """An encoder-decoder with a vocabulary head."""

    tasks: tuple[str, ...] = ("text2text-generation", "summarization")
    outputs: tuple[str, ...] = ("logits", "encoder_last_hidden_state")
    defaults: tuple[str, ...] = outputs

    @abstractmethod
    def logits(self, weights: Weights, hidden: Tensor) -> Tensor:
        """Compute the scores of words from hidden states: (..., size) -> (..., vocabulary)."""

    def results(self, weights: Weights, hidden: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`EncoderDecoder`."""
        return {"logits": self.logits(weights, hidden)}

    def begin(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode ``input_ids`` and ``attention_mask``; return the keys and values for each decoder layer."""
        return self.memory(weights, self.encode(weights, inputs), inputs["attention_mask"])

    def step(
        self, weights: Weights, inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """See :class:`Decoder`."""
        return self.logits(weights, past.last(self.decode(weights, inputs["input_ids"], fixed, past)))
