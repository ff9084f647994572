"""Computations: a graph's values by number, for devices that take whole graphs.

Views are ops here, and no value has a place: the device decides where its values lie.
"""

from __future__ import annotations

from ..backends.base import Computation, Value
from .graph import Graph
from .plan import Planned, place_host


def make_computation(graph: Graph) -> Planned[Computation]:
    """Make the computation of a fused ``graph``, for a device that takes graphs."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    leaves = {node: index for index, node in enumerate(graph.leaves)}
    host, host_bytes = place_host(graph)
    values = []
    for node in graph.nodes:
        is_host = node.op is None and not node.is_stored
        index = host[str(node.name)][0] if is_host else leaves.get(node, 0)
        inputs = tuple(numbers[child] for child in node.inputs)
        values.append(Value(node.op, node.attrs, inputs, node.spec, index, is_host))
    stored = list(dict.fromkeys(numbers[node] for node in graph.outputs))
    computation = Computation(tuple(values), tuple(stored), host_bytes, len(graph.leaves))
    outputs = tuple(stored.index(numbers[node]) for node in graph.outputs)
    specs = tuple(values[number].spec for number in stored)
    total = sum(value.spec.nbytes for value in computation.steps)
    return Planned(computation, host, outputs, specs, host_bytes, total)
