"""Pool the vectors of tokens to one vector for each text.

The modes are those of sentence-transformers; padding, which may be on either side, is ignored.
"""

from __future__ import annotations

from collections.abc import Callable

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
    """Return the first token's vector: (batch, sequence, hidden) -> (batch, hidden)."""
    return hidden[:, 0]


def mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean over the tokens without padding: (batch, sequence, hidden) -> (batch, hidden)."""
    mask = _column(attention_mask)
    return divide(sum(multiply(hidden, mask), axis=1), maximum(sum(mask, axis=1), 1e-9))


def mean_sqrt_len(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the sum over the tokens without padding, divided by the square root of their number."""
    mask = _column(attention_mask)
    return divide(sum(multiply(hidden, mask), axis=1), sqrt(maximum(sum(mask, axis=1), 1e-9)))


def weighted_mean(hidden: Tensor, attention_mask: Tensor, counted: Tensor | None = None) -> Tensor:
    """Return the mean with weights 1, 2, 3, ... by position (Muennighoff, 2022, https://arxiv.org/abs/2202.08904).

    ``counted`` is the mask whose first token has weight 1, if ``attention_mask`` excludes some of its tokens.
    """
    first = expand_dims(argmax(attention_mask if counted is None else counted, axis=1), axis=1)
    places = subtract(expand_dims(arange(1, hidden.shape[1] + 1), axis=0), first)
    weights = _column(multiply(places, attention_mask))
    return divide(sum(multiply(hidden, weights), axis=1), maximum(sum(weights, axis=1), 1e-9))


def largest(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return elementwise maxima over the tokens without padding: (batch, sequence, hidden) -> (batch, hidden)."""
    padding = subtract(1.0, _column(attention_mask))
    return max(subtract(hidden, multiply(padding, 1e9)), axis=1)


def first_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the vector of the first token that is not padding."""
    return token_at(hidden, argmax(attention_mask, axis=1))


def last_token(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the vector of the last token that is not padding."""
    places = expand_dims(arange(1, hidden.shape[1] + 1), axis=0)
    return token_at(hidden, argmax(multiply(places, attention_mask), axis=1))


def normalize(x: Tensor) -> Tensor:
    """Divide each row by its L2 norm, clamped to at least 1e-12."""
    return divide(x, maximum(sqrt(sum(multiply(x, x), axis=-1, keepdims=True)), 1e-12))


def _column(mask: Tensor) -> Tensor:
    """Convert a mask (batch, sequence) -> float32 (batch, sequence, 1)."""
    return reshape(astype(mask, "float32"), (*mask.shape, 1))


def token_at(hidden: Tensor, places: Tensor) -> Tensor:
    """Select one vector of each row: (batch, sequence, hidden), (batch,) -> (batch, hidden)."""
    batch, sequence, size = hidden.shape
    return embedding(reshape(hidden, (batch * sequence, size)), places + arange(batch) * sequence)


MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # in the order in which several are concatenated
    "cls": first_token,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last_token,
}
