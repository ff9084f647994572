"""Fusion: two nodes that one kernel can do become one node of the same op set.

A rule takes one node and returns the node that replaces it, or ``None``. It may take an input away only if nothing else
needs that input. Each rule saves a dispatch, and writing and reading the value between the two nodes. A fused op keeps
a meaning in NumPy, but kernels may round it another way than the two nodes: these are patterns of the first phase
(:mod:`~.rewrite`), which may change bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from ..backends.backend import Backend
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rebuild
from .split_k import split_linear_into_norm

Rule: TypeAlias = Callable[[Node, Callable[[Node], bool]], Node | None]


def _takes_epilogue(node: Node) -> bool:
    return node.op is not None and node.op.takes_epilogue


def linear_activation(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``gelu(linear(x))`` -> ``linear(x, activation="gelu")``: the activation is the epilogue of the product.

    It pays on every device: one dispatch less, and the product is not written and read in between.
    """
    if node.op is None or not node.op.epilogue or not _takes_epilogue(node.inputs[0]):
        return None
    (linear,) = node.inputs
    if linear.attrs["activation"] or linear.attrs["residual"] or not used_once(linear):
        return None
    return Node(linear.op, {**linear.attrs, "activation": node.op.name}, linear.inputs, node.spec)


def linear_residual(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``linear(x) + r`` -> ``linear(x, residual=r)``: the sum is the epilogue of the product.

    It pays on every device: one dispatch less, and the product is not written and read in between.
    """
    for linear, other in (node.inputs, node.inputs[::-1]) if node.is_op("add") else ():
        fits = linear is not other and linear.spec == other.spec == node.spec
        if fits and _takes_epilogue(linear) and not linear.attrs["residual"] and used_once(linear):
            return Node(linear.op, {**linear.attrs, "residual": True}, (*linear.inputs, other), node.spec)
    return None


def residual_layer_norm(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``layer_norm(a + b)`` -> ``layer_norm(a, residual=b)``: the norm adds up what it reads.

    It pays on every device: one dispatch less, and the sum is not written and read in between.
    """
    if not node.is_op("layer_norm") or len(node.inputs) != 3:
        return None
    total, weight, bias = node.inputs
    if not total.is_op("add") or not used_once(total) or any(term.spec != total.spec for term in total.inputs):
        return None
    return Node(node.op, node.attrs, (total.inputs[0], weight, bias, total.inputs[1]), node.spec)


RULES: tuple[Rule, ...] = (linear_activation, linear_residual, residual_layer_norm)


def fuse(graph: Graph, backend: Backend[Any] | None = None, requests: Sequence[int] = ()) -> Graph:
    """Return ``graph`` after every rule was tried at every node, once, in dependency order.

    The rules are those that suit every device, and with a ``backend`` those that suit its own. They may change bits, so
    each of several ``requests`` (how many of the outputs belong to it) is fused as it would be alone; what their graphs
    have in common after that is one computation.
    """
    own = [] if backend is None else [partial(split_linear_into_norm, parts=backend.parts_of_depth)]
    rules: Sequence[Rule] = (*RULES, *own)
    counts: dict[str, int] = {}
    outputs, is_contested = _fused(graph, rules, counts)
    if is_contested and len(requests) > 1:
        counts.clear()
        ends = list(accumulate(requests, initial=0))
        alone = [Graph(graph.outputs[first:last]) for first, last in pairwise(ends)]
        outputs = [output for each in alone for output in _fused(each, rules, counts)[0]]
    return Graph(outputs, graph.leaves, traced=graph.traced, counts=counts)


def _fused(graph: Graph, rules: Sequence[Rule], counts: dict[str, int]) -> tuple[list[Node], bool]:
    """Return the outputs of ``graph`` fused, and whether a rule left an input to another user of it.

    ``counts`` is filled with the number of nodes of ``graph`` that each fused one stands for, by key.
    """
    uses = graph.uses()
    once: set[Node] = set()
    is_contested = False

    def used_once(child: Node) -> bool:
        nonlocal is_contested
        is_contested = is_contested or child not in once
        return child in once

    def pattern(node: Node) -> Replacement:
        def made(inputs: tuple[Node, ...]) -> Node:
            new = node.over(inputs)
            count = int(node.op is not None)
            for rule in rules if count else ():
                replaced = rule(new, used_once)
                if replaced is not None:
                    count += sum(counts.get(child.key, 0) for child in new.inputs if child not in replaced.inputs)
                    new = replaced
            counts[new.key] = count
            if uses[node] == 1:
                once.add(new)
            return new

        return Replacement(node.inputs, made)

    return rebuild(graph.outputs, pattern), is_contested
