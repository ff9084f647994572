"""Steps that WebAssembly kernels compute in a browser.

NumPy computes all others, and all under CPython.
"""

from __future__ import annotations

from ...shapes import Layout
from ..base import Op, Step
from . import convolution, elementwise, paging, positions, products, quantized, rows
from .record import Kernel, Record, has_rows, loaded, rows_of

KERNELS: dict[str, Kernel] = {
    "linear": products.linear,
    "matmul": products.matmul,
    "scaled_dot_product_attention": products.attention,
    "take_along_axis": rows.take,
    "layer_norm": rows.layer_norm,
    "rms_norm": rows.rms_norm,
    "sum_norm": rows.sum_norm,
    "softmax": rows.softmax,
    "log_softmax": rows.softmax,
    "rotary_embedding": positions.rotary,
    "kv_cache_append": positions.append,
    "paged_append": paging.append,
    "paged_rows": paging.read,
    "paged_mask": paging.mask,
    "paged_attention": paging.attention,
    "conv2d": convolution.conv2d,
    "quantized_linear": quantized.linear,
    "quantized_rows": quantized.take,
    **dict.fromkeys(rows.REDUCTIONS, rows.reduce),
    **dict.fromkeys(elementwise.ELEMENTWISE, elementwise.each),
    "copy": elementwise.copy,
    "concat": elementwise.concat,
}
PRODUCTS = {"linear", "matmul", "scaled_dot_product_attention"}
# the leading axes of their operands are one in memory
WHOLE = {"layer_norm", "rms_norm", "softmax", "log_softmax", "quantized_linear"}
# the operand whose rows may lie apart; pools and tables are read whole
PAGED = {"paged_append": 1, "paged_rows": None, "paged_mask": None, "paged_attention": 0}


def records_of(step: Step) -> list[Record] | None:
    """Return the records that compute ``step``, or None where NumPy does."""
    kernel = KERNELS.get(step.op.name)
    if kernel is None or loaded()[0] is None:
        return None
    if not step.output.layout.size:
        return []
    found = kernel(step)
    records = None if found is None else list(found)
    return records if all(each.fits for each in records or ()) else None


def reads(op: Op, position: int, layout: Layout) -> bool:
    """Return whether an operand of ``layout`` is read in place; others are copied before the step."""
    if loaded()[0] is None:
        return True
    if op.name in WHOLE:
        return rows_of(layout) is not None
    if op.name in PRODUCTS:
        is_weight = op.name in ("linear", "matmul") and position == 1
        return has_rows(layout) or (is_weight and (layout.strides[-2] == 1 or layout.shape[-2] <= 1))
    if op.name == "rotary_embedding":
        return layout.is_contiguous if position in (1, 2) else position == 3 or has_rows(layout)
    if op.name in PAGED:
        return has_rows(layout) if position == PAGED[op.name] else layout.is_contiguous
    return op.name != "kv_cache_append" or position != 1 or has_rows(layout)
