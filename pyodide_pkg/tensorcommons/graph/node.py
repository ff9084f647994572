"""A node of a computation, and its identity.

Two nodes are the same computation when their op, attributes and inputs are the same, all the way down to the content
of the weights. The identity is a SHA-256 over exactly that, so equality is proved and never guessed from names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from ..backends.base import Attribute, Op, Spec
from ..sharing.storage import Storage


class Node:
    """One value of a graph: the result of ``op``, or a leaf (``op is None``).

    A leaf is a stored value (a weight, a tensor), known by its storage's content; or an argument, known by its name:
    one that every run is given as a storage (``is_stored``), or as an array of the host.
    """

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
        self.op = op
        self.attrs = dict(attrs)
        self.inputs = inputs
        self.spec = spec
        self.storage = storage
        if storage is not None:
            storage.shown_by(self)
        self.name = name
        self.is_stored = is_stored or storage is not None
        self._identity = ""
        self._renames = -1

    @property
    def nbytes(self) -> int:
        """Bytes of the value; of a leaf, those of its storage."""
        return self.spec.nbytes if self.storage is None else self.storage.nbytes

    @property
    def identity(self) -> str:
        """Hex SHA-256 of op, attributes and inputs; for leaves of content or name, with shape and dtype.

        It is kept until some storage is written: a node over that one computes something else from then on.
        """
        if self._renames != Storage.renames:
            self._identity, self._renames = self._hash(), Storage.renames
        return self._identity

    def _hash(self) -> str:
        if self.op is not None:
            parts = [self.op.name, repr(sorted(self.attrs.items())), *(node.identity for node in self.inputs)]
        elif self.storage is not None:
            parts = ["weight", self.storage.identity, repr(self.spec)]
        else:
            parts = ["argument", str(self.is_stored), str(self.name), repr(self.spec)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
