"""Code of a plan: the records of its kernels as words in memory, and the steps between them that NumPy computes.

The words are written once. Each run only replaces the addresses, since its leaves and results lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import Executable, Plan, Step
from .kernels import records_of
from .pieces import pieces_of
from .record import NUMBERS, Pointer, loaded

TOGETHER = 2**25  # operations of the records that one call executes, about 2 ms


@dataclass(frozen=True)
class CodeRange:
    """A range of bytes of the code that one call executes, or a ``step`` for NumPy, or a piece of one.

    ``number`` is the number of the step, or of the last step that has records in the range.
    """

    number: int
    step: Step | None
    first: int = 0
    end: int = 0


@dataclass(frozen=True, eq=False)
class Code(Executable):
    """A compiled plan. The ``words`` at ``positions`` are addresses: those of ``bases`` plus ``offsets`` in bytes."""

    plan: Plan
    parts: tuple[CodeRange, ...]
    words: Any
    positions: Any
    bases: Any
    offsets: Any
    scratch_bytes: int

    def link(self, addresses: Sequence[int]) -> None:
        """Write the addresses of arena, leaves, outputs and scratch memory."""
        if len(self.positions):
            table = np.array(addresses, np.int64)
            self.words[self.positions] = table[self.bases] + self.offsets

    def execute(self, part: CodeRange) -> None:
        """Execute the records of a part."""
        start = address_of(self.words)
        loaded()[0].run(start + part.first, start + part.end)


def assemble(plan: Plan, apart: bool = False) -> Code:
    """Write the code of a plan; with ``apart`` each part belongs to one step. The words are the same."""
    records = [records_of(step) for step in plan.steps]
    words: list[int] = []
    positions, bases, offsets = [], [], []
    parts: list[CodeRange] = []
    work = 0
    for number, (step, found) in enumerate(zip(plan.steps, records, strict=True)):
        if found is None:
            parts.extend(CodeRange(number, piece) for piece in pieces_of(step))
        for record in found or ():
            start = 4 * len(words)
            for word in record.words:
                if isinstance(word, Pointer):
                    positions.append(len(words))
                    bases.append(_base(word, plan))
                    offsets.append(word.offset)
                words.append(0 if isinstance(word, Pointer) else word)
            last = parts[-1] if parts else None
            work += record.work
            if last is None or last.step or work > TOGETHER or (apart and last.number != number):
                parts.append(CodeRange(number, None, start, 4 * len(words)))
                work = record.work
            else:
                parts[-1] = CodeRange(number, None, last.first, 4 * len(words))
    scratch = max([4 * (NUMBERS + record.scratch) for found in records for record in found or ()], default=0)
    code = np.array(words, np.int64).astype(np.uint32)
    links = [np.array(numbers, np.int64) for numbers in (positions, bases, offsets)]
    return Code(
        dispatches=len(plan.steps),
        nbytes=scratch + code.nbytes + sum(array.nbytes for array in links),
        plan=plan,
        parts=tuple(parts),
        words=code,
        positions=links[0],
        bases=links[1],
        offsets=links[2],
        scratch_bytes=scratch,
    )


def _base(pointer: Pointer, plan: Plan) -> int:
    """Return the number of a base in the order arena, leaves, outputs, scratch memory."""
    kind, index = pointer.base
    first = {"arena": 0, "leaf": 1, "output": 1 + plan.leaves, "scratch": 1 + plan.leaves + len(plan.output_bytes)}
    return first[kind] + index


def address_of(array: Any) -> int:
    """Return the address of the first byte of an array."""
    address: int = array.__array_interface__["data"][0]
    return address
