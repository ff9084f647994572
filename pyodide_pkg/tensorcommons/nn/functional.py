"""The neural ops by the names of ``torch.nn.functional``."""

from __future__ import annotations

from ..ops import embedding, gelu, layer_norm, linear, relu, scaled_dot_product_attention, sigmoid, softmax, tanh

__all__ = [
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "relu",
    "scaled_dot_product_attention",
    "sigmoid",
    "softmax",
    "tanh",
]
