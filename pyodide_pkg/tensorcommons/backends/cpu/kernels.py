"""Steps that WebAssembly kernels compute in a browser.

NumPy computes all others, and all under CPython.
"""

from __future__ import annotations

from ...shapes import Layout
from ..base import Op, Step
from . import elementwise, products, rows
from .record import Kernel, Record, has_rows, loaded

KERNELS: dict[str, Kernel] = {
    "linear": products.linear,
    "linears": products.linears,
    "matmul": products.matmul,
    "scaled_dot_product_attention": products.attention,
    "take_along_axis": rows.take,
    "layer_norm": rows.layer_norm,
    "rms_norm": rows.rms_norm,
    "sum_norm": rows.sum_norm,
    "softmax": rows.softmax,
    **dict.fromkeys(rows.REDUCTIONS, rows.reduce),
    **dict.fromkeys(elementwise.ELEMENTWISE, elementwise.each),
}
READ_BY_ROWS = {"linear", "linears", "matmul", "scaled_dot_product_attention", "layer_norm", "rms_norm", "softmax"}


def records_of(step: Step) -> list[Record] | None:
    """Return the records that compute ``step``, or None where NumPy does."""
    kernel = KERNELS.get(step.op.name)
    if kernel is None or loaded()[0] is None:
        return None
    if not step.output.layout.size:
        return []
    records = kernel(step)
    return None if records is None else list(records)


def reads(op: Op, position: int, layout: Layout) -> bool:
    """Return whether an operand of ``layout`` is read in place; others are copied before the step."""
    if loaded()[0] is None or op.name not in READ_BY_ROWS | elementwise.ELEMENTWISE:
        return True
    if op.name in elementwise.ELEMENTWISE:
        return layout.strides[-1:] in ((), (0,), (1,)) or layout.shape[-1] == 1
    is_weight = op.name in ("linear", "matmul") and position == 1
    return has_rows(layout) or (is_weight and (layout.strides[-2] == 1 or layout.shape[-2] <= 1))
