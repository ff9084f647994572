"""Linear layer: ``y = x @ weight.T + bias``, with an optional bias."""

from __future__ import annotations

from ..tensor import Tensor
from .scope import Param, Role, Scope
from .weight import Weights


class Linear:
    """Maps (..., inputs) -> (..., outputs). ``weight`` is a parameter to use instead of an own one (tied weights).

    ``bias`` is a parameter, too, or whether there is an own one. If ``is_transposed``, the weight is stored as
    (inputs, outputs).
    """

    def __init__(
        self,
        scope: Scope,
        inputs: int,
        outputs: int,
        *,
        bias: bool | Param = True,
        weight: Param | None = None,
        is_transposed: bool = False,
    ) -> None:
        shape = (inputs, outputs) if is_transposed else (outputs, inputs)
        role: Role = "kernel" if is_transposed else "matrix"  # blocks of numbers run along the inputs
        self.weight = weight or scope.param("weight", shape, role)
        self.bias = scope.param("bias", (outputs,), "vector") if bias is True else bias or None
        self.is_transposed = is_transposed

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        bias = weights[self.bias].tensor if self.bias else None
        return weights[self.weight].linear(x, bias, is_transposed=self.is_transposed)
