"""The places of a table's pages, computed once for all layers of a decoding step instead of once for each graph.

A step appends one token of one row. The slots that are written, the order of the pages that are read, and a mask of
their tokens depend on the table alone; each layer's append and read then take one to three operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...dtypes import bool as boolean
from ...dtypes import float32, int32
from ...errors import UnsupportedOp
from ...shapes import size_of
from ..base import Attributes, Computation, Op, Spec, Value

PAGES = 2  # first column of a table with a page, see ops/paging.py


def _first(specs: Sequence[Spec], _: Attributes) -> Spec:
    return specs[0]


def _op(name: str, **costs: Any) -> Op:
    """Define an op of WebNN's graphs alone, computed by its rule in lowering/paging.py: no other device is given it."""

    def reference(*_: Any, **__: Any) -> Any:
        raise UnsupportedOp(name, "any device but WebNN", "it is part of a graph of WebNN")

    return Op(name, _first, reference, **costs)


# Of a table: bool (pages, 1, size, 1), int32 (count,) and bool (1, 1, count * size, 1). Attributes: pages and size.
SLOTS, PLACES, TOKENS = _op("page_slots"), _op("page_places"), _op("page_tokens")
SEEN = _op("page_seen")  # of a table: bool (1, 1, 1, count * size). Attributes: also the window
UNSEEN = _op("page_unseen_scores")  # of a table and SEEN: float32 (1, 1, 1, count * size). Attribute: the window
# Of a pool, new tokens and slots; and of a pool, places and tokens.
WRITE, READ = _op("page_write"), _op("page_read")


def _multiply_adds(specs: Sequence[Spec], _: Spec, __: Attributes) -> int:
    return 2 * size_of(specs[0].shape) * specs[4].shape[3]


# Of a query, the pools of keys and values, places, and the values of SEEN and UNSEEN. Attribute: scale.
ATTEND = _op("page_attention", multiply_adds=_multiply_adds)


def with_places(computation: Computation) -> Computation:
    """Return ``computation`` with the appends of one token of one row, and the reads of one row, from shared places."""
    return _Rewriting(computation).result()


class _Rewriting:
    """The values of ``computation`` so far, with values of tables before those that use them."""

    def __init__(self, computation: Computation) -> None:
        self.before = computation
        self.values: list[Value] = []
        self.numbers: list[int] = []  # by number in ``before``
        self.known: dict[tuple[Any, ...], int] = {}

    def result(self) -> Computation:
        for value in self.before.values:
            inputs = tuple([self.numbers[child] for child in value.inputs])
            new = self._rewritten(value, inputs) or replace(value, inputs=inputs)
            self.numbers.append(len(self.values))
            self.values.append(new)
        outputs = tuple(self.numbers[number] for number in self.before.outputs)
        return replace(self.before, values=tuple(self.values), outputs=outputs)

    def _rewritten(self, value: Value, inputs: tuple[int, ...]) -> Value | None:
        name = value.op.name if value.op is not None else ""
        if name == "scaled_dot_product_attention":
            return self._attention(value, inputs)
        if name not in ("paged_append", "paged_rows") or self.values[inputs[-1]].spec.shape[0] != 1:
            return None
        pool, table = inputs[0], inputs[-1]
        pages, _, size, _ = self.values[pool].spec.shape
        count = self.values[table].spec.shape[1] - PAGES
        attrs = {"pages": pages, "size": size}
        if name == "paged_rows":
            places = self._of_table(PLACES, attrs, (table,), Spec((count,), int32))
            tokens = self._of_table(TOKENS, attrs, (table,), Spec((1, 1, count * size, 1), boolean))
            return Value(READ, {}, (pool, places, tokens), value.spec)
        if self.values[inputs[1]].spec.shape[2] != 1:
            return None
        slots = self._of_table(SLOTS, attrs, (table,), Spec((pages, 1, size, 1), boolean))
        return Value(WRITE, {}, (pool, inputs[1], slots), value.spec)

    def _of_table(self, op: Op, attrs: Attributes, inputs: tuple[int, ...], spec: Spec) -> int:
        """Return the number of a value that layers have in common."""
        key = op.name, inputs, *attrs.items()
        if key not in self.known:
            self.known[key] = len(self.values)
            self.values.append(Value(op, attrs, inputs, spec))
        return self.known[key]

    def _attention(self, value: Value, inputs: tuple[int, ...]) -> Value | None:
        """Return the attention of one token to keys and values of pages, where that is what ``value`` is."""
        if len(inputs) != 4 or value.attrs["causal"] or value.spec.shape[2] != 1:
            return None
        _, keys, values, mask = (self.values[number] for number in inputs)
        while mask.op is not None and mask.op.name == "broadcast_to":
            mask = self.values[mask.inputs[0]]
        if mask.op is None or mask.op.name != "paged_mask" or keys.op is not READ or values.op is not READ:
            return None
        (table,), places = mask.inputs, keys.inputs[1]
        pages, _, size, _ = self.values[keys.inputs[0]].spec.shape
        is_one = self.values[places].inputs == (table,) and values.inputs[1:] == keys.inputs[1:]
        if not is_one or mask.attrs["size"] != size:
            return None
        window = {"window": mask.attrs["window"]}
        shape = (1, 1, 1, keys.spec.shape[2])
        seen = self._of_table(SEEN, {"pages": pages, "size": size, **window}, (table,), Spec(shape, boolean))
        unseen = self._of_table(UNSEEN, window, (table, seen), Spec(shape, float32))
        operands = (inputs[0], keys.inputs[0], values.inputs[0], places, seen, unseen)
        return Value(ATTEND, {"scale": value.attrs["scale"]}, operands, value.spec)
