"""Linear layer: ``y = x @ weight.T + bias``, with an optional bias."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import linear
from ..shapes import Shape
from ..tensor import Tensor


def parameters(prefix: str, inputs: int, outputs: int, *, bias: bool = True) -> dict[str, Shape]:
    """Declare ``{prefix.weight: (outputs, inputs), prefix.bias: (outputs,)}``."""
    shapes: dict[str, Shape] = {f"{prefix}.weight": (outputs, inputs)}
    return shapes | {f"{prefix}.bias": (outputs,)} if bias else shapes


def forward(weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Apply the layer: ``x`` (..., inputs) -> (..., outputs)."""
    return linear(x, weights[f"{prefix}.weight"], weights.get(f"{prefix}.bias"))
