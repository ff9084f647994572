"""From a graph to a computation: the same values by number, for devices that take whole graphs.

Nothing is placed and nothing is a layout here: views are ops, and the device decides where its values lie.
"""

from __future__ import annotations

from ..backends.base import Computation, Spec, Value
from .graph import Graph
from .plan import Planned, align


def make_computation(graph: Graph) -> Planned[Computation]:
    """Make the computation of ``graph``, fused but not chained, for a device that takes graphs."""
    numbers = {id(node): number for number, node in enumerate(graph.nodes)}
    leaves = {id(node): index for index, node in enumerate(graph.leaves)}
    host: dict[str, tuple[int, Spec]] = {}
    host_bytes = 0
    values = []
    for node in graph.nodes:
        index = leaves.get(id(node), 0)
        is_host = node.op is None and not node.is_stored
        if is_host:
            index = host_bytes
            host[str(node.name)] = (index, node.spec)
            host_bytes += align(node.spec.nbytes)
        inputs = tuple(numbers[id(child)] for child in node.inputs)
        values.append(Value(node.op, node.attrs, inputs, node.spec, index, is_host))
    stored = list(dict.fromkeys(numbers[id(node)] for node in graph.outputs))
    computation = Computation(tuple(values), tuple(stored), host_bytes, len(graph.leaves))
    outputs = tuple(stored.index(numbers[id(node)]) for node in graph.outputs)
    specs = tuple(values[number].spec for number in stored)
    total = sum(value.spec.nbytes for value in computation.steps)
    return Planned(computation, host, outputs, specs, host_bytes, total)
