"""The table of ops, by name. Each is defined in the file of its family in ``ops/``, or by a pattern of ``graph/``."""

from __future__ import annotations

from .base import Op

OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Register an op under its name. Raises ValueError for a name that is taken."""
    if op.name in OPS:
        raise ValueError(f"op {op.name!r} is defined twice")
    OPS[op.name] = op
    return op
