"""Two-dimensional convolution over images (batch, channels, height, width)."""

from __future__ import annotations

from ..ops import conv2d, conv_transpose2d
from ..tensor import Tensor
from .scope import Scope
from .weight import Weights


class Conv2d:
    """A convolution with square kernels; ``kernel`` and ``stride`` in pixels."""

    def __init__(
        self, scope: Scope, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = True
    ) -> None:
        self.weight = scope.param("weight", (outputs, inputs, kernel, kernel), "kernel")
        self.bias = scope.param("bias", (outputs,), "vector") if bias else None
        self.stride = stride

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        bias = weights[self.bias].tensor if self.bias else None
        return conv2d(x, weights[self.weight].float32, bias, stride=self.stride)


class ConvTranspose2d:
    """A transposed convolution with square kernels; ``kernel``, ``stride`` and ``padding`` in pixels."""

    def __init__(self, scope: Scope, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        self.weight = scope.param("weight", (inputs, outputs, kernel, kernel), "kernel")
        self.bias = scope.param("bias", (outputs,), "vector")
        self.stride, self.padding = stride, padding

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        kernel, bias = weights[self.weight].float32, weights[self.bias].tensor
        return conv_transpose2d(x, kernel, bias, stride=self.stride, padding=self.padding)
