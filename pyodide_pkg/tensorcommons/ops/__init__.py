"""The op set. Functions are named as in the Python array API standard; neural ones as in PyTorch's functional API."""

from __future__ import annotations

from ..tensor import Tensor
from .attention import scaled_dot_product_attention
from .convolution import conv1d, conv2d, conv_transpose2d
from .elementwise import (
    abs,
    add,
    astype,
    divide,
    exp,
    gelu,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    relu,
    sigmoid,
    sqrt,
    subtract,
    tanh,
)
from .indexing import embedding, gather, scatter, take, take_along_axis
from .layout import broadcast_to, concat, getitem, permute_dims, reshape
from .matmul import linear, matmul
from .normalization import layer_norm, softmax
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from .reduction import (
    all,
    any,
    argmax,
    argmin,
    count_nonzero,
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
from .sorting import argsort, sort, topk

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "astype",
    "avg_pool2d",
    "broadcast_to",
    "concat",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "count_nonzero",
    "cumulative_sum",
    "divide",
    "embedding",
    "exp",
    "gather",
    "gelu",
    "interpolate",
    "layer_norm",
    "linear",
    "log",
    "log1p",
    "logsumexp",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "permute_dims",
    "prod",
    "relu",
    "reshape",
    "rotary_embedding",
    "rotary_tables",
    "scaled_dot_product_attention",
    "scatter",
    "sigmoid",
    "softmax",
    "sort",
    "sqrt",
    "std",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tanh",
    "topk",
    "var",
]

_OPERATORS = {
    "__neg__": negative,
    "__abs__": abs,
    "__add__": add,
    "__sub__": subtract,
    "__mul__": multiply,
    "__truediv__": divide,
    "__matmul__": matmul,
    "__getitem__": getitem,
    "__radd__": lambda self, other: add(other, self),
    "__rsub__": lambda self, other: subtract(other, self),
    "__rmul__": lambda self, other: multiply(other, self),
    "__rtruediv__": lambda self, other: divide(other, self),
    "__rmatmul__": lambda self, other: matmul(other, self),
}
for _name, _function in _OPERATORS.items():
    setattr(Tensor, _name, _function)
