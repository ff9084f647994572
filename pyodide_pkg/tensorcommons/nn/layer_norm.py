"""Layer normalization over the last axis (Ba et al., 2016)."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import layer_norm
from ..shapes import Shape
from ..tensor import Tensor


def parameters(prefix: str, size: int) -> dict[str, Shape]:
    """Declare ``{prefix.weight: (size,), prefix.bias: (size,)}``."""
    return {f"{prefix}.weight": (size,), f"{prefix}.bias": (size,)}


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor, eps: float) -> Tensor:
    """Normalize, scale and shift each row of ``x`` (..., size)."""
    return layer_norm(x, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"], eps)
