"""The ops, with the names of the Python array API standard; those of neural networks as in PyTorch's functional API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ShapeMismatch
from ..tensor import Tensor
from .activation import elu, erf, gelu, hardsigmoid, hardswish, leaky_relu, relu, sigmoid, silu, softplus
from .attention import kv_cache_append, scaled_dot_product_attention
from .composed import allclose, conj, fmod, isclose, masked_fill, nan_to_num, nextafter, round
from .convolution import conv1d, conv2d, conv_transpose2d
from .creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from .data_types import can_cast, finfo, iinfo, isdtype, result_type
from .distance import cdist
from .einsum import einsum
from .elementwise import (
    abs,
    acos,
    acosh,
    add,
    asin,
    asinh,
    astype,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    clip,
    copysign,
    cos,
    cosh,
    divide,
    equal,
    exp,
    expm1,
    floor,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    positive,
    pow,
    reciprocal,
    remainder,
    rsqrt,
    sign,
    signbit,
    sin,
    sinh,
    sqrt,
    square,
    subtract,
    tan,
    tanh,
    trunc,
    where,
)
from .indexing import embedding, gather, gather_nd, getitem, scatter, setitem, take, take_along_axis
from .layout import broadcast_to, concat, permute_dims, reshape
from .linalg import dot, norm, outer, tensordot, vecdot
from .manipulation import (
    broadcast_arrays,
    diff,
    expand_dims,
    flip,
    matrix_transpose,
    moveaxis,
    pad,
    repeat,
    roll,
    split,
    squeeze,
    stack,
    tile,
    unstack,
)
from .matmul import linear, matmul
from .normalization import layer_norm, log_softmax, rms_norm, softmax
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from .reduction import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
    cumulative_prod,
    cumulative_sum,
    logsumexp,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from .resize import interpolate
from .rotary import rotary_embedding, rotary_tables
from .searching import nonzero, searchsorted
from .sets import unique_all, unique_counts, unique_inverse, unique_values
from .sorting import argsort, sort, topk
from .statistics import median, quantile

__all__ = [
    "abs",
    "acos",
    "acosh",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "all",
    "allclose",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "avg_pool2d",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "broadcast_arrays",
    "broadcast_to",
    "can_cast",
    "cdist",
    "ceil",
    "clip",
    "concat",
    "conj",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "divide",
    "dot",
    "einsum",
    "elu",
    "embedding",
    "empty",
    "empty_like",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "finfo",
    "flip",
    "floor",
    "floor_divide",
    "fmod",
    "from_dlpack",
    "full",
    "full_like",
    "gather",
    "gather_nd",
    "gelu",
    "greater",
    "greater_equal",
    "hardsigmoid",
    "hardswish",
    "hypot",
    "iinfo",
    "interpolate",
    "isclose",
    "isdtype",
    "isfinite",
    "isinf",
    "isnan",
    "kv_cache_append",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linear",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "log_softmax",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "masked_fill",
    "matmul",
    "matrix_transpose",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "median",
    "meshgrid",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "nan_to_num",
    "negative",
    "nextafter",
    "nonzero",
    "norm",
    "not_equal",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "permute_dims",
    "positive",
    "pow",
    "prod",
    "quantile",
    "reciprocal",
    "relu",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "rms_norm",
    "roll",
    "rotary_embedding",
    "rotary_tables",
    "round",
    "rsqrt",
    "scaled_dot_product_attention",
    "scatter",
    "searchsorted",
    "sigmoid",
    "sign",
    "signbit",
    "silu",
    "sin",
    "sinh",
    "softmax",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "topk",
    "tril",
    "triu",
    "trunc",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unstack",
    "var",
    "vecdot",
    "where",
    "zeros",
    "zeros_like",
]

ARRAYS = (Tensor, np.ndarray, np.generic, int, float, list, tuple)
_OPERATORS: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": add,
    "sub": subtract,
    "mul": multiply,
    "truediv": divide,
    "floordiv": floor_divide,
    "mod": remainder,
    "pow": pow,
    "matmul": matmul,
    "and": bitwise_and,
    "or": bitwise_or,
    "xor": bitwise_xor,
    "lshift": bitwise_left_shift,
    "rshift": bitwise_right_shift,
}
_COMPARISONS = {"eq": equal, "ne": not_equal, "lt": less, "le": less_equal, "gt": greater, "ge": greater_equal}
_OTHERS = {
    "neg": negative,
    "pos": positive,
    "abs": abs,
    "invert": bitwise_invert,
    "getitem": getitem,
    "setitem": setitem,
}


def _compared(name: str, function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """Make a comparison that knows more than arrays, as NumPy's do.

    An int outside the dtype is larger or smaller than every element; None, a text or another object equals none.
    """

    def compare(self: Tensor, other: Any) -> Tensor:
        if type(other) is int and self.dtype.kind in ("int", "uint"):
            limits = iinfo(self.dtype)
            if not limits.min <= other <= limits.max:
                result = {"eq": False, "ne": True}.get(name, (other > 0) == (name in ("lt", "le")))
                return full(self.shape, result, device=self.own_device)
        elif name in ("eq", "ne") and not isinstance(other, ARRAYS):
            return full(self.shape, name == "ne", device=self.own_device)
        return function(self, other)

    return compare


def _transposed(x: Tensor) -> Tensor:
    if x.ndim != 2:
        raise ShapeMismatch(f"T takes a matrix, not shape {x.shape}: use mT, or tc.permute_dims()")
    return matrix_transpose(x)


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    return lambda self, other: function(other, self)


for _name, _function in _OPERATORS.items():
    setattr(Tensor, f"__{_name}__", _function)
    setattr(Tensor, f"__r{_name}__", _reflected(_function))
for _name, _method in _OTHERS.items():
    setattr(Tensor, f"__{_name}__", _method)
for _name, _function in _COMPARISONS.items():
    setattr(Tensor, f"__{_name}__", _compared(_name, _function))
setattr(Tensor, "T", property(_transposed))  # noqa: B010 - as mT
setattr(Tensor, "mT", property(matrix_transpose))  # noqa: B010 - the class declares it for type checkers only
