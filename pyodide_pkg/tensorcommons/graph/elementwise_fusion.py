"""Elementwise fusion: a chain of elementwise ops becomes one op, so that the values between them are never in memory.

A chain is a tree of ops over up to :data:`INPUTS` values, all of one shape. Numbers in it are parameters of the
dispatch, so ``x * 2 + 1`` reads and writes each element once and takes no bytes for 2 and 1. Nothing is computed twice:
what has a second user stays a value of its own. The exception is a short value that is broadcast, a number a row say:
it is computed for each element again, which is less than a dispatch.

It pays from two saved dispatches on, each with the write and the reads of a value, or where a number takes no value:
each formula is a pipeline to compile. A chain has bit for bit what its ops give one by one, so this is a pattern of the
second phase (:mod:`~.rewrite`), made when it is known what else needs a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..backends.backend import Backend
from ..backends.base import Attribute, Attributes, Op, Spec
from ..backends.ops import OPS
from ..shapes import size_of
from .constant import FULL
from .graph import Graph
from .node import Node
from .rewrite import Replacement, rewritten
from .views import owner_of

INPUTS = 7  # a shader stage has at least 8 storage buffers, and one is the result
MOST = 24  # ops in one expression; more compiles slowly and gains nothing
SHORT = 1024  # elements of a value that may be computed again for each element that it is broadcast to
AXES = 8  # that a shader can walk through operands of different layouts

# ("input", number), or (op, attributes, dtypes of the arguments, dtype of the result, *arguments)
Term: TypeAlias = "tuple[Attribute, ...]"


def _reference(*arrays: Any, formula: Term) -> Any:
    def value(term: Any) -> Any:
        if term[0] == "input":
            return arrays[term[1]]
        name, attrs, _, kind, *arguments = term
        return np.asarray(OPS[name].reference(*map(value, arguments), **dict(attrs)), kind)  # as memory would hold it

    return value(formula)


def _operations(specs: Sequence[Spec], result: Spec, attrs: Attributes) -> int:
    return len(operations_of(attrs["formula"])) * size_of(result.shape)


def operations_of(term: Any) -> list[str]:
    """List the ops of a formula by name, inner ones first; numbers are none."""
    if term[0] in ("input", "full"):
        return []
    return [*(name for argument in term[4:] for name in operations_of(argument)), term[0]]


CHAIN = Op("chain", lambda specs, attrs: specs[0], _reference, operations=_operations)


@dataclass(frozen=True, eq=False)
class _Chain:
    """The tree of ``ops`` ops that ends in ``node``, over the nodes ``leaves``.

    ``operands`` are those of ``node``: chains that are part of the tree, numbers and leaves. ``has_numbers``: some
    operands of the tree are numbers.
    """

    node: Node
    operands: tuple[_Chain | Node, ...]
    leaves: tuple[Node, ...]
    ops: int
    has_numbers: bool

    @property
    def pays(self) -> bool:
        return self.ops > 2 or self.has_numbers

    @property
    def is_cheap(self) -> bool:
        """True if recomputing the chain costs little: as many loads as its value, and few ops."""
        return self.ops <= 2 and len(self.leaves) == 1 and size_of(self.leaves[0].spec.shape) <= SHORT

    def made(self, leaves: tuple[Node, ...]) -> Node:
        """The chain as one node, over what takes the place of its leaves."""
        formula = self.formula({leaf: place for place, leaf in enumerate(self.leaves)})
        return Node(CHAIN, {"formula": formula}, leaves, self.node.spec)

    def formula(self, places: Mapping[Node, int]) -> Term:
        """The tree as a term; ``places`` numbers its leaves."""
        node = self.node
        assert node.op is not None
        terms: list[Term] = []
        for operand in self.operands:
            if isinstance(operand, _Chain):
                terms.append(operand.formula(places))
            elif _is_number(operand):
                number = owner_of(operand)[0]
                terms.append(("full", tuple(sorted(number.attrs.items())), (), number.spec.dtype.name))
            else:
                terms.append(("input", places[operand]))
        kinds = tuple(child.spec.dtype.name for child in node.inputs)
        return (node.op.name, tuple(sorted(node.attrs.items())), kinds, node.spec.dtype.name, *terms)


def _is_number(node: Node) -> bool:
    return owner_of(node)[0].op is FULL


def _grow(node: Node, chains: Mapping[Node, _Chain], uses: Counter[Node]) -> _Chain:
    """The chain that ends in ``node``: its operands' own chains as far as nothing else needs them and they fit."""
    operands: list[_Chain | Node] = []
    leaves: list[Node] = []
    ops, has_numbers = 1, False
    waiting = sum(not _is_number(child) for child in node.inputs)
    for child in node.inputs:
        own = chains.get(child)
        if _is_number(child):
            operands.append(child)
            has_numbers = True
            continue
        waiting -= 1
        if own is not None and uses[child] == 1 and (child.spec.shape == node.spec.shape or own.is_cheap):
            union = list(dict.fromkeys([*leaves, *own.leaves]))
            if len(union) + waiting <= INPUTS and ops + own.ops <= MOST:
                leaves, ops, has_numbers = union, ops + own.ops, has_numbers or own.has_numbers
                operands.append(own)
                continue
        if child not in leaves:
            leaves.append(child)
        operands.append(child)
    return _Chain(node, tuple(operands), tuple(leaves), ops, has_numbers)


def chain_elementwise(graph: Graph, backend: Backend[Any] | None = None) -> Graph:
    """Return ``graph`` with every chain that pays as one node, of ops that ``backend`` computes in chains."""
    uses = graph.uses()
    chains: dict[Node, _Chain] = {}
    for node in graph.nodes:
        if node.op is None or not node.op.elementwise or not node.inputs or len(node.spec.shape) > AXES:
            continue
        if backend is None or backend.chains(node.op, [child.spec for child in node.inputs], node.spec):
            chains[node] = _grow(node, chains, uses)

    def pattern(node: Node) -> Replacement | None:
        chain = chains.get(node)
        return Replacement(chain.leaves, chain.made) if chain is not None and chain.pays else None

    return rewritten(graph, pattern)
