"""From one vector a token to one vector a text."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import astype, divide, maximum, multiply, reshape, sqrt, sum
from ..tensor import Tensor


def cls(hidden: Tensor) -> Tensor:
    """The first token's vector: (batch, sequence, hidden) -> (batch, hidden)."""
    return hidden[:, 0]


def mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the tokens that are no padding: (batch, sequence, hidden) -> (batch, hidden)."""
    mask = reshape(astype(attention_mask, "float32"), (*attention_mask.shape, 1))
    return divide(sum(multiply(hidden, mask), axis=1), maximum(sum(mask, axis=1), 1e-9))


def normalize(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm, which counts as at least 1e-12."""
    return divide(x, maximum(sqrt(sum(multiply(x, x), axis=-1, keepdims=True)), 1e-12))


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one sentence vector: ``mode`` is "mean" or "cls"; ``normalize`` gives it length 1."""

    mode: str = "mean"
    normalize: bool = True

    def __call__(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, sequence, hidden) -> (batch, hidden)."""
        pooled = cls(hidden) if self.mode == "cls" else mean(hidden, attention_mask)
        return normalize(pooled) if self.normalize else pooled
