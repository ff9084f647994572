"""A linear layer: ``y = x @ weight.T + bias``."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import linear
from ..shapes import Shape
from ..tensor import Tensor


def parameters(prefix: str, inputs: int, outputs: int) -> dict[str, Shape]:
    """``{prefix.weight: (outputs, inputs), prefix.bias: (outputs,)}``."""
    return {f"{prefix}.weight": (outputs, inputs), f"{prefix}.bias": (outputs,)}


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """``x`` (..., inputs) -> (..., outputs)."""
    return linear(x, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"])
