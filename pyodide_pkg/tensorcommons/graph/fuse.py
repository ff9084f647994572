"""Fusion: two nodes that one kernel can do become one node of the same op set.

A rule looks at one node and gives the node that replaces it, or ``None``. It may swallow an input only if nothing else
needs that input. A fused op keeps a meaning in NumPy, so fused and unfused graphs are tested against each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from ..backends.base import Backend
from .graph import Graph
from .node import Node
from .sums import linear_layer_norm

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


def fuse(graph: Graph, backend: Backend[Any] | None = None) -> Graph:
    """``graph`` after every rule has had its say at every node, once, in dependency order.

    The rules are those that suit every device, and with a ``backend`` those that suit its own.
    """
    rules = RULES
    if backend is not None:
        rules = (*RULES, partial(linear_layer_norm, parts=backend.parts_of_depth))
    uses = Counter(id(child) for node in graph.nodes for child in node.inputs)
    uses.update(id(output) for output in graph.outputs)
    result: dict[int, Node] = {}
    once: set[int] = set()
    for node in graph.nodes:
        inputs = tuple(result[id(child)] for child in node.inputs)
        new = node if inputs == node.inputs else Node(node.op, node.attrs, inputs, node.spec)
        for rule in rules:
            new = rule(new, lambda child: id(child) in once) or new
        result[id(node)] = new
        if uses[id(node)] == 1:
            once.add(id(new))
    fused = Graph([result[id(output)] for output in graph.outputs], graph.leaves)
    fused.made_of = {result[id(node)].identity: node for node in graph.nodes}
    return fused
