"""The places of a table's pages, computed once for all layers of a decoding step instead of once for each graph.

A step appends one token of one row. What depends on the table alone are the slots that are written, the pages that are
read in order, and which of their tokens there are; appends and reads of the layers are then an operation or three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...dtypes import DType, int32
from ...dtypes import bool as boolean
from ..base import Attributes, Computation, Op, Spec, Value

PAGES = 2  # first column of a table with a page, see ops/paging.py


def _like_pool(specs: Sequence[Spec], _: Attributes) -> Spec:
    return specs[0]


def _unused(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


def _facts(name: str) -> Op:
    return Op(name, _like_pool, _unused)


# Of a table: bool (pages, 1, size, 1), int32 (count,) and bool (1, 1, count * size, 1). Attributes: pages and size.
SLOTS, PLACES, TOKENS = _facts("page_slots"), _facts("page_places"), _facts("page_tokens")
# Of a pool, new tokens and slots; and of a pool, places and tokens.
WRITE, READ = _facts("page_write"), _facts("page_read")


def with_places(computation: Computation) -> Computation:
    """Return ``computation`` with the appends of one token of one row, and the reads of one row, from shared places."""
    values = list[Value]()
    numbers = list[int]()  # by number in ``computation``
    known: dict[tuple[str, int, int, int], int] = {}

    def fact(op: Op, table: int, pool: Value, dtype: DType, shape: tuple[int, ...]) -> int:
        pages, _, size, _ = pool.spec.shape
        key = op.name, table, pages, size
        if key not in known:
            known[key] = len(values)
            values.append(Value(op, {"pages": pages, "size": size}, (table,), Spec(shape, dtype)))
        return known[key]

    for value in computation.values:
        inputs = tuple(numbers[child] for child in value.inputs)
        name = value.op.name if value.op is not None else ""
        if name in ("paged_append", "paged_rows") and values[inputs[-1]].spec.shape[0] == 1:
            pool, table = values[inputs[0]], inputs[-1]
            pages, _, size, _ = pool.spec.shape
            count = values[table].spec.shape[1] - PAGES
            if name == "paged_rows":
                places = fact(PLACES, table, pool, int32, (count,))
                tokens = fact(TOKENS, table, pool, boolean, (1, 1, count * size, 1))
                value = Value(READ, {}, (inputs[0], places, tokens), value.spec)
            elif values[inputs[1]].spec.shape[2] == 1:
                slots = fact(SLOTS, table, pool, boolean, (pages, 1, size, 1))
                value = Value(WRITE, {}, (inputs[0], inputs[1], slots), value.spec)
            else:
                value = Value(value.op, value.attrs, inputs, value.spec)
        else:
            value = Value(value.op, value.attrs, inputs, value.spec, value.index, value.host)
        numbers.append(len(values))
        values.append(value)
    outputs = tuple(numbers[number] for number in computation.outputs)
    return Computation(tuple(values), outputs, computation.host_bytes, computation.leaves)
