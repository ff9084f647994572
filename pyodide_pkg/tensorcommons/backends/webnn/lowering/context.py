"""The context of a rule: the value to lower, the operands of its inputs, and the builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ....bridge.runtime import Slices
from ....dtypes import DType
from ....errors import UnsupportedOp
from ...base import BlockSpec, Computation, Value
from ..builder import GraphBuilder, Operand
from ..fields import field_tensors

Rule: TypeAlias = "Callable[[LoweringContext, Value], Operand]"


def physical(dtype: DType) -> str:
    """The dtype under which WebNN keeps it: a bool is a byte that is 0 or 1."""
    return "uint8" if dtype.kind == "bool" else dtype.name


class LoweringContext:
    """One computation on its way to a builder. Values are lowered when something needs them, once."""

    def __init__(
        self, computation: Computation, builder: GraphBuilder, rules: Mapping[str, Rule], refused: Mapping[str, str]
    ) -> None:
        self.values = computation.values
        self.b = builder
        self.rules = rules
        self.refused = refused
        self.operands: dict[int, Operand] = {}
        self.why: dict[int, str] | None = None  # where refusals are collected instead of raised: of each value, why

    def lower(self, number: int) -> Slices[None]:
        """Make the operand of value ``number``, and those that it needs; graphs may be deeper than Python's stack."""
        waiting = [number]
        while waiting:
            number = waiting[-1]
            if number in self.operands:
                waiting.pop()
                continue
            missing = [child for child in self.needs(number) if child not in self.operands]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            yield
            self.operands[number] = self._lowered(number)

    def needs(self, number: int) -> tuple[int, ...]:
        """Return the numbers of the values that the rule of value ``number`` uses."""
        value = self.values[number]
        return tuple(self.source(child) for child in value.inputs) if value.op is not None else ()

    def source(self, number: int) -> int:
        """The value below a broadcast: WebNN's operations broadcast by themselves."""
        while (value := self.values[number]).op is not None and value.op.name == "broadcast_to":
            number = value.inputs[0]
        return number

    def _lowered(self, number: int) -> Operand:
        value = self.values[number]
        dtype = physical(value.spec.dtype)
        if value.op is None:
            kinds = [(dtype, value.spec.shape)]
            if isinstance(value.spec, BlockSpec):
                kinds = field_tensors(value.spec.format, value.spec.weight_shape)
            return self.b.input(number, kinds[0][1], kinds[0][0])
        if 0 in value.spec.shape:
            return self.b.empty(value.spec.shape, dtype)
        self.b.op = value.op.name
        first = len(self.b.nodes)
        try:
            result = self._ruled(value)
            self.b.check_size(first)
            assert result.dtype == dtype, f"{value.op.name}: {result.dtype} instead of {dtype}"
            return result if result.shape == value.spec.shape else self.b.expand(result, value.spec.shape)
        except UnsupportedOp as error:
            if self.why is None:
                raise
            self.why[number] = error.reason
            return self.b.input(number, value.spec.shape, dtype)

    def _ruled(self, value: Value) -> Operand:
        assert value.op is not None
        if value.op.name not in self.rules:
            raise self.b.refuse(self.refused.get(value.op.name, "there is no rule for it"))
        return self.rules[value.op.name](self, value)

    def loose(self, value: Value) -> list[Operand]:
        """The operands of a value, without what only broadcasts them."""
        return [self.operands[self.source(child)] for child in value.inputs]

    def given(self, value: Value) -> list[Operand]:
        """The operands of a value in their full shapes."""
        shapes = [self.values[child].spec.shape for child in value.inputs]
        return [self.b.expand(x, shape) for x, shape in zip(self.loose(value), shapes, strict=True)]
