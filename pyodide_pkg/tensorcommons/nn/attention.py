"""Multi-head self-attention (Vaswani et al., 2017), with the names that BERT's checkpoints give its parts."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import permute_dims, reshape, scaled_dot_product_attention
from ..shapes import Shape
from ..tensor import Tensor
from . import linear


def parameters(prefix: str, hidden: int, *, bias: bool = True) -> dict[str, Shape]:
    """Query, key and value projections under ``prefix.self``, the output projection under ``prefix.output``.

    ``bias`` is whether the first three have one.
    """
    shapes = linear.parameters(f"{prefix}.output.dense", hidden, hidden)
    for part in ("query", "key", "value"):
        shapes |= linear.parameters(f"{prefix}.self.{part}", hidden, hidden, bias=bias)
    return shapes


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """``x`` (batch, sequence, hidden) -> the same; ``mask`` is additive, (batch, 1, 1, sequence), or None."""
    batch, sequence, hidden = x.shape

    def split(part: str) -> Tensor:  # (batch, sequence, hidden) -> (batch, heads, sequence, head_dim), a view
        projected = linear.forward(weights, f"{prefix}.self.{part}", x)
        return permute_dims(reshape(projected, (batch, sequence, heads, hidden // heads)), (0, 2, 1, 3))

    attended = scaled_dot_product_attention(split("query"), split("key"), split("value"), mask)
    merged = reshape(permute_dims(attended, (0, 2, 1, 3)), (batch, sequence, hidden))
    return linear.forward(weights, f"{prefix}.output.dense", merged)
