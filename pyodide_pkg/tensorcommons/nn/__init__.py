"""Layers of models, one in each file, and ``functional`` with the names of PyTorch's functional API.

A layer is made from a :class:`Scope`, in which it declares its parameters, and called with the weights of a model. It
holds no tensors: its kernels are compiled before the weights arrive, and a model can move to another device.
"""

from __future__ import annotations

from . import functional, pooling, relative
from .attention import Attention, merge_heads, split_heads
from .conv import Conv2d, ConvTranspose2d
from .embedding import Embedding
from .feed_forward import FeedForward
from .linear import Linear
from .norms import BatchNorm2d, LayerNorm, RMSNorm
from .pre_norm import PreNormLayer
from .scope import Manifest, Param, Scope
from .weight import Weight, Weights, as_float32

__all__ = [
    "Attention",
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "Linear",
    "Manifest",
    "Param",
    "PreNormLayer",
    "RMSNorm",
    "Scope",
    "Weight",
    "Weights",
    "as_float32",
    "functional",
    "merge_heads",
    "pooling",
    "relative",
    "split_heads",
]
