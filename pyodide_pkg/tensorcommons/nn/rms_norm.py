"""Root mean square normalization over the last axis (Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import rms_norm
from ..shapes import Shape
from ..tensor import Tensor


def parameters(prefix: str, size: int) -> dict[str, Shape]:
    """Declare ``{prefix.weight: (size,)}``."""
    return {f"{prefix}.weight": (size,)}


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor, eps: float) -> Tensor:
    """Divide each row of ``x`` (..., size) by its root mean square, and scale it."""
    return rms_norm(x, weights[f"{prefix}.weight"], eps)
