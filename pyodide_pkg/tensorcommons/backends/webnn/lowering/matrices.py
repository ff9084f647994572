"""Products, normalizations and attention. Sums are float32, whatever the operands are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from ....shapes import size_of
from ...base import Value
from ..builder import GraphBuilder, Operand
from .activations import UNARIES
from .context import LoweringContext, Rule
from .elementwise import exp, log, scaled

ROW_BYTES = 2**22  # of a weight that stays in the processor's caches while it is multiplied and then summed


def product(b: GraphBuilder, x: Operand, weight: Operand) -> Operand:
    """``x @ weight.T`` of ``x`` (rows, in) and ``weight`` (out, in).

    Weights are inputs of the graph, shared by all graphs, so LiteRT cannot pack them ahead of time. It packs the right
    operand of a product at every run: on the right stands the smaller, ``x``, and the result is turned. MiniLM 1 x 16
    takes 7.3 ms so, 9.4 with the weights on the right, and 6.1 with constants that each graph copies and packs. A
    weight that is stored as (in, out) stands on the right as it is.

    A product computes 16 columns even for one row of ``x``, so one row is multiplied and summed instead. A constant
    (constants.py) is packed when the graph is built.
    """
    is_row = x.shape[0] == 1 and 0 < 4 * weight.size <= ROW_BYTES
    if b.is_transposed(weight):
        weight = b.cast(b.transpose(weight, (1, 0)), "float32")
        if b.is_constant(weight):
            return b.gemm(x, weight)
        if not is_row:
            return b.matmul(x, weight)
        return b.reduce("reduceSum", b.binary("mul", weight, b.transpose(x, (1, 0))), [0], True)
    weight = b.cast(weight, "float32")
    if not x.shape[1]:
        return b.filled(0, (x.shape[0], weight.shape[0]), x)
    if b.is_constant(weight):
        return b.gemm(x, weight, is_transposed=True)
    if is_row:
        return b.transpose(b.reduce("reduceSum", b.binary("mul", weight, x), [1], True), (1, 0))
    if x.shape[0] > weight.shape[0]:
        return b.matmul(x, b.transpose(weight, (1, 0)))
    return b.transpose(b.matmul(weight, b.transpose(x, (1, 0))), (1, 0))


def _linear(low: LoweringContext, value: Value) -> Operand:
    x, weight, *more = low.given(value)
    return linear_of(low.b, value, x, weight, more)


def linear_of(b: GraphBuilder, value: Value, x: Operand, weight: Operand, more: Sequence[Operand]) -> Operand:
    """Lower a product with its epilogue, over the operands of ``value``; ``more`` are its bias and its residual."""
    x, *more = (b.cast(each, "float32") for each in (x, *more))
    residual = more.pop() if value.attrs["residual"] else None
    rows = b.reshape(x, (size_of(x.shape[:-1]), x.shape[-1]))
    y = product(b, rows, weight)
    if more:
        y = b.biased(y, more[0])
    if value.attrs["activation"]:
        y = UNARIES[str(value.attrs["activation"])](b, y)
    y = b.reshape(y, value.spec.shape)
    if residual is not None:
        y = b.binary("add", y, residual)
    return b.cast(y, value.spec.dtype.name)


def _matmul(low: LoweringContext, value: Value) -> Operand:
    if value.spec.dtype.kind != "float":
        raise low.b.refuse("WebNN multiplies matrices of floats only")
    a, c = (low.b.cast(each, "float32") for each in low.given(value))
    return low.b.cast(low.b.matmul(a, c), value.spec.dtype.name)


def _softmax(low: LoweringContext, value: Value) -> Operand:
    (x,) = low.given(value)
    return low.b.cast(softmax(low.b, low.b.cast(x, "float32")), x.dtype)


def softmax(b: GraphBuilder, x: Operand) -> Operand:
    """Over the last axis."""
    return b.call("softmax", {"input": b.apart(x)}, x.shape, x.dtype, len(x.shape) - 1)


def _log_softmax(low: LoweringContext, value: Value) -> Operand:
    b = low.b
    (x,) = low.given(value)
    wide, last = b.cast(x, "float32"), [len(x.shape) - 1]
    shifted = b.binary("sub", wide, b.reduce("reduceMax", wide, last, True))
    total = b.reduce("reduceSum", exp(b, shifted), last, True)
    return b.cast(b.binary("sub", shifted, log(b, total)), x.dtype)


def _rms_norm(low: LoweringContext, value: Value) -> Operand:
    """``x / (mean(x²) + eps) ** 0.5 * weight``: one power a row, where a root would need corrections."""
    b = low.b
    x, weight = (b.cast(each, "float32") for each in low.given(value))
    squares = b.reduce("reduceMean", b.binary("mul", x, x), [len(x.shape) - 1], True)
    squares = b.binary("add", squares, b.number(float(cast(float, value.attrs["eps"])), x))
    root = b.binary("pow", squares, b.number(0.5, x))
    return b.cast(b.binary("mul", b.binary("div", x, root), weight), value.spec.dtype.name)


def _layer_norm(low: LoweringContext, value: Value) -> Operand:
    x, weight, bias, *residual = (low.b.cast(each, "float32") for each in low.given(value))
    if residual:
        x = low.b.binary("add", x, residual[0])
    first = low.b.slice(x, [0] * len(x.shape), (*x.shape[:-1], 1), [1] * len(x.shape))
    x = low.b.binary("sub", x, first)  # a mean of 1e4 would cost three digits
    operands = {"input": x, "scale": weight, "bias": bias}
    epsilon = float(cast(float, value.attrs["eps"]))
    options = {"scale": None, "bias": None, "axes": [len(x.shape) - 1], "epsilon": epsilon}
    y = low.b.call("layerNormalization", operands, x.shape, x.dtype, **options)
    return low.b.cast(y, value.spec.dtype.name)


def _attention(low: LoweringContext, value: Value) -> Operand:
    """Compute attention with the whole matrix of scores, the only form that WebNN can express.

    Neighbouring heads that share keys and values are one product with all their queries. On its right stands the
    smaller operand, as in :func:`product`.
    """
    b = low.b
    (q, k, v), mask = low.given(value)[:3], low.loose(value)[3:]
    scores = attention_scores(b, q, k, float(cast(float, value.attrs["scale"])))
    seeing = None
    if value.attrs["causal"]:
        seen = b.constant(np.tril(np.ones(scores.shape[-2:], np.uint8)), "uint8")
        if not mask:
            scores = b.where(seen, scores, b.number(-np.inf, scores))
        elif mask[0].dtype == "uint8":
            mask = [b.binary("logicalAnd", mask[0], seen)]
        else:
            wide = b.cast(mask[0], "float32")
            mask = [b.where(seen, wide, b.number(-np.inf, wide))]
    if mask:
        scores, seeing = _masked(b, scores, mask[0])
    y = attended(b, scores, v)
    return b.cast(y if seeing is None else b.binary("mul", y, seeing), value.spec.dtype.name)


def attention_scores(b: GraphBuilder, q: Operand, k: Operand, scale: float) -> Operand:
    """Return the scaled products of queries and keys, (batch, heads, queries, keys) in float32."""
    q, k = b.cast(q, "float32"), b.cast(k, "float32")
    batch, heads, queries, size = q.shape
    shared, keys = heads // k.shape[1], k.shape[2]
    together = b.reshape(scaled(b, q, scale), (batch, heads // shared, shared * queries, size))
    if keys > shared * queries:
        scores = b.transpose(b.matmul(k, b.transpose(together, (0, 1, 3, 2))), (0, 1, 3, 2))
    else:
        scores = b.matmul(together, b.transpose(k, (0, 1, 3, 2)))
    return b.reshape(scores, (batch, heads, queries, keys))


def attended(b: GraphBuilder, scores: Operand, v: Operand) -> Operand:
    """Return the sums of values by the softmax of their scores, (batch, heads, queries, head_dim) in float32."""
    batch, heads, queries, keys = scores.shape
    weights = b.reshape(softmax(b, scores), (batch, v.shape[1], heads // v.shape[1] * queries, keys))
    return b.reshape(b.matmul(weights, b.cast(v, "float32")), (batch, heads, queries, v.shape[3]))


def _masked(b: GraphBuilder, scores: Operand, mask: Operand) -> tuple[Operand, Operand]:
    """``scores`` with a mask, and 1 for each query that sees a key, else 0: a softmax of nothing but minus infinity
    would be NaN, so such a query's keys count alike, and its result is multiplied by 0."""
    while len(mask.shape) < 4:
        mask = b.reshape(mask, (1, *mask.shape))
    bools = mask.dtype == "uint8"
    wide = b.cast(mask, "float32")
    lowest = b.number(0.5 if bools else -np.inf, wide)
    largest = b.reduce("reduceMax", wide, [3], True)
    blind = b.binary("lesserOrEqual", largest, lowest, "uint8")
    if bools:
        scores = b.where(b.binary("logicalOr", mask, blind), scores, b.number(-np.inf, scores))
    else:
        scores = b.binary("add", scores, b.where(blind, b.number(0, wide), wide))
    return scores, b.cast(b.unary("logicalNot", blind, operand="a"), "float32")


RULES: dict[str, Rule] = {
    "linear": _linear,
    "matmul": _matmul,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
    "scaled_dot_product_attention": _attention,
}
