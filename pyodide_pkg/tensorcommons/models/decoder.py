"""The contract of decoders: keys and values of earlier tokens, and the attention mask.

A decoder's layers are written once. In a plain forward, a layer attends to the keys that it has just computed. In
generation, the keys and values of earlier tokens are in a cache on the device, and new ones are appended to it.

A cache has ``capacity`` slots, one for each token. The rows of a batch end at the same slot: a shorter prompt is padded
on the left, and its positions count from its first token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from .. import dtypes
from ..backends.base import Spec
from ..backends.select import MATRICES, ROW
from ..nn import Weights
from ..ops import (
    arange,
    equal,
    expand_dims,
    greater_equal,
    kv_cache_append,
    less_equal,
    logical_and,
    logical_or,
    maximum,
    reshape,
    subtract,
    take,
)
from ..tensor import Tensor


class KVState:
    """Keys, values and mask for the attention of one forward.

    ``positions`` (batch, sequence) int32 are the tokens' positions in their texts, ``slots`` (sequence,) their slots in
    the cache. ``mask`` (batch, 1, sequence, keys) is true where a token attends to a key. ``cache`` holds keys and
    values by name before this forward, ``grown`` those after it.
    """

    def __init__(
        self,
        slots: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Mapping[str, Tensor] | None = None,
        filled: Tensor | None = None,
        end: Tensor | None = None,
    ) -> None:
        self.slots = slots
        self.positions = positions
        self.mask = mask
        self.cache = cache or {}
        self.filled = filled
        self.end = end
        self.grown: dict[str, Tensor] = {}

    @classmethod
    def whole(cls, ids: Tensor, attention_mask: Tensor | None = None) -> KVState:
        """Create the state for all tokens of ``ids`` (batch, sequence) at once, at positions 0, 1, 2, ..."""
        sequence = ids.shape[1]
        slots = arange(sequence, device=ids.device)
        counts = None if attention_mask is None else reshape(equal(attention_mask, 1), (-1, 1, 1, sequence))
        return cls(slots, expand_dims(slots, axis=0), _visible(slots, slots, counts))

    @classmethod
    def stepwise(cls, inputs: Mapping[str, Tensor], cache: Mapping[str, Tensor]) -> KVState:
        """Create the state for the tokens after ``inputs["filled"]`` slots.

        The rows begin at the slots ``inputs["start"]`` (batch,). The first ``inputs["count"]`` columns of
        ``inputs["input_ids"]`` are tokens; the others are padding, whose slots the next step overwrites.
        """
        sequence, capacity = inputs["input_ids"].shape[1], next(iter(cache.values())).shape[2]
        slots = arange(sequence) + inputs["filled"]  # (sequence,)
        start = reshape(inputs["start"], (-1, 1))
        positions = maximum(subtract(expand_dims(slots, axis=0), start), 0)
        keys = arange(capacity)
        counts = reshape(greater_equal(expand_dims(keys, axis=0), start), (-1, 1, 1, capacity))
        return cls(slots, positions, _visible(slots, keys, counts), cache, inputs["filled"], inputs["count"])

    def extend(self, name: str, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``key`` and ``value`` (batch, heads, sequence, head_dim) to the cache of the layer ``name``.

        Returns all keys and values of the layer.
        """
        if self.filled is None:
            return key, value
        for part, new in ((f"{name}.key", key), (f"{name}.value", value)):
            self.grown[part] = kv_cache_append(self.cache[part], new, self.filled)
        return self.grown[f"{name}.key"], self.grown[f"{name}.value"]

    def within(self, window: int) -> Tensor:
        """Return ``mask`` without the keys that are ``window`` slots before a token or more; 0 removes none.

        The cache keeps the keys and values that no window reaches any more.
        """
        if not window or window >= self.mask.shape[3]:
            return self.mask
        keys = reshape(arange(self.mask.shape[3]), (1, 1, 1, -1))
        return logical_and(self.mask, greater_equal(keys, reshape(self.slots - (window - 1), (1, 1, -1, 1))))

    def last(self, hidden: Tensor) -> Tensor:
        """Return the hidden state of the last token: (batch, sequence, hidden) -> (batch, hidden)."""
        if hidden.shape[1] > 1 and self.end is not None:
            hidden = take(hidden, self.end - 1, 1)
        return hidden[:, -1]


def _visible(slots: Tensor, keys: Tensor, counts: Tensor | None) -> Tensor:
    """Build the causal mask. Padding attends to itself, since attention over no keys is NaN."""
    own, other = reshape(slots, (1, 1, -1, 1)), reshape(keys, (1, 1, 1, -1))
    before = less_equal(other, own)
    return before if counts is None else logical_and(before, logical_or(counts, equal(other, own)))


def product_of(architecture: object) -> str:
    """Return the product that a model's time consists of, by which "auto" chooses its device."""
    return ROW if isinstance(architecture, Decoder) else MATRICES


class Decoder(ABC):
    """An architecture that generates text: the members that it has beside those of :class:`Architecture`.

    ``cached`` are the names of the layers with a cache, ``keys`` is the (heads, head size) of their keys and values.
    """

    vocab_size: int
    max_length: int  # of the cache, in tokens
    start_token: int | None = None  # first token of an encoder-decoder's output; None: it continues the prompt
    generation: Mapping[str, Any]  # default options, from ``generation_config.json`` or ``config.json``
    cached: Sequence[str]
    keys: tuple[int, int]

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Return the specs of each layer's keys and values by name: (batch, heads, capacity, head size)."""
        heads, size = self.keys
        spec = Spec((batch, heads, capacity, size), dtypes.float32)
        return {f"{layer}.{part}": spec for layer in self.cached for part in ("key", "value")}

    def begin(self, weights: Weights, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the tensors that all steps of a generation read: the output of an encoder, if there is one."""
        return {}

    @abstractmethod
    def step(
        self, weights: Weights, inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Compute the logits (batch, vocabulary) after the last token of ``inputs["input_ids"]`` (batch, sequence)."""
