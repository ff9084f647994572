"""Products: ``linear`` (a weight stored as ``(out, in)``, with bias and activation) and general ``matmul``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import broadcast_shapes
from ..tensor import Tensor, TensorLike
from .registry import OPS, apply, define


def _require_float32(specs: Sequence[Spec], op: str) -> None:
    kinds = {spec.dtype for spec in specs} - {dtypes.float32}
    if kinds:
        raise UnsupportedDtype(f"{op} takes float32, not {', '.join(map(str, kinds))}; cast first")


def _infer_linear(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    _require_float32(specs, "linear")
    x, weight = specs[:2]
    if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeMismatch(f"linear: x {x.shape} needs a weight of (out, {x.shape[-1:]}), not {weight.shape}")
    if len(specs) == 3 and specs[2].shape != weight.shape[:1]:
        raise ShapeMismatch(f"linear: bias {specs[2].shape} does not match weight {weight.shape}")
    return Spec((*x.shape[:-1], weight.shape[0]), dtypes.float32)


def _linear(x: Any, weight: Any, bias: Any = None, *, activation: str | None = None) -> Any:
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return OPS[activation].reference(y) if activation else y


def _infer_matmul(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    _require_float32(specs, "matmul")
    a, b = (spec.shape for spec in specs)
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ShapeMismatch(f"matmul: shapes {a} and {b} do not go together")
    return Spec((*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]), dtypes.float32)


LINEAR = define("linear", _infer_linear, _linear)
MATMUL = define("matmul", _infer_matmul, np.matmul)


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """``x @ weight.T + bias``: ``x`` is ``(..., in)``, ``weight`` ``(out, in)``, ``bias`` ``(out,)``."""
    return apply(LINEAR, x, weight, *(() if bias is None else (bias,)), activation=None)


def matmul(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Matrix product over the last two axes, ``(..., m, k) @ (..., k, n)``; the leading axes broadcast."""
    return apply(MATMUL, x1, x2)
