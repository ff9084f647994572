"""Multi-head self-attention (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762), with BERT's parameter names."""

from __future__ import annotations

from ..ops import permute_dims, reshape, scaled_dot_product_attention
from ..tensor import Tensor
from .linear import Linear
from .scope import Scope
from .weight import Weights


class Attention:
    """Self-attention over (batch, sequence, size); the ``mask`` of a call is additive, (batch, 1, 1, sequence).

    ``bias`` applies to the projections to queries, keys and values.
    """

    def __init__(self, scope: Scope, size: int, heads: int, *, bias: bool = True) -> None:
        self.heads = heads
        self.projections = [Linear(scope / "self" / part, size, size, bias=bias) for part in ("query", "key", "value")]
        self.output = Linear(scope / "output" / "dense", size, size)

    def __call__(self, weights: Weights, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (split_heads(project(weights, x), self.heads) for project in self.projections)
        return self.output(weights, merge_heads(scaled_dot_product_attention(query, key, value, mask)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split (batch, sequence, heads * head_dim) -> (batch, heads, sequence, head_dim), a view."""
    batch, sequence, size = x.shape
    return permute_dims(reshape(x, (batch, sequence, heads, size // heads)), (0, 2, 1, 3))


def merge_heads(x: Tensor) -> Tensor:
    """Merge (batch, heads, sequence, head_dim) -> (batch, sequence, heads * head_dim), a view."""
    batch, heads, sequence, size = x.shape
    return reshape(permute_dims(x, (0, 2, 1, 3)), (batch, sequence, heads * size))
