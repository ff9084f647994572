"""Split-K: a product too small for the machine is cut along its depth, and the norm that follows adds up the parts.

``layer_norm(linear(x) + residual)`` ends each layer of an encoder. Few rows and columns leave most of a GPU idle; each
part of the depth is a product of its own. It pays where a kernel of few workgroups takes longer than reading the parts
again: the same dispatches, shorter ones, and the sum is never written. The bits are other ones than the product's, so
this is a pattern of the first phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends.base import Attributes, Op, Spec
from ..shapes import size_of
from .embedding_norm import SUM_NORM, is_column
from .node import Node


def side_by_side(specs: Sequence[Spec], attrs: Attributes) -> Spec:
    """Return the spec of ``count`` products of x and weights of one shape, which lie one after another."""
    (x, weight), count = specs[:2], attrs["count"]
    assert isinstance(count, int)
    return Spec((count, *x.shape[:-1], weight.shape[0]), x.dtype)


def _parts(x: Any, weight: Any, *, count: int) -> Any:
    return np.stack([a @ b.T for a, b in zip(np.split(x, count, -1), np.split(weight, count, -1), strict=True)])


# The products of x and a weight over each of ``count`` parts of their depth.
LINEAR_PARTS = Op(
    "linear_parts",
    side_by_side,
    _parts,
    multiply_adds=lambda specs, result, attrs: size_of(result.shape[1:]) * specs[0].shape[-1],
)


def split_linear_into_norm(
    node: Node, used_once: Callable[[Node], bool], parts: Callable[[int, int, int], int]
) -> Node | None:
    """``layer_norm(linear(x, residual=r))`` -> the norm of a sum of partial products, the bias and ``r``.

    A rule of fusion for a device where ``parts`` of rows, depth and columns says that cutting the depth pays.
    """
    if not node.is_op("layer_norm") or len(node.inputs) != 3:
        return None
    linear, *norm = node.inputs
    if not linear.is_op("linear") or not linear.attrs["residual"] or not used_once(linear):
        return None
    x, weight, *rest = linear.inputs
    kinds = {each.spec.dtype.name for each in (*linear.inputs, *norm)}
    if linear.attrs["activation"] or kinds != {"float32"} or is_column(rest[-1]):
        return None
    columns, depth = weight.spec.shape
    count = parts(size_of(x.spec.shape[:-1]), depth, columns)
    if count < 2:
        return None
    products = Node.of(LINEAR_PARTS, {"count": count}, (x, weight))
    terms = (("parts", False), *((("repeated", False),) if len(rest) > 1 else ()), ("whole", False))
    attrs = {"terms": terms, "shape": node.spec.shape, "eps": node.attrs["eps"]}
    return Node(SUM_NORM, attrs, (products, *rest, *norm), node.spec)
