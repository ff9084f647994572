"""A node of a computation, and its identity.

Two nodes are the same computation when their op, attributes, shape, dtype and inputs are the same, all the way down to
the content of the weights. A node's key is a SHA-256 over exactly that, so equality never depends on names. A node's
identity numbers arguments in the order in which the computation meets them: the same function of differently named
inputs has one identity, and is the same value where the arguments hold the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..backends.base import Attribute, Op, Spec
from ..errors import InternalError, quoted
from ..sharing.storage import Storage

_PLAIN = frozenset((int, float, str, bool, type(None)))  # ``repr`` of these loses nothing: -0.0 is not 0.0, 1 not True


def plain(value: Any) -> Attribute:
    """Return ``value`` as an attribute with an exact ``repr``: NumPy scalars become Python's, lists become tuples.

    Raises InternalError for anything else: the ``repr`` of an array, for example, omits elements.
    """
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, np.generic):
        return plain(value.item())
    raise InternalError(f"an attribute of an op is a {type(value).__name__}: {quoted(value)}")


class Node:
    """One value of a graph: the result of ``op``, or a leaf (``op is None``).

    A leaf is a stored value (a weight, a tensor), known by its storage's content; or an argument, known by its name:
    one that every run is given as a storage (``is_stored``), or as an array of the host.
    """

    __slots__ = (
        "__weakref__", "_formula", "_key", "_renames",
        "attrs", "inputs", "is_stored", "name", "op", "shown", "spec", "storage",
    )  # fmt: skip

    def __init__(
        self,
        op: Op | None,
        attrs: Mapping[str, Attribute],
        inputs: tuple[Node, ...],
        spec: Spec,
        *,
        storage: Storage | None = None,
        name: str | None = None,
        is_stored: bool = False,
    ) -> None:
        self.inputs = inputs
        self.op = op
        self.attrs = {key: plain(value) for key, value in attrs.items()}
        self.spec = spec
        self.storage = storage
        if storage is not None:
            storage.shown_by(self)
        self.name = name
        self.is_stored = is_stored or storage is not None
        self.shown: Any = None  # of a view what ``owner_of`` found: None for the owner is the view itself
        self._formula = ""
        self._key = ""
        self._renames = -1

    @classmethod
    def of(cls, op: Op, attrs: Mapping[str, Attribute], inputs: tuple[Node, ...]) -> Node:
        """Return the result of ``op`` over ``inputs``, of the shape and dtype that the op infers."""
        return cls(op, attrs, inputs, op.infer([node.spec for node in inputs], attrs))

    def __del__(self) -> None:
        """Free the inputs in a loop: freed by recursion, a long chain would overflow the stack."""
        global _freeing
        if self.inputs:
            _abandoned.append(self.inputs)
            self.inputs = ()
            if not _freeing:
                _freeing = True
                try:
                    while _abandoned:
                        _abandoned.pop()  # nodes that nothing else refers to add their inputs
                finally:
                    _freeing = False

    @property
    def nbytes(self) -> int:
        """Bytes of the value; of a leaf, those of its storage."""
        return self.spec.nbytes if self.storage is None else self.storage.nbytes

    def is_op(self, name: str) -> bool:
        """Return whether the node is the result of the op called ``name``."""
        return self.op is not None and self.op.name == name

    @property
    def is_view(self) -> bool:
        """True if the node shows bytes of another value."""
        return self.op is not None and self.op.view is not None

    def over(self, inputs: tuple[Node, ...]) -> Node:
        """Return the node over other ``inputs``; itself where these are its own."""
        return self if inputs == self.inputs else Node(self.op, self.attrs, inputs, self.spec)

    @property
    def formula(self) -> str:
        """Op, attributes, shape and dtype as text: the node without its inputs."""
        if not self._formula:
            assert self.op is not None
            self._formula = repr((self.op.name, sorted(self.attrs.items()), self.spec.shape, self.spec.dtype.name))
        return self._formula

    @property
    def key(self) -> str:
        """Hex SHA-256 of op, attributes, shape, dtype and inputs; for leaves of content or name, shape and dtype.

        Two nodes of one key have equal values in every run. It is kept until some storage is written: a node over that
        one computes something else from then on.
        """
        now = Storage.renames
        if self._renames != now:
            for node in in_order([self], lambda node: [child for child in node.inputs if child._renames != now]):
                node._key, node._renames = _digest(node._parts([child._key for child in node.inputs])), now
        return self._key

    def _parts(self, inputs: Sequence[str]) -> list[str]:
        """Return the parts of the node's identity over ``inputs``; an argument is identified by its name."""
        if self.op is not None:
            return [self.formula, *inputs]
        if self.storage is not None:
            return ["weight", repr(self.storage.identity), repr(self.spec)]
        return ["argument", repr(self.is_stored), repr(self.name), repr(self.spec)]

    def numbered(self) -> tuple[str, tuple[str, ...]]:
        """Return the node's identity, and the names of its arguments in the order in which the computation meets them.

        The identity is a hex SHA-256 as :attr:`key` is, with these numbers in place of the names: equal for the same
        computation of differently named arguments. It takes a pass over all that is below.
        """
        identities: dict[Node, str] = {}
        arguments: dict[str, int] = {}
        for node in in_order([self]):
            parts = node._parts([identities[child] for child in node.inputs])
            if node.op is None and node.storage is None:
                number = arguments.setdefault(str(node.name), len(arguments))
                parts = ["argument", repr(node.is_stored), str(number), repr(node.spec)]
            identities[node] = _digest(parts)
        return identities[self], tuple(arguments)


def argument(name: str, spec: Spec, *, is_stored: bool = True) -> Node:
    """Return a leaf that each run is given under ``name``: as a storage, or as an array of the host."""
    return Node(None, {}, (), spec, name=name, is_stored=is_stored)


def in_order(
    roots: Iterable[Node], operands: Callable[[Node], Sequence[Node]] = attrgetter("inputs")
) -> Iterator[Node]:
    """Yield ``roots`` and the nodes below them, each once and after its ``operands``.

    The order is that of a recursion over roots and operands from first to last, without its stack. ``operands`` is
    called once a node.
    """
    begun, done = set[Node](), set[Node]()
    stack = [*roots][::-1]
    while stack:
        node = stack[-1]
        if node not in begun:
            begun.add(node)
            stack += [child for child in reversed(operands(node)) if child not in done]
        elif stack.pop() not in done:
            done.add(node)
            yield node


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


_abandoned: list[tuple[Node, ...]] = []  # inputs of nodes that were freed
_freeing = False
