"""Fusion: two nodes that one kernel can do become one node of the same op set.

A rule looks at one node and gives the node that replaces it, or ``None``. It may swallow an input only if nothing else
needs that input. A fused op keeps a meaning in NumPy, so fused and unfused graphs are tested against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

from ..backends.base import Backend
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rebuild
from .split_k import split_linear_into_norm

Rule: TypeAlias = Callable[[Node, Callable[[Node], bool]], Node | None]


def linear_activation(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``gelu(linear(x))`` -> ``linear(x, activation="gelu")``: the activation is the epilogue of the product."""
    if node.op is None or node.op.name not in ("gelu", "relu", "tanh", "sigmoid"):
        return None
    (linear,) = node.inputs
    if linear.op is None or linear.op.name != "linear" or not used_once(linear):
        return None
    if linear.attrs["activation"] or linear.attrs["residual"]:
        return None
    return Node(linear.op, {**linear.attrs, "activation": node.op.name}, linear.inputs, node.spec)


def linear_residual(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``linear(x) + r`` -> ``linear(x, residual=r)``: the product is never written without what is added to it."""
    if node.op is None or node.op.name != "add":
        return None
    for linear, other in (node.inputs, node.inputs[::-1]):
        if linear.op is None or linear.op.name != "linear" or linear.attrs["residual"] or not used_once(linear):
            continue
        if linear is not other and linear.spec == other.spec == node.spec:
            return Node(linear.op, {**linear.attrs, "residual": True}, (*linear.inputs, other), node.spec)
    return None


def residual_layer_norm(node: Node, used_once: Callable[[Node], bool]) -> Node | None:
    """``layer_norm(a + b)`` -> ``layer_norm(a, residual=b)``: the sum is never written to memory."""
    if node.op is None or node.op.name != "layer_norm" or len(node.inputs) != 3:
        return None
    total, weight, bias = node.inputs
    if total.op is None or total.op.name != "add" or not used_once(total):
        return None
    if any(term.spec != total.spec for term in total.inputs):
        return None
    return Node(node.op, node.attrs, (total.inputs[0], weight, bias, total.inputs[1]), node.spec)


RULES: tuple[Rule, ...] = (linear_activation, linear_residual, residual_layer_norm)


def fuse(graph: Graph, backend: Backend[Any] | None = None, requests: Sequence[int] = ()) -> Graph:
    """``graph`` after every rule was tried at every node, once, in dependency order.

    The rules are those that suit every device, and with a ``backend`` those that suit its own. They may change bits, so
    each of several ``requests`` (how many of the outputs belong to it) is fused as it would be alone; what their graphs
    have in common after that is one computation.
    """
    rules = RULES
    if backend is not None:
        rules = (*RULES, partial(split_linear_into_norm, parts=backend.parts_of_depth))
    counts: dict[str, int] = {}
    outputs, is_contested = _fused(graph, rules, counts)
    if is_contested and len(requests) > 1:
        counts.clear()
        ends = list(accumulate(requests, initial=0))
        own = [Graph(graph.outputs[first:last]) for first, last in pairwise(ends)]
        outputs = [output for each in own for output in _fused(each, rules, counts)[0]]
    fused = Graph(outputs, graph.leaves)
    fused.stands_for = {node.key: counts.get(node.key, 0) for node in fused.nodes}
    return fused


def _fused(graph: Graph, rules: Sequence[Rule], counts: dict[str, int]) -> tuple[list[Node], bool]:
    """The outputs of ``graph`` fused, and whether a rule left something to another user of it.

    ``counts`` says, by key, how many nodes of ``graph`` a fused one stands for.
    """
    uses = graph.uses()
    once: set[int] = set()
    is_contested = False

    def used_once(child: Node) -> bool:
        nonlocal is_contested
        is_contested = is_contested or id(child) not in once
        return id(child) in once

    def pattern(node: Node) -> Replacement:
        def made(inputs: tuple[Node, ...]) -> Node:
            new = node.over(inputs)
            count = int(node.op is not None)
            for rule in rules:
                replaced = rule(new, used_once)
                if replaced is not None:
                    count += sum(counts.get(child.key, 0) for child in new.inputs if child not in replaced.inputs)
                    new = replaced
            counts[new.key] = count
            if uses[id(node)] == 1:
                once.add(id(new))
            return new

        return Replacement(node.inputs, made)

    return rebuild(graph.outputs, pattern), is_contested
