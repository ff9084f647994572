"""Batch, group and instance normalization, for inference. float16 is computed in float32.

``input`` is always (batch, channels, ...); ``weight`` and ``bias`` are (channels,).
"""

from __future__ import annotations

from ..errors import ShapeMismatch, TensorCommonsError
from ..shapes import size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .convolution import require_floats
from .elementwise import astype, rsqrt
from .layout import reshape
from .reduction import mean, var


def _channels(op: str, value: TensorLike, x: Tensor) -> Tensor:
    """Convert one number for each channel to float32, in a shape that broadcasts with ``x``."""
    tensor = as_tensor(value, like=(x,))
    if tensor.shape != x.shape[1:2]:
        raise ShapeMismatch(f"{op}: {tensor.shape} must be {x.shape[1:2]}, the channels of {x.shape}")
    return reshape(astype(tensor, "float32"), (x.shape[1], *([1] * (x.ndim - 2))))


def _scaled(op: str, y: Tensor, x: Tensor, weight: TensorLike | None, bias: TensorLike | None) -> Tensor:
    if weight is not None:
        y = y * _channels(op, weight, x)
    if bias is not None:
        y = y + _channels(op, bias, x)
    return astype(y, x.dtype)


def _image(op: str, x: TensorLike) -> Tensor:
    tensor = as_tensor(x)
    require_floats(op, [tensor.spec])
    if tensor.ndim < 2:
        raise ShapeMismatch(f"{op} takes (batch, channels, ...), not {tensor.shape}")
    return tensor


def batch_norm(
    input: TensorLike,
    running_mean: TensorLike,
    running_var: TensorLike,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``(input - running_mean) / sqrt(running_var + eps) * weight + bias`` by channel (Ioffe and Szegedy, 2015).

    ``input`` is (batch, channels, ...), the others are (channels,). ``training`` must be False, and ``momentum`` has no
    effect: the running statistics do not change.

    Raises:
        ShapeMismatch: the shapes are incompatible.
        TensorCommonsError: ``training`` is True.

    >>> print(F.batch_norm([[1.0, 4.0]], [0.0, 2.0], [1.0, 4.0]).numpy().round(4))
    [[1. 1.]]
    """
    if training:
        raise TensorCommonsError("batch_norm: training=True is not supported: running statistics do not change")
    tensor = _image("batch_norm", input)
    centre, spread = (_channels("batch_norm", value, tensor) for value in (running_mean, running_var))
    return _scaled("batch_norm", (astype(tensor, "float32") - centre) * rsqrt(spread + eps), tensor, weight, bias)


def group_norm(
    input: TensorLike,
    num_groups: int,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """``(x - mean) / sqrt(var + eps) * weight + bias``, statistics over a group of channels (Wu and He, 2018).

    ``input`` is (batch, channels, ...), ``weight`` and ``bias`` are (channels,).

    Raises:
        ShapeMismatch: the shapes are incompatible, or ``num_groups`` does not divide the channels.

    >>> print(F.group_norm([[1.0, 3.0, 2.0, 6.0]], 2).numpy().round(4))
    [[-1.  1. -1.  1.]]
    """
    tensor = _image("group_norm", input)
    batch, channels = tensor.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise ShapeMismatch(f"group_norm: {channels} channels cannot be divided into {num_groups} groups")
    depth = channels // num_groups * size_of(tensor.shape[2:])
    groups = reshape(astype(tensor, "float32"), (batch, num_groups, depth))
    groups = groups - groups[..., :1]  # else a mean of 1e3 would lose three digits
    centred = groups - mean(groups, -1, keepdims=True)
    y = centred * rsqrt(var(groups, -1, keepdims=True) + eps)
    return _scaled("group_norm", reshape(y, tensor.shape), tensor, weight, bias)


def instance_norm(
    input: TensorLike,
    running_mean: TensorLike | None = None,
    running_var: TensorLike | None = None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`group_norm` with a group for each channel (Ulyanov et al., 2016).

    Without ``use_input_stats`` it uses the running statistics as :func:`batch_norm` does; they do not change.

    Raises:
        ShapeMismatch: the shapes are incompatible.
        TensorCommonsError: without ``use_input_stats``, the running statistics are missing.

    >>> print(F.instance_norm([[[1.0, 3.0], [2.0, 6.0]]]).numpy().round(4))
    [[[-1.  1.]
      [-1.  1.]]]
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise TensorCommonsError("instance_norm with use_input_stats=False needs running_mean and running_var")
        return batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
    tensor = _image("instance_norm", input)
    return group_norm(tensor, tensor.shape[1], weight, bias, eps)
