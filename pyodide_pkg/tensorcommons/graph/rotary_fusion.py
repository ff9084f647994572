"""Rotary positions without a step of their own: attention rotates its few queries, an append rotates the keys.

It saves two dispatches a layer of a decoder's step, on devices where a step costs more than what it computes
(``steps_cost``). The rotated numbers have the same bits as in a step of their own, so this is a pattern of the second
phase (:mod:`~.rewrite`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..backends.backend import Backend
from ..backends.base import Op
from ..backends.ops import OPS
from .graph import Graph
from .node import Node
from .paged_attention import ATTENTION_PARTS, MEMORY_ORDER, PAGED_ATTENTION
from .rewrite import Replacement, rewritten

TURNS = 3  # operands of a rotation: cos, sin and positions


def _rotated(name: str, place: int, base: Callable[[], Op], *, in_place: bool = False, **options: Any) -> Op:
    """Make the op that rotates input ``place`` of ``base`` first; cos, sin and positions follow the inputs of that."""

    def rotated(arrays: Sequence[Any], interleaved: bool) -> list[Any]:
        operands, turns = list(arrays[:-TURNS]), arrays[-TURNS:]
        operands[place] = OPS["rotary_embedding"].reference(operands[place], *turns, interleaved=interleaved)
        return operands

    def reference(*arrays: Any, interleaved: bool, **attrs: Any) -> Any:
        return base().reference(*rotated(arrays, interleaved), **attrs)

    def write(*arrays: Any, interleaved: bool, **attrs: Any) -> None:
        append = base().in_place
        assert append is not None
        append(*rotated(arrays, interleaved), **attrs)

    return Op(
        f"rotated_{name}",
        lambda specs, attrs: base().infer(specs[:-TURNS], attrs),
        reference,
        multiply_adds=lambda specs, result, attrs: base().multiply_adds(specs[:-TURNS], result, attrs),
        traffic=lambda specs, result, attrs: base().bytes_moved(specs[:-TURNS], result, attrs),
        in_place=write if in_place else None,
        **options,
    )


# By the name of an op, the input that it rotates, and the op that does so.
FUSED = {
    "paged_attention": (0, _rotated("paged_attention", 0, lambda: PAGED_ATTENTION, memory_order=MEMORY_ORDER)),
    "attention_parts": (0, _rotated("attention_parts", 0, lambda: ATTENTION_PARTS)),
    "paged_append": (1, _rotated("paged_append", 1, lambda: OPS["paged_append"], in_place=True)),
}


def fuse_rotary(graph: Graph, backend: Backend[Any]) -> Graph:
    """Return ``graph`` with rotary positions inside attention and appends, where ``backend`` has kernels for that."""
    uses = graph.uses()
    return rewritten(graph, lambda node: _fused(node, uses, backend))


def _fused(node: Node, uses: Counter[Node], backend: Backend[Any]) -> Replacement | None:
    if node.op is None or node.op.name not in FUSED:
        return None
    place, op = FUSED[node.op.name]
    rotary = node.inputs[place]
    if not rotary.is_op("rotary_embedding") or uses[rotary] != 1 or len(rotary.inputs) != 4:
        return None
    if not backend.rotates([each.spec for each in node.inputs]):
        return None
    x, *turns = rotary.inputs
    operands = (*node.inputs[:place], x, *node.inputs[place + 1 :], *turns)
    attrs = {**node.attrs, "interleaved": rotary.attrs["interleaved"]}
    return Replacement(operands, lambda new: Node(op, attrs, new, node.spec))
