"""Shared by decoders: keys and values of the tokens so far, and the attention mask.

A decoder's layers are written once. Seen whole (a plain forward), a layer attends to the keys that it has just
computed; step by step (generation), those of earlier tokens lie in a cache on the device, and new ones are put behind
them.

A cache has ``capacity`` slots, one a token. Rows of a batch end together: a shorter prompt begins at a later slot
(padding on its left), and counts its positions from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ..backends.base import Spec
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
    """Keys, values and mask for attention, in one forward.

    ``positions`` (batch, sequence) int32 are the tokens' places in their texts, ``slots`` (sequence,) those among the
    keys, ``mask`` (batch, 1, sequence, keys) says who sees whom. ``cache`` holds keys and values before this forward by
    name, and ``grown`` those after it.
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
        """Every token of ``ids`` (batch, sequence) at once, at positions 0, 1, 2, ..."""
        sequence = ids.shape[1]
        slots = arange(sequence, device=ids.device)
        counts = None if attention_mask is None else reshape(equal(attention_mask, 1), (-1, 1, 1, sequence))
        return cls(slots, expand_dims(slots, axis=0), _visible(slots, slots, counts))

    @classmethod
    def stepwise(cls, inputs: Mapping[str, Tensor], cache: Mapping[str, Tensor]) -> KVState:
        """The next tokens after ``inputs["filled"]`` slots; rows begin at the slots ``inputs["start"]`` (batch,).

        Of ``inputs["input_ids"]`` the first ``inputs["count"]`` columns are tokens. What is behind them is padding, and
        the next step puts its tokens into their slots.
        """
        sequence, capacity = inputs["input_ids"].shape[1], next(iter(cache.values())).shape[2]
        slots = arange(sequence) + inputs["filled"]  # (sequence,)
        start = reshape(inputs["start"], (-1, 1))
        positions = maximum(subtract(expand_dims(slots, axis=0), start), 0)
        keys = arange(capacity)
        counts = reshape(greater_equal(expand_dims(keys, axis=0), start), (-1, 1, 1, capacity))
        return cls(slots, positions, _visible(slots, keys, counts), cache, inputs["filled"], inputs["count"])

    def extend(self, name: str, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of the layer ``name``, given those of this forward (batch, heads, sequence, head_dim)."""
        if self.filled is None:
            return key, value
        for part, new in ((f"{name}.key", key), (f"{name}.value", value)):
            self.grown[part] = kv_cache_append(self.cache[part], new, self.filled)
        return self.grown[f"{name}.key"], self.grown[f"{name}.value"]

    def last(self, hidden: Tensor) -> Tensor:
        """The row of the last token: (batch, sequence, hidden) -> (batch, hidden)."""
        if hidden.shape[1] > 1 and self.end is not None:
            hidden = take(hidden, self.end - 1, 1)
        return hidden[:, -1]


def _visible(slots: Tensor, keys: Tensor, counts: Tensor | None) -> Tensor:
    """Keys that count, up to one's own; padding sees itself, since attention to nothing is no number."""
    own, other = reshape(slots, (1, 1, -1, 1)), reshape(keys, (1, 1, 1, -1))
    before = less_equal(other, own)
    return before if counts is None else logical_and(before, logical_or(counts, equal(other, own)))


@runtime_checkable
class Decoder(Protocol):
    """An architecture that generates: methods beside those of every architecture."""

    vocab_size: int
    max_length: int  # of the cache, in tokens
    start_token: int | None  # what an encoder-decoder's answer begins with; None: the prompt is what is gone on with
    generation: Mapping[str, Any]  # default options: what ``config.json`` and ``generation_config.json`` say

    def cache(self, batch: int, capacity: int) -> dict[str, Spec]:
        """Keys and values of each layer, by name: (batch, heads, capacity, head_dim)."""
        ...

    def begin(self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the values that all steps of a generation read and none changes: none, or an encoder's answer."""
        ...

    def step(
        self, weights: Mapping[str, Tensor], inputs: Mapping[str, Tensor], fixed: Mapping[str, Tensor], past: KVState
    ) -> Tensor:
        """Logits (batch, vocabulary) after the last token of ``inputs["input_ids"]``, which ``past`` places."""
        ...
