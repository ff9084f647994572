"""Traces: the graphs of a function of arguments, made once for the shapes of its arguments and the outputs wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypeAlias

from ..backends.base import Spec
from ..backends.device import Device
from ..bridge.runtime import Slices, at_once
from ..errors import ShapeMismatch, TensorCommonsError
from ..sharing.storage import Storage
from .fuse import fuse
from .graph import Graph
from .node import Node, argument

Arguments: TypeAlias = "tuple[tuple[str, Spec], ...]"  # names, with the shapes and dtypes of what a call gives


class Trace:
    """Some outputs of a function for arguments of given shapes, under the function's own names of them."""

    def __init__(self, nodes: Sequence[Node], device: Device) -> None:
        self.nodes = tuple(nodes)
        self.device = device
        self._sources: list[tuple[Storage, str]] = []
        self._renames = Storage.renames
        self._graph: Graph | None = None

    @property
    def graph(self) -> Graph:
        """The nodes merged and fused, as the function alone runs. Rules that may change bits end here."""
        return self._graph or at_once(self.passes())

    def passes(self) -> Slices[Graph]:
        """Make :attr:`graph`, pass by pass."""
        if self._graph is not None:
            return self._graph
        merged = Graph(self.nodes)
        self._renames = Storage.renames
        self._sources = [(leaf.storage, leaf.storage.identity) for leaf in merged.leaves if leaf.storage is not None]
        yield
        self._graph = fuse(merged, self.device.backend)
        return self._graph

    @property
    def is_current(self) -> bool:
        """False once a leaf was written: what was merged as one computation may be two."""
        if self._renames != Storage.renames and all(storage.identity == was for storage, was in self._sources):
            self._renames = Storage.renames
        return self._renames == Storage.renames


class Traces:
    """All traces of ``function``, which maps argument nodes to output nodes, each by name.

    ``example`` returns arguments of shapes that the function takes. ``count`` is the number of calls of the function.
    """

    def __init__(
        self,
        device: Device,
        function: Callable[[Mapping[str, Node]], Mapping[str, Node]],
        example: Callable[[], Arguments],
    ) -> None:
        self.device = device
        self.count = 0
        self._function = function
        self.example = cache(example)  # arguments of one fixed shape, for comparing functions with each other
        self._outputs: dict[Arguments, Mapping[str, Node]] = {}
        self._refused: set[Arguments] = set()
        self._traces: dict[tuple[Arguments, tuple[str, ...]], Trace] = {}

    def of(self, arguments: Arguments, outputs: Sequence[str] | None = None) -> Trace:
        """The trace of ``outputs``, by default all of them. Raises as the function does."""
        names = tuple(self._outputs_of(arguments) if outputs is None else outputs)
        known = self._traces.get((arguments, names))
        if known is None or not known.is_current:
            found = self._outputs_of(arguments)
            if lacking := [name for name in names if name not in found]:
                has = ", ".join(name for name, _ in arguments)
                raise TensorCommonsError(f"{', '.join(lacking)} needs more inputs than the {has} of this call")
            known = self._traces[arguments, names] = Trace([found[name] for name in names], self.device)
        return known

    def _outputs_of(self, arguments: Arguments) -> Mapping[str, Node]:
        """Call the function for ``arguments``, once."""
        if arguments not in self._outputs:
            self.count += 1
            given = {name: argument(name, spec, is_stored=False) for name, spec in arguments}
            self._outputs[arguments] = self._function(given)
        return self._outputs[arguments]

    def of_equal(self, arguments: Arguments) -> Trace | None:
        """The trace of all outputs for those of ``arguments`` that the function takes; None where it takes others."""
        given = dict(arguments)
        names = [name for name, _ in self.example()]
        if any(name not in given for name in names):
            return None
        mine = tuple([(name, given[name]) for name in names])
        if mine not in self._refused:
            try:
                return self.of(mine)
            except ShapeMismatch:
                self._refused.add(mine)
        return None

    def probe(self) -> Trace:
        """The trace of all outputs for :attr:`example`."""
        return self.of(self.example())
