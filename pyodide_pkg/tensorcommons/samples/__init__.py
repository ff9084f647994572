"""Samples of operands for the conformance suite: one or more declarations for each op, in the file of its family.

::

    declare("tanh", tc.tanh, np.tanh, UNARY, FLOATS, each=True)

declares that ``tc.tanh`` runs the op "tanh", and that its reference is ``np.tanh`` of float64 arrays. The operands have
the shapes ``UNARY`` and the dtypes float32 and float16; every other dtype must be rejected. With ``each``, each element
must be within the tolerance. tests/cases/conformance.py derives all tests from it: dtypes, layouts, offsets, NaN and
extremes, empty operands, rejections. An op of the registry without a declaration fails the suite.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Shapes: TypeAlias = tuple[tuple[int, ...], ...]  # of the operands of one call

FLOATS = ("float32", "float16")
INTS = ("int32", "uint32")
NUMBERS = FLOATS + INTS
DTYPES = NUMBERS + ("bool",)

UNARY: tuple[Shapes, ...] = tuple((s,) for s in [(), (1,), (0,), (3, 0, 2), (7,), (13, 17), (1, 1, 1), (5, 3, 1, 11)])
BINARY: tuple[Shapes, ...] = (
    ((7,), (7,)),
    ((13, 17), (13, 17)),
    ((), (3, 5)),
    ((5,), (3, 5)),
    ((3, 1), (1, 5)),
    ((2, 1, 7), (3, 1)),
    ((1,), (0,)),
    ((4, 0), (1, 1)),
    ((2, 3, 1, 5, 1), (3, 7, 1, 2)),
)
LARGE = 1_100_003  # elements: odd, and more than 65,535 workgroups


@dataclass(frozen=True)
class Sample:
    """A declaration of an op's operands and reference. ``wanted`` gets float operands as float64, others unchanged.

    ``values(rng, dtype, shapes)`` makes the operands; by default they are drawn from ``ranges``, one pair for each
    operand or one for all. With ``each`` every element must be within ``tolerance``, otherwise the norm of the error.
    ``special`` adds NaN, infinities and extremes, in all combinations. ``result`` is the result's dtype, if it is
    neither bool nor the first operand's. Dtypes that no sample of an op declares must be rejected.
    """

    op: str
    call: Callable[..., Any]
    wanted: Callable[..., Any]
    shapes: Sequence[Shapes]
    dtypes: Sequence[str]
    each: bool = False
    special: bool = False
    ranges: Sequence[tuple[float, float]] = ((-2, 2),)
    values: Callable[[np.random.Generator, str, Shapes], list[Any]] | None = None
    result: str | None = None
    tolerance: float = 1e-5
    half_tolerance: float = 2e-3

    def operands(self, rng: np.random.Generator, dtype: str, shapes: Shapes) -> list[Any]:
        """Make operands of these shapes."""
        if self.values is not None:
            return self.values(rng, dtype, shapes)
        ranges = [self.ranges[min(i, len(self.ranges) - 1)] for i in range(len(shapes))]
        return [drawn(rng, dtype, shape, *limits) for shape, limits in zip(shapes, ranges, strict=True)]


SAMPLES: list[Sample] = []


def declare(*arguments: Any, **options: Any) -> None:
    """Add a :class:`Sample`; an op may have several."""
    SAMPLES.append(Sample(*arguments, **options))


def drawn(rng: np.random.Generator, dtype: str, shape: Sequence[int], low: float = -2, high: float = 2) -> Any:
    """Draw random numbers between ``low`` and ``high``, so that a wrong stride changes the result.

    Ints are drawn from five times the range, unsigned ones from its positive part; bools are both true and false.
    """
    numbers = rng.uniform(low, high, shape)
    if dtype == "bool":
        return numbers > (low + high) / 2
    if np.dtype(dtype).kind in "iu":
        numbers = numbers * 5
    return (np.abs(numbers) if dtype == "uint32" else numbers).astype(dtype)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
