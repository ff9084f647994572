"""The op set. Functions are named as in the Python array API standard; neural ones as in PyTorch's functional API."""

from __future__ import annotations

from ..tensor import Tensor
from .attention import scaled_dot_product_attention
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
from .embedding import embedding
from .layout import broadcast_to, concat, getitem, permute_dims, reshape
from .matmul import linear, matmul
from .normalization import layer_norm, softmax
from .reduction import max, mean, min, sum

__all__ = [
    "abs",
    "add",
    "astype",
    "broadcast_to",
    "concat",
    "divide",
    "embedding",
    "exp",
    "gelu",
    "layer_norm",
    "linear",
    "log",
    "log1p",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "permute_dims",
    "relu",
    "reshape",
    "scaled_dot_product_attention",
    "sigmoid",
    "softmax",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
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
