"""Needs: kernels, limits and memory that a graph takes of a device, found before its weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..backends.base import Plan, Spec
from ..backends.device import Device
from ..bridge.runtime import Slices, at_once, in_slices, sliced
from .fuse import fuse
from .graph import Graph
from .node import Node
from .partition import parts_of
from .passes import planned, planned_steps
from .plan import Planned
from .segments import Bounds


async def compile_kernels(device: Device, outputs: Sequence[Node]) -> None:
    """Compile the kernels of ``outputs`` on ``device`` ahead of need; only the kernels are kept."""
    if device.backend.keeps_kernels:
        executable = await device.backend.compile((await in_slices(_steps(device, outputs))).plan)
        device.backend.discard(executable)


async def misfit(device: Device, outputs: Sequence[Node], weights: Iterable[Spec]) -> str:
    """Name the step of ``outputs`` that exceeds the limits of ``device`` even in parts; empty where none does.

    The search takes place only where one of the ``weights`` needs several bindings.
    """
    backend = device.backend
    if backend.takes_graphs or all(map(backend.binds_whole, weights)):
        return ""
    graph = Graph(outputs)
    found = backend.misfit((await in_slices(_steps(device, outputs))).plan)
    if found is None:
        return ""
    step, reason = found
    leaves = [graph.leaves[each.place.index] for each in step.inputs if each.place.kind == "leaf"]
    largest = max(leaves, key=lambda leaf: leaf.nbytes, default=None)
    return f"{step.op.name}{f' of {largest.name}' if largest is not None else ''} cannot run there: {reason}"


@dataclass(frozen=True)
class Need:
    """The least memory that a graph can run in: ``nbytes`` while its largest part computes.

    ``weights`` of these bytes are weights; ``largest`` is the name of the largest weight, of ``largest_bytes`` bytes.
    """

    nbytes: int
    weights: int
    largest: str
    largest_bytes: int


@sliced
def least_need(device: Device, outputs: Sequence[Node]) -> Slices[Need]:
    """Return the least memory for a run of ``outputs``, whose stored leaves are all weights that can be evicted."""
    graph = Graph(outputs)
    yield
    fused = fuse(graph, device.backend)
    yield
    nodes, parts = fused.nodes, parts_of(fused, device, device, {}, lambda each: Bounds(nbytes=1))
    last = {number: turn for turn, part in enumerate(parts) for number in part.needed}
    arenas: dict[str, int] = {}
    between, needs = 0, []
    for turn, part in enumerate(parts):
        yield
        structure = part.graph.structure
        if structure not in arenas:
            arenas[structure] = (yield from planned.slices(device, part.graph)).plan.arena_bytes
        between += sum(nodes[number].nbytes for number in part.made)
        weights = [nodes[number] for number in part.needed if nodes[number].op is None]
        largest = max(weights, key=lambda weight: weight.nbytes, default=nodes[0])
        nbytes = sum(weight.nbytes for weight in weights)
        needs.append(Need(nbytes + between + arenas[structure], nbytes, largest.name or "", largest.nbytes))
        ends = (nodes[number] for number in part.needed if last[number] == turn)
        between -= sum(node.nbytes for node in ends if node.op is not None)
    return max(needs, key=lambda need: need.nbytes)


def bytes_to_run(device: Device, outputs: Sequence[Node]) -> int:
    """Return the bytes of the arena and the outputs of a run, planned as for a device of kernels."""
    plan = at_once(_steps(device, outputs)).plan
    return plan.arena_bytes + sum(plan.output_bytes)


def _steps(device: Device, outputs: Sequence[Node]) -> Slices[Planned[Plan]]:
    graph = Graph(outputs)
    yield
    graph = fuse(graph, device.backend)
    yield
    return (yield from planned_steps(device.backend, graph))
