"""Embedding norms: a layer norm takes the rows of the tables that it is the norm of, ``layer_norm(words[ids] + ...)``.

``layer_norm(words[ids] + types[ids] + positions)``, as an encoder begins, becomes one step. It pays on every device of
kernels: a dispatch less for each look-up and each sum, and none of these values is written and read. The terms keep
their order, so it has bit for bit what the steps give one by one: a pattern of the second phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..backends.backend import Backend
from ..backends.base import Attributes, Op, Spec
from ..backends.ops import OPS
from ..shapes import size_of
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten
from .views import owner_of

BUFFERS = 8  # storage buffers that a shader stage has everywhere; weight, bias and the result are three of them


def _reference(*arrays: Any, terms: Any, shape: Any, eps: float) -> Any:
    *operands, weight, bias = arrays
    rows = size_of(shape[:-1])
    total: Any = None
    for kind, wrap in terms:
        value = operands.pop(0)
        if kind == "taken":  # value are the ids, spread over the columns
            value = OPS["take_along_axis"].reference(operands.pop(0), value, axis=0, wrap=wrap)
        elif kind == "parts":
            value = reduce(np.add, value)
        elif kind == "repeated":
            value = value.reshape(-1, value.shape[-1])
            value = value[[i % len(value) for i in range(rows)]]
        value = value.reshape(rows, value.shape[-1])
        total = value if total is None else total + value
    return OPS["layer_norm"].reference(total, weight, bias, eps=eps).reshape(shape)


# What each of ``terms`` is read from, then weight and bias. ("taken", wraps) reads ids and a table, ("repeated", False)
# rows that begin anew when they are through, as positions do, ("parts", False) values side by side, as many as the
# first axis has, and ("whole", False) all of it.
def _sum_norm_operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Count the operations of a layer norm, and one for each value that is added to another."""
    values = sum(spec.shape[0] if kind == "parts" else 1 for kind, spec in _terms_of(specs, attrs))
    return (7 + values - 1) * size_of(result.shape)


def _sum_norm_traffic(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    """Bytes of the terms, where only the rows that ids name are read of a table."""
    total = sum(
        result.nbytes + spec.nbytes if kind == "taken" else spec.nbytes for kind, spec in _terms_of(specs, attrs)
    )
    return total + sum(spec.nbytes for spec in specs[-2:]) + result.nbytes


def _terms_of(specs: Sequence[Spec], attrs: Attributes) -> Iterator[tuple[str, Spec]]:
    """Yield the kind of each term, and the spec of the first operand that it is read from."""
    rest = iter(specs)
    terms: Any = attrs["terms"]
    for kind, _ in terms:
        yield kind, next(rest)
        if kind == "taken":
            next(rest)


SUM_NORM = Op(
    "sum_norm",
    lambda specs, attrs: specs[0],
    _reference,
    operations=_sum_norm_operations,
    traffic=_sum_norm_traffic,
)


def fuse_embedding_norms(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with every layer norm over a sum with rows of tables as one node.

    A table or a sum that ``backend`` does not bind as a whole is left out: steps of its own are cut by rows.
    """
    uses = graph.uses()
    return rewritten(graph, lambda node: _joined(node, uses, backend))


def _joined(node: Node, uses: Counter[Node], backend: Backend[Any]) -> Replacement | None:
    if not node.is_op("layer_norm") or node.spec.dtype.name != "float32" or not node.nbytes:
        return None
    total, weight, bias, *residual = node.inputs
    found = [_term(residual[0], node, uses, backend)] if residual else []
    while (count := sum(len(nodes) for _, nodes in found)) < BUFFERS - 5:  # room for what is left as ids and a table
        if not total.is_op("add") or uses[total] != 1 or total.spec != node.spec:
            break
        rest, term = (_term(each, node, uses, backend) for each in total.inputs)
        if count + len(rest[1]) + len(term[1]) > BUFFERS - 3:  # weight, bias and the result
            break
        total = total.inputs[0]
        found.append(term)
    found.append(_term(total, node, uses, backend))
    found.reverse()
    kinds = tuple(term for term, _ in found)
    names = [kind for kind, _ in kinds]
    if any(not backend.binds_whole(each.spec) for each in (node, *(each for _, nodes in found for each in nodes))):
        return None
    if "taken" not in names or "other" in names or names.count("repeated") > 1 or names[0] == "repeated":
        return None
    if any(term.spec.dtype is not node.spec.dtype for _, nodes in found for term in nodes[-1:]):
        return None
    operands = [operand for _, nodes in found for operand in nodes]
    attrs: Attributes = {"terms": kinds, "shape": node.spec.shape, "eps": node.attrs["eps"]}
    return Replacement((*operands, weight, bias), lambda new: Node(SUM_NORM, attrs, new, node.spec))


def _term(
    node: Node, total: Node, uses: Counter[Node], backend: Backend[Any]
) -> tuple[tuple[str, bool], tuple[Node, ...]]:
    """Return one term of the sum: its kind, and what it is read from."""
    owner, layout = owner_of(node)
    if is_column(node):
        return ("other", False), (node,)
    if node.spec.shape != total.spec.shape:  # broadcast
        rows = node.spec.shape
        while rows[:1] == (1,) and len(rows) > 2:
            rows = rows[1:]
        again = len(rows) > 1 and rows == total.spec.shape[-len(rows) :]
        return ("repeated" if again else "other", False), (node,)
    whole = layout.is_dense and layout.size == size_of(owner.spec.shape)
    if whole and owner.is_op("take_along_axis") and owner.attrs["axis"] == 0:
        table, ids = owner.inputs
        spread = owner_of(ids)[1]
        once = uses[owner] == 1 and uses[node] == 1
        by_row = len(spread.shape) == 2 and (spread.strides[1] == 0 or spread.shape[1] == 1)
        if once and by_row and owner_of(table)[1].is_dense and backend.binds_whole(table.spec):
            return ("taken", bool(owner.attrs["wrap"])), (ids, table)
    return ("whole", False), (node,)


def is_column(node: Node) -> bool:
    """Return whether all of a row is one number, as spread ids are: such a term is not read as a row."""
    strides = owner_of(node)[1].strides
    return not strides or strides[-1] == 0
