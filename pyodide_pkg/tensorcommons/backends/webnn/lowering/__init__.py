"""Lowering to WebNN: one rule an op, from its value in the graph to an operand of the builder.

A rule calls one method of the builder where one has the same meaning, else several. An op that WebNN cannot express, or
not in the given dtype, raises UnsupportedOp with the reason: that part runs on the next device.
"""

from __future__ import annotations

from ....bridge.runtime import Slices, sliced
from ...base import Computation
from ..builder import GraphBuilder
from . import activations, elementwise, images, indexing, layout, matrices, paging, quantized, reductions
from .context import LoweringContext, Rule, physical

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **activations.RULES,
    **layout.RULES,
    **reductions.RULES,
    **matrices.RULES,
    **quantized.RULES,
    **indexing.RULES,
    **paging.RULES,
    **images.RULES,
}
# Of these ops no composition is right, or worth it; each has its reason.
REFUSED = {
    **dict.fromkeys(("bitwise_left_shift", "bitwise_right_shift"), "WebNN has no operation on bits of ints"),
    "leaders": "WebNN has no sorting",
    "merge_runs": "WebNN has no sorting",
    "searchsorted": "WebNN has no search in sorted elements",
    **dict.fromkeys(("sample", "repetition_penalty"), "host and device share a processor there, so the host chooses"),
    "scatter": "WebNN leaves open what becomes of an index that is there twice",
}


@sliced
def lower(computation: Computation, builder: GraphBuilder) -> Slices[LoweringContext]:
    """Lower every output of ``computation`` to calls of the builder. Raises UnsupportedOp where WebNN has none."""
    return (
        yield from _lowered(LoweringContext(computation, builder, {**RULES, **paging.SHARED}, REFUSED), computation)
    )


@sliced
def lower_supported(computation: Computation, builder: GraphBuilder) -> Slices[LoweringContext]:
    """Lower what WebNN supports; ``why`` of the result has the reason for each other value."""
    lowering = LoweringContext(computation, builder, {**RULES, **paging.SHARED}, REFUSED)
    lowering.why = {}
    return (yield from _lowered(lowering, computation))


def _lowered(lowering: LoweringContext, computation: Computation) -> Slices[LoweringContext]:
    for number in computation.outputs:
        yield from lowering.lower(number)
    return lowering


__all__ = ["REFUSED", "RULES", "lower", "lower_supported", "physical"]
