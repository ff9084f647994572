"""Normalization with learned scales: of rows by their mean and variance, by their root mean square; of channels."""

from __future__ import annotations

import numpy as np

from ..ops import layer_norm, rms_norm
from ..ops.batch_norm import batch_norm
from ..tensor import Tensor
from .scope import Scope
from .weight import Weights


class LayerNorm:
    """Normalizes, scales and, with ``bias``, shifts each row of (..., size).

    Ba et al., 2016, https://arxiv.org/abs/1607.06450.
    """

    def __init__(self, scope: Scope, size: int, eps: float, *, bias: bool = True) -> None:
        self.weight = scope.param("weight", (size,), "vector")
        self.bias = scope.param("bias", (size,), "vector") if bias else None
        self.eps = eps

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        bias = weights[self.bias].tensor if self.bias else np.zeros(self.weight.shape, np.float32)
        return layer_norm(x, weights[self.weight].tensor, bias, self.eps)


class RMSNorm:
    """Divides each row of (..., size) by its root mean square, and scales it.

    Zhang and Sennrich, 2019, https://arxiv.org/abs/1910.07467.
    """

    def __init__(self, scope: Scope, size: int, eps: float) -> None:
        self.weight = scope.param("weight", (size,), "vector")
        self.eps = eps

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        return rms_norm(x, weights[self.weight].tensor, self.eps)


class BatchNorm2d:
    """Normalizes, scales and shifts each channel of images (batch, channels, height, width).

    Mean and variance are those of training (Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167).
    """

    def __init__(self, scope: Scope, channels: int) -> None:
        parts = ("running_mean", "running_var", "weight", "bias")
        self.params = [scope.param(part, (channels,), "vector") for part in parts]

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (weights[param].tensor for param in self.params)
        return batch_norm(x, mean, variance, weight, bias)
