"""The graphs of a decoding step: those that multiply one row by weights, and between them those of the cache.

The former do not depend on the size of the cache, and those of equal layers are equal, so each is built once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ...shapes import size_of
from ..base import Computation, Value
from .multicore import Cut, Stage, staged
from .pages import ATTEND, READ, WRITE

CACHED = (WRITE.name, READ.name, ATTEND.name, "scaled_dot_product_attention")
# Computed again by each graph that needs them, of values that are given or free themselves.
FREE = ("arange", "broadcast_to", "reshape", "permute_dims", "astype")


def weight_of(values: Sequence[Value], value: Value) -> Value | None:
    """Return the leaf by which ``value`` multiplies one row, as it is or transposed; None for any other value."""
    if value.op is None or value.op.name != "linear" or size_of(values[value.inputs[0]].spec.shape[:-1]) != 1:
        return None
    weight = values[value.inputs[1]]
    if weight.op is not None and weight.op.name == "permute_dims":
        weight = values[weight.inputs[0]]
    return weight if _is_leaf(weight) else None


def decoding_stages(computation: Computation) -> list[Stage] | None:
    """Return the graphs of a decoding step of one row, a computation :func:`with_places`; None for other computations.

    The first prepares what depends on no product: the embedding, positions, masks. Those with an odd level multiply,
    those with an even level append to the cache and attend to it.
    """
    values = computation.values
    names = Counter(value.op.name for value in values if value.op is not None)
    multiplies = {number for number, value in enumerate(values) if weight_of(values, value) is not None}
    if not names[WRITE.name] or 2 * len(multiplies) <= names["linear"]:
        return None
    levels: list[int] = []
    cuts: dict[int, Cut] = {}
    free: set[int] = set()
    for number, value in enumerate(values):
        level = max((levels[child] for child in value.inputs), default=0)
        if value.op is None:
            free.update([number] if _is_leaf(value) else ())
        elif value.op.name in FREE and free.issuperset(value.inputs):
            free.add(number)
        elif value.op.name != "broadcast_to":  # what is broadcast is stored, not the result
            if number in multiplies:
                level += 1 - level % 2
            elif value.op.name in CACHED:
                level += level % 2
            cuts[number] = Cut(None, level)
        levels.append(level)
    return [replace(stage, rows=stage.level % 2 == 1) for stage in staged(computation, cuts)]


def constant_weights(computation: Computation) -> set[int]:
    """Return the leaves, by number, that products of one row can have as constants: LiteRT widens those of float16."""
    values = computation.values
    found = (weight_of(values, value) for value in values)
    indices = {weight.index for weight in found if weight is not None and weight.spec.dtype.name == "float32"}
    return {number for number, value in enumerate(values) if _is_leaf(value) and value.index in indices}


def _is_leaf(value: Value) -> bool:
    return value.op is None and not value.host
