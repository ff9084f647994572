"""Split the last axis into attention heads, and merge them again. Both are views."""

from __future__ import annotations

from ..ops import permute_dims, reshape
from ..tensor import Tensor


def split(x: Tensor, heads: int) -> Tensor:
    """Split (batch, sequence, heads * head_dim) -> (batch, heads, sequence, head_dim)."""
    batch, sequence, size = x.shape
    return permute_dims(reshape(x, (batch, sequence, heads, size // heads)), (0, 2, 1, 3))


def merge(x: Tensor) -> Tensor:
    """Merge (batch, heads, sequence, head_dim) -> (batch, sequence, heads * head_dim)."""
    batch, heads, sequence, size = x.shape
    return reshape(permute_dims(x, (0, 2, 1, 3)), (batch, sequence, heads * size))
