"""Multi-head self-attention (Vaswani et al., 2017), with the parameter names of BERT's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import scaled_dot_product_attention
from ..shapes import Shape
from ..tensor import Tensor
from . import linear
from .heads import merge, split


def parameters(prefix: str, hidden: int, *, bias: bool = True) -> dict[str, Shape]:
    """Declare query, key and value projections under ``prefix.self``, the output projection under ``prefix.output``.

    ``bias`` applies to the first three.
    """
    shapes = linear.parameters(f"{prefix}.output.dense", hidden, hidden)
    for part in ("query", "key", "value"):
        shapes |= linear.parameters(f"{prefix}.self.{part}", hidden, hidden, bias=bias)
    return shapes


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """Attend: ``x`` (batch, sequence, hidden) -> same shape; ``mask`` is additive, (batch, 1, 1, sequence), or None."""
    query, key, value = (
        split(linear.forward(weights, f"{prefix}.self.{part}", x), heads) for part in ("query", "key", "value")
    )
    attended = scaled_dot_product_attention(query, key, value, mask)
    return linear.forward(weights, f"{prefix}.output.dense", merge(attended))
