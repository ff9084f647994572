"""The pre-norm layer of a transformer (Xiong et al., 2020, https://arxiv.org/abs/2002.04745)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor
from .feed_forward import FeedForward
from .weight import Weights


class PreNormLayer:
    """Attention and a feed-forward part, each over normalized values and added to its input.

    ``attention`` is called with the weights, the normalized values and the arguments of the layer that follow its
    input.
    """

    def __init__(
        self,
        attention_norm: Callable[[Weights, Tensor], Tensor],
        attention: Callable[..., Tensor],
        norm: Callable[[Weights, Tensor], Tensor],
        feed_forward: FeedForward,
    ) -> None:
        self.attention_norm, self.attention = attention_norm, attention
        self.norm, self.feed_forward = norm, feed_forward

    def __call__(self, weights: Weights, x: Tensor, *given: Any) -> Tensor:
        """Apply the layer to (batch, sequence, size)."""
        x = x + self.attention(weights, self.attention_norm(weights, x), *given)
        return x + self.feed_forward(weights, self.norm(weights, x))
