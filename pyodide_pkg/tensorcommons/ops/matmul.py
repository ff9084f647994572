"""Matrix products: ``linear`` (a weight stored as ``(out, in)``, with an epilogue) and general ``matmul``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..backends.base import Attributes, Spec
from ..errors import ShapeMismatch, UnsupportedDtype
from ..shapes import broadcast_shapes, size_of
from ..tensor import Tensor, TensorLike, as_tensor
from .layout import reshape
from .registry import OPS, apply, as_float32, define


def common_float(specs: Sequence[Spec], op: str) -> dtypes.DType:
    """Return the dtype of the result. Sums are always float32."""
    for spec in specs:
        if spec.dtype not in (dtypes.float32, dtypes.float16):
            raise UnsupportedDtype(f"{op} takes float32 and float16, not {spec.dtype}: cast with tc.astype()")
    return dtypes.result_type([spec.dtype for spec in specs])


def _infer_linear(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    dtype = common_float(specs, "linear")
    x, weight, *more = specs
    if len(weight.shape) != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
        raise ShapeMismatch(f"linear: x {x.shape} and weight {weight.shape} must be (..., in) and (out, in)")
    result = Spec((*x.shape[:-1], weight.shape[0]), dtype)
    if attrs["residual"] and more.pop().shape != result.shape:
        raise ShapeMismatch(f"linear: the residual must have the shape of the result, {result.shape}")
    if more and more[0].shape != weight.shape[:1]:
        raise ShapeMismatch(f"linear: the bias must be {weight.shape[:1]}, not {more[0].shape}")
    return result


def _linear(x: Any, weight: Any, *more: Any, activation: str | None, residual: bool) -> Any:
    return finished(as_float32(x) @ as_float32(weight).T, more, activation, residual)


def finished(y: Any, more: Sequence[Any], activation: str | None, residual: bool) -> Any:
    """Apply the epilogue of a product; ``more`` are its bias, if any, and with ``residual`` what is added last."""
    terms = [as_float32(term) for term in more]
    after = terms.pop() if residual else np.float32(0)
    if terms:
        y = y + terms[0]
    return (OPS[activation].reference(y) if activation else y) + after


def _infer_matmul(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    if any(spec.dtype.kind == "bool" for spec in specs):
        raise UnsupportedDtype("matmul takes floats or ints, not bool: cast with tc.astype()")
    dtype = dtypes.result_type([spec.dtype for spec in specs])
    a, b = (spec.shape for spec in specs)
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ShapeMismatch(f"matmul: shapes {a} and {b} must be (..., m, k) and (..., k, n)")
    return Spec((*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]), dtype)


def _multiply_adds(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return size_of(result.shape) * specs[0].shape[-1]


def epilogue_operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count one operation of bias, activation and residual for each element."""
    return size_of(result.shape) * (len(specs) - 2 + bool(attrs["activation"]))


LINEAR = define(
    "linear",
    _infer_linear,
    _linear,
    takes_epilogue=True,
    multiply_adds=_multiply_adds,
    operations=epilogue_operations,
)


def _matmul(a: Any, b: Any) -> Any:
    """Multiply in the common dtype; float16 in float32. Ints wrap around."""
    common = np.result_type(a, b)
    wide = np.dtype(np.float32) if common == np.float16 else common
    with np.errstate(all="ignore"):
        return np.matmul(a.astype(wide, copy=False), b.astype(wide, copy=False)).astype(common, copy=False)


MATMUL = define(
    "matmul",
    _infer_matmul,
    _matmul,
    multiply_adds=_multiply_adds,
)


def linear(x: TensorLike, weight: TensorLike, bias: TensorLike | None = None) -> Tensor:
    """``x @ weight.T + bias``: ``x`` is ``(..., in)``, ``weight`` ``(out, in)``, ``bias`` ``(out,)``.

    Operands are float32 and float16 in any combination; float16 with float32 is float32. Sums are float32.

    >>> print(tc.linear([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]], [0.5, 0.5]).numpy())
    [[11.5 17.5]]
    """
    return apply(LINEAR, x, weight, *(() if bias is None else (bias,)), activation=None, residual=False)


def matmul(x1: TensorLike, x2: TensorLike) -> Tensor:
    """Multiply matrices over the last two axes, ``(..., m, k) @ (..., k, n)``; the leading axes broadcast.

    As in NumPy, a vector is a row on the left and a column on the right, and the result does not have its axis. Sums
    of float16 are float32; those of ints have the common dtype of the operands, and wrap around. WebNN multiplies
    floats alone: products of ints are computed by the next device.

    >>> print(tc.matmul([[1.0, 2.0]], [[3.0], [4.0]]).numpy())
    [[11.]]
    """
    a = as_tensor(x1, like=(x2,))
    b = as_tensor(x2, like=(x1,))
    if 0 in (a.ndim, b.ndim):
        raise ShapeMismatch(f"matmul: shapes {a.shape} and {b.shape} must have an axis: multiply scalars with *")
    rows = a if a.ndim > 1 else reshape(a, (1, *a.shape))
    columns = b if b.ndim > 1 else reshape(b, (*b.shape, 1))
    product = apply(MATMUL, rows, columns)
    if 1 not in (a.ndim, b.ndim):
        return product
    shape = product.shape[:-2] + product.shape[-2:-1] * (a.ndim > 1) + product.shape[-1:] * (b.ndim > 1)
    return reshape(product, shape)
