"""The feed-forward part of a transformer's layer: two linear layers, and an activation or a gate between them."""

from __future__ import annotations

from collections.abc import Callable

from ..ops import multiply
from ..tensor import Tensor
from .linear import Linear
from .weight import Weights


class FeedForward:
    """Maps (..., size) -> (..., size) as ``second(activation(first(x)))``.

    With ``gated``, the result of that layer is multiplied by the activation's (Shazeer, 2020,
    https://arxiv.org/abs/2002.05202). If ``is_packed``, ``first`` computes both: the
    activation applies to the first half of its result, which the second half multiplies.
    """

    def __init__(
        self,
        first: Linear,
        activation: Callable[[Tensor], Tensor],
        second: Linear,
        gated: Linear | None = None,
        *,
        is_packed: bool = False,
    ) -> None:
        self.first = first
        self.activation = activation
        self.second = second
        self.gated = gated
        self.is_packed = is_packed

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        inner = self.first(weights, x)
        if self.is_packed:
            half = inner.shape[-1] // 2
            return self.second(weights, multiply(self.activation(inner[..., :half]), inner[..., half:]))
        inner = self.activation(inner)
        return self.second(weights, multiply(inner, self.gated(weights, x)) if self.gated else inner)
