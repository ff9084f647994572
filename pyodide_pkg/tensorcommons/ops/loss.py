"""Losses for evaluation, with the parameters, conventions and defaults of PyTorch. float16 is computed in float32.

``reduction`` is always "mean", "sum" or "none".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import dtypes
from ..errors import ShapeMismatch, TensorCommonsError, UnsupportedDtype, quoted
from ..shapes import normalize_axis
from ..tensor import Tensor, TensorLike, as_tensor
from .activation import softplus
from .convolution import require_floats
from .elementwise import abs, astype, exp, log, log1p, maximum, not_equal, square, where
from .indexing import index_tensor, take_known
from .layout import broadcast_to, permute_dims, reshape
from .normalization import log_softmax
from .reduction import max, mean, min, sum

REDUCTIONS = ("none", "mean", "sum")


def _reduced(loss: Tensor, reduction: str, dtype: dtypes.DType, total: Tensor | None = None) -> Tensor:
    """Apply ``reduction`` to ``loss``; with ``total``, a mean is the sum divided by ``total``."""
    if reduction == "none":
        result = loss
    elif reduction == "sum":
        result = sum(loss)
    else:
        result = mean(loss) if total is None else sum(loss) / total
    return astype(result, dtype)


def _check(name: str, reduction: str, also: tuple[str, ...] = ()) -> None:
    if reduction not in (*REDUCTIONS, *also):
        allowed = ", ".join((*REDUCTIONS, *also))
        raise TensorCommonsError(f"{name}: reduction must be one of {allowed}, not {quoted(reduction)}")


def _pair(name: str, input: TensorLike, target: TensorLike, reduction: str) -> tuple[Tensor, Tensor, dtypes.DType]:
    """Convert both to float32, and return them with the dtype of the result."""
    _check(name, reduction, ("batchmean",) if name == "kl_div" else ())
    x = as_tensor(input, like=(target,))
    y = as_tensor(target, like=(x,))
    require_floats(name, [x.spec, y.spec])
    if x.shape != y.shape:
        raise ShapeMismatch(f"{name}: input {x.shape} and target {y.shape} must have one shape")
    return astype(x, "float32"), astype(y, "float32"), x.dtype


def mse_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """``(input - target) ** 2``; both have one shape.

    >>> print(F.mse_loss([1.0, 2.0], [1.0, 4.0]).numpy())
    2.0
    """
    x, y, dtype = _pair("mse_loss", input, target, reduction)
    return _reduced(square(x - y), reduction, dtype)


def l1_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """``|input - target|``; both have one shape.

    >>> print(F.l1_loss([1.0, 2.0], [1.0, 4.0]).numpy())
    1.0
    """
    x, y, dtype = _pair("l1_loss", input, target, reduction)
    return _reduced(abs(x - y), reduction, dtype)


def smooth_l1_loss(input: TensorLike, target: TensorLike, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """``d ** 2 / (2 beta)`` if ``d = |input - target|`` is below ``beta``, else ``d - beta / 2``.

    >>> print(F.smooth_l1_loss([1.0, 2.0], [1.0, 4.0]).numpy())
    0.75
    """
    x, y, dtype = _pair("smooth_l1_loss", input, target, reduction)
    if beta < 0:
        raise TensorCommonsError(f"smooth_l1_loss: beta must not be negative, not {beta}")
    distance = abs(x - y)
    if beta == 0:
        return _reduced(distance, reduction, dtype)
    return _reduced(where(distance < beta, square(distance) * (0.5 / beta), distance - 0.5 * beta), reduction, dtype)


def huber_loss(input: TensorLike, target: TensorLike, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """``d ** 2 / 2`` if ``d = |input - target|`` is at most ``delta``, else ``delta * (d - delta / 2)``.

    >>> print(F.huber_loss([1.0, 2.0], [1.0, 4.0]).numpy())
    0.75
    """
    x, y, dtype = _pair("huber_loss", input, target, reduction)
    if delta <= 0:
        raise TensorCommonsError(f"huber_loss: delta must be above 0, not {delta}")
    distance = abs(x - y)
    return _reduced(
        where(distance <= delta, square(distance) * 0.5, (distance - 0.5 * delta) * delta), reduction, dtype
    )


def binary_cross_entropy(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(target * log(input) + (1 - target) * log(1 - input))``; logarithms are clamped to at least -100.

    ``input`` are probabilities from 0 to 1 in the shape of ``target``, to which ``weight`` broadcasts.

    >>> print(F.binary_cross_entropy([0.5, 0.9], [0.0, 1.0]).numpy().round(4))
    0.3993
    """
    x, y, dtype = _pair("binary_cross_entropy", input, target, reduction)
    loss = -(y * maximum(log(x), -100.0) + (1.0 - y) * maximum(log1p(-x), -100.0))
    return _reduced(_weighted(loss, weight), reduction, dtype)


def _weighted(loss: Tensor, weight: TensorLike | None) -> Tensor:
    return loss if weight is None else loss * astype(as_tensor(weight, like=(loss,)), "float32")


def binary_cross_entropy_with_logits(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """Compute :func:`binary_cross_entropy` of ``sigmoid(input)`` without overflow.

    ``(1 - target) * input + (1 + (pos_weight - 1) * target) * log(1 + exp(-input))``; ``pos_weight`` and ``weight``
    broadcast to the input's shape.

    >>> print(F.binary_cross_entropy_with_logits([0.0, 2.0], [0.0, 1.0]).numpy().round(4))
    0.41
    """
    x, y, dtype = _pair("binary_cross_entropy_with_logits", input, target, reduction)
    positive: Any = 1.0
    if pos_weight is not None:
        positive = 1.0 + (astype(as_tensor(pos_weight, like=(x,)), "float32") - 1.0) * y
    return _reduced(_weighted((1.0 - y) * x + softplus(-x) * positive, weight), reduction, dtype)


def kl_div(input: TensorLike, target: TensorLike, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """``target * (log(target) - input)``: ``input`` is logarithms, and so is ``target`` with ``log_target``.

    It is 0 for a ``target`` of 0. ``reduction`` may also be "batchmean": the sum divided by the size of the first axis.

    >>> print(F.kl_div(tc.log([0.5, 0.5]), [0.25, 0.75]).numpy().round(4))
    0.0654
    """
    x, y, dtype = _pair("kl_div", input, target, reduction)
    loss = exp(y) * (y - x) if log_target else where(y > 0.0, y * (log(y) - x), y * 0.0)
    if reduction == "batchmean":
        if not x.shape:
            raise ShapeMismatch("kl_div: reduction='batchmean' needs at least one axis, not a scalar")
        return astype(sum(loss) / x.shape[0], dtype)
    return _reduced(loss, reduction, dtype)


def _classes(name: str, input: TensorLike, target: Any) -> tuple[Tensor, Tensor]:
    """Return ``input`` (batch, classes, ...) or (classes,) in float32, classes last, and ``target`` as a tensor."""
    x = as_tensor(input, like=(target,))
    require_floats(name, [x.spec])
    if x.ndim == 0 or x.shape[1 if x.ndim > 1 else 0] == 0:
        raise ShapeMismatch(f"{name}: input {x.shape} has no classes")
    if not isinstance(target, Tensor):
        array = np.asarray(target)
        target = array if array.dtype.kind in "iu" else array.astype(np.float32)
    target = index_tensor(target, x)
    place = 1 if x.ndim > 1 else 0
    order = [a for a in range(x.ndim) if a != place] + [place]
    return permute_dims(astype(x, "float32"), order), target


def _likelihood(
    name: str, logs: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """Compute ``-weight[target] * logs[target]`` and ``weight[target]``, both 0 for a target of ``ignore_index``."""
    if target.dtype is not dtypes.int32:
        raise UnsupportedDtype(f"{name}: class indices must be int32, not {target.dtype}")
    if target.shape != logs.shape[:-1]:
        raise ShapeMismatch(
            f"{name}: target must have the input's shape without classes, {logs.shape[:-1]}, not {target.shape}"
        )
    counted = not_equal(target, ignore_index)
    picked = reshape(take_known(logs, reshape(target, (*target.shape, 1)), -1), target.shape)
    if weight is None:
        share = astype(counted, "float32")
        return where(counted, -picked, 0.0 * share), share
    rows = broadcast_to(weight, logs.shape)
    share = reshape(take_known(rows, reshape(target, (*target.shape, 1)), -1), target.shape)
    share = where(counted, share, astype(counted, "float32") * 0.0)
    return where(counted, -picked * share, share), share


def _class_weight(name: str, weight: TensorLike | None, logs: Tensor) -> Tensor | None:
    if weight is None:
        return None
    tensor = astype(as_tensor(weight, like=(logs,)), "float32")
    if tensor.shape != logs.shape[-1:]:
        raise ShapeMismatch(f"{name}: weight must be {logs.shape[-1:]}, one for each class, not {tensor.shape}")
    return tensor


def nll_loss(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """``-weight[target] * input[target]``: ``input`` (batch, classes, ...) or (classes,) is log-probabilities.

    ``target`` (batch, ...) are class indices (int32); the loss of ``ignore_index`` is 0. The mean is the sum divided by
    the sum of the weights of the other targets (NaN if there are none). Any other index out of range gives NaN.

    >>> print(F.nll_loss([[-0.5, -1.0]], [1]).numpy())
    1.0
    """
    _check("nll_loss", reduction)
    logs, numbers = _classes("nll_loss", input, target)
    loss, share = _likelihood("nll_loss", logs, numbers, _class_weight("nll_loss", weight, logs), ignore_index)
    return _reduced(loss, reduction, as_tensor(input, like=(target,)).dtype, sum(share))


def cross_entropy(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``-sum(p * log_softmax(input))`` over the classes: ``input`` is (batch, classes, ...) or (classes,).

    ``target`` is class indices (int32, the input's shape without the classes; ``p`` is 1 there), or probabilities of
    the input's shape. ``label_smoothing`` spreads that share of ``p`` evenly over all classes (Szegedy et al., 2016).
    ``weight`` (classes,) weighs each class; ``ignore_index`` and the mean are as in :func:`nll_loss`, but for
    probabilities the mean is over the whole batch.

    Raises:
        ShapeMismatch, UnsupportedDtype: input, target and weight are incompatible.

    >>> print(F.cross_entropy([[1.0, 2.0, 3.0]], [2]).numpy().round(4))
    0.4076
    """
    _check("cross_entropy", reduction)
    if not 0 <= label_smoothing <= 1:
        raise TensorCommonsError(f"cross_entropy: label_smoothing must be from 0 to 1, not {label_smoothing}")
    x, y = _classes("cross_entropy", input, target)
    dtype = as_tensor(input, like=(target,)).dtype
    logs = log_softmax(x)
    weights = _class_weight("cross_entropy", weight, logs)
    classes = logs.shape[-1]
    if y.dtype.kind == "float":
        shape = as_tensor(input, like=(target,)).shape
        if y.shape != shape:
            raise ShapeMismatch(f"cross_entropy: probabilities must have the input's shape, {shape}, not {y.shape}")
        p, _ = _classes("cross_entropy", y, y)
        if label_smoothing:
            p = p * (1.0 - label_smoothing) + label_smoothing / classes
        terms = p * logs if weights is None else p * logs * weights
        loss = -sum(terms, -1)
        return _reduced(loss, reduction, dtype)
    loss, share = _likelihood("cross_entropy", logs, y, weights, ignore_index)
    if label_smoothing:
        spread = -sum(logs if weights is None else logs * weights, -1)
        spread = where(not_equal(y, ignore_index), spread, share * 0.0)
        loss = loss * (1.0 - label_smoothing) + spread * (label_smoothing / classes)
    return _reduced(loss, reduction, dtype, sum(share))


def cosine_similarity(x1: TensorLike, x2: TensorLike, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``sum(x1 * x2) / (max(|x1|, eps) * max(|x2|, eps))`` along ``dim``; the operands broadcast.

    >>> print(F.cosine_similarity([[3.0, 4.0]], [[4.0, 3.0]]).numpy())
    [0.96]
    """
    a = as_tensor(x1, like=(x2,))
    b = as_tensor(x2, like=(a,))
    require_floats("cosine_similarity", [a.spec, b.spec])
    dtype = a.dtype
    a, b = astype(a, "float32"), astype(b, "float32")
    product = a * b
    axis = normalize_axis(dim, product.ndim)
    a, b = broadcast_to(a, product.shape), broadcast_to(b, product.shape)
    norms = [maximum(_norm(x, 2.0, axis, keepdims=False), eps) for x in (a, b)]
    return astype(sum(product, axis) / (norms[0] * norms[1]), dtype)


def _norm(x: Tensor, p: float, axis: int, keepdims: bool) -> Tensor:
    if p == 2:
        return sum(square(x), axis, keepdims) ** 0.5
    if p == 1:
        return sum(abs(x), axis, keepdims)
    if p == 0:
        return sum(astype(x != 0, "float32"), axis, keepdims)
    if p in (float("inf"), -float("inf")):
        return (max if p > 0 else min)(abs(x), axis, keepdims)
    return sum(abs(x) ** p, axis, keepdims) ** (1 / p)


def normalize(input: TensorLike, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """``input / max(norm, eps)`` with the ``p``-norm along ``dim``.

    The ``inf``-norm is the largest magnitude, the ``-inf``-norm the smallest, the 0-norm the count of nonzero elements.

    >>> print(F.normalize([[3.0, 4.0]]).numpy())
    [[0.6 0.8]]
    """
    x = as_tensor(input)
    require_floats("normalize", [x.spec])
    wide = astype(x, "float32")
    axis = normalize_axis(dim, x.ndim)
    return astype(wide / maximum(_norm(wide, float(p), axis, keepdims=True), eps), x.dtype)
