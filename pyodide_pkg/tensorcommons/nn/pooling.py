"""From one vector a token to one vector a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..ops import astype, divide, max, maximum, multiply, reshape, sqrt, subtract, sum
from ..tensor import Tensor


def cls(hidden: Tensor) -> Tensor:
    """The first token's vector: (batch, sequence, hidden) -> (batch, hidden)."""
    return hidden[:, 0]


def mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean over the tokens that are no padding: (batch, sequence, hidden) -> (batch, hidden)."""
    mask = reshape(astype(attention_mask, "float32"), (*attention_mask.shape, 1))
    return divide(sum(multiply(hidden, mask), axis=1), maximum(sum(mask, axis=1), 1e-9))


def largest(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The largest of each element over the tokens that are no padding: (batch, sequence, hidden) -> (batch, hidden)."""
    padding = reshape(subtract(1.0, astype(attention_mask, "float32")), (*attention_mask.shape, 1))
    return max(subtract(hidden, multiply(padding, 1e9)), axis=1)


def normalize(x: Tensor) -> Tensor:
    """Each row divided by its L2 norm, which counts as at least 1e-12."""
    return divide(x, maximum(sqrt(sum(multiply(x, x), axis=-1, keepdims=True)), 1e-12))


MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda hidden, _: cls(hidden),
    "max": largest,
    "mean": mean,
}


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one sentence vector, by a ``mode`` of MODES; ``normalize`` gives it length 1."""

    mode: str = "mean"
    normalize: bool = True

    def __call__(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, sequence, hidden) -> (batch, hidden)."""
        pooled = MODES[self.mode](hidden, attention_mask)
        return normalize(pooled) if self.normalize else pooled
