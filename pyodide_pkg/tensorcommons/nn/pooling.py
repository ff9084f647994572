"""From one vector a token to one vector a text.

The modes are those of sentence-transformers; padding, which may stand on either side, does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ops import (
    arange,
    argmax,
    astype,
    divide,
    embedding,
    expand_dims,
    max,
    maximum,
    multiply,
    reshape,
    sqrt,
    subtract,
    sum,
)
from ..tensor import Tensor


def cls(hidden: Tensor) -> Tensor:
    """The first token's vector: (batch, sequence, hidden) -> (batch, hidden)."""
    return hidden[:, 0]


def mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the tokens that are not padding: (batch, sequence, hidden) -> (batch, hidden)."""
    mask = _column(attention_mask)
    return divide(sum(multiply(hidden, mask), axis=1), maximum(sum(mask, axis=1), 1e-9))


def mean_sqrt_len(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The sum over the tokens that are not padding, divided by the square root of their number."""
    mask = _column(attention_mask)
    return divide(sum(multiply(hidden, mask), axis=1), sqrt(maximum(sum(mask, axis=1), 1e-9)))


def weighted_mean(hidden: Tensor, attention_mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """The mean with weights 1, 2, 3, ... from the first token on (Muennighoff, 2022, https://arxiv.org/abs/2202.08904).

    ``counted`` is the mask whose first token has weight 1, where ``attention_mask`` leaves tokens out.
    """
    first = expand_dims(argmax(attention_mask if counted is None else counted, axis=1), axis=1)
    places = subtract(expand_dims(arange(1, hidden.shape[1] + 1), axis=0), first)
    weights = _column(multiply(places, attention_mask))
    return divide(sum(multiply(hidden, weights), axis=1), maximum(sum(weights, axis=1), 1e-9))


def largest(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The largest of each element over tokens that are not padding: (batch, sequence, hidden) -> (batch, hidden)."""
    padding = subtract(1.0, _column(attention_mask))
    return max(subtract(hidden, multiply(padding, 1e9)), axis=1)


def first_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The vector of the first token that is not padding."""
    return _picked(hidden, argmax(attention_mask, axis=1))


def last_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The vector of the last token that is not padding."""
    places = expand_dims(arange(1, hidden.shape[1] + 1), axis=0)
    return _picked(hidden, argmax(multiply(places, attention_mask), axis=1))


def normalize(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm, which counts as at least 1e-12."""
    return divide(x, maximum(sqrt(sum(multiply(x, x), axis=-1, keepdims=True)), 1e-12))


def _column(mask: Tensor) -> Tensor:
    """(batch, sequence) -> float32 (batch, sequence, 1)."""
    return reshape(astype(mask, "float32"), (*mask.shape, 1))


def _picked(hidden: Tensor, places: Tensor) -> Tensor:
    """The vector at one place of each row: (batch, sequence, hidden), (batch,) -> (batch, hidden)."""
    batch, sequence, size = hidden.shape
    return embedding(reshape(hidden, (batch * sequence, size)), places + arange(batch) * sequence)


MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # in the order in which several are put together
    "cls": first_token,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last_token,
}


@dataclass(frozen=True)
class Pooling:
    """Pool token vectors to one sentence vector, by a ``mode`` of MODES; ``normalize`` gives it length 1."""

    mode: str = "mean"
    normalize: bool = True

    def __call__(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, sequence, hidden) -> (batch, hidden)."""
        pooled = MODES[self.mode](hidden, attention_mask)
        return normalize(pooled) if self.normalize else pooled
