"""The computations that measure how fast a device reads memory and multiplies."""

from __future__ import annotations

import math

from ...dtypes import float32
from ..base import Computation, Op, Probe, Spec, Value

SIDE = 512  # of the matrices of a probe: 268 million operations
# As the ops of these names: only their names are needed of them here.
NEGATIVE = Op("negative", lambda specs, attrs: specs[0], lambda x: -x)
PRODUCT = Op("matmul", lambda specs, attrs: specs[0], lambda a, b: a @ b)


def probes(nbytes: int) -> tuple[Probe, Probe]:
    """Return an operation on ``nbytes`` in all, and a product of matrices."""
    flat = Spec((max(nbytes // 8, 1),), float32)
    square = Spec((min(math.isqrt(flat.shape[0]), SIDE),) * 2, float32)
    return (
        Probe(_single(NEGATIVE, flat, 1), 2 * flat.nbytes, (flat,)),
        Probe(_single(PRODUCT, square, 2), 2 * square.shape[0] ** 3, (square, square)),
    )


def _single(op: Op, spec: Spec, leaves: int) -> Computation:
    """One operation on ``leaves`` values, with a result of their spec."""
    given = [Value(None, {}, (), spec, index) for index in range(leaves)]
    return Computation((*given, Value(op, {}, tuple(range(leaves)), spec)), (leaves,), 0, leaves)
