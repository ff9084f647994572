"""The passes from a fused graph to what its device compiles, in their order. All of them keep the bits."""

from __future__ import annotations

from typing import Any

from ..backends.backend import Backend
from ..backends.base import Computation, Plan
from ..backends.device import Device
from ..bridge.runtime import Slices, sliced
from .computation import make_computation
from .elementwise_fusion import chain_elementwise
from .embedding_norm import fuse_embedding_norms
from .graph import Graph
from .horizontal_fusion import join_products
from .int8_activations import round_activations
from .paged_attention import attend_in_pages
from .plan import Planned, make_plan
from .rotary_fusion import fuse_rotary
from .row_products import join_row_products


@sliced
def planned(device: Device, fused: Graph) -> Slices[Planned[Plan] | Planned[Computation]]:
    """Plan a fused graph as ``device`` compiles it."""
    if device.backend.takes_graphs:
        return make_computation(fused)
    return (yield from planned_steps(device.backend, fused))


def planned_steps(backend: Backend[Any], fused: Graph) -> Slices[Planned[Plan]]:
    """Plan a fused graph in steps, a pass over the graph at a time: each takes a browser 2 ms a layer of a model."""
    graph = fuse_embedding_norms(fused, backend)
    graph = attend_in_pages(graph, backend)
    yield
    graph = chain_elementwise(graph, backend)
    yield
    graph = round_activations(graph, backend)
    if backend.steps_cost:
        graph = join_products(join_row_products(fuse_rotary(graph, backend), backend))
    yield
    return make_plan(graph, backend)
